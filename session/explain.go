package session

import (
	"bytes"
	"slices"
	"strings"

	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// EXPLAIN (LSNPROXY) is answered by a server, and where the statement itself would
// run, as an EXPLAIN without the option: so what is to be explained is placed,
// prepared, described and refused as usual, in whatever protocol and format, and is
// not run. Only the rows are the proxy's.

// explainMark ends the meaning of a prepared statement that is such an EXPLAIN.
const explainMark = "\x00explain"

func (st *statement) explains() bool { return strings.HasSuffix(st.meaning, explainMark) }

// unexplain makes an option of PostgreSQL's that says nothing of LSNPROXY in a
// text, in its place so that errors are told to be where they are for the client.
// It reports whether it was there.
func (s *session) unexplain(text []byte) bool {
	if !s.dialect.readable {
		return false
	}
	from, to, ok := route.Explained(text, s.dialect.conforming)
	if ok {
		option := text[from:to]
		for i := copy(option, "(COSTS 0"); i < len(option)-1; i++ {
			option[i] = ' '
		}
	}
	return ok
}

// bindExplained notes whether a portal is such an EXPLAIN.
func (s *session) bindExplained(portal []byte, explains bool) {
	name := string(portal)
	if at := slices.Index(s.explained, name); at >= 0 && !explains {
		s.explained = slices.Delete(s.explained, at, at+1)
	} else if at < 0 && explains {
		s.explained = append(s.explained, name)
	}
}

// runsExplained reports whether an Execute is of such a portal.
func (s *session) runsExplained(msg []byte) bool {
	portal, _, ok := wire.CString(wire.Body(msg))
	return ok && slices.Contains(s.explained, string(portal))
}

// explain puts the rows of an EXPLAIN (LSNPROXY) in front of its end.
func (s *session) explain() {
	for line := range strings.SplitSeq(s.routeText(), "\n") { // text is the same in both formats
		s.out.put(s.conn, func(b []byte) []byte { return wire.AppendDataRow(b, line) })
	}
}

// misexplained reports whether an error is the server's about the option
// (ExplainQuery in commands/explain.c; from PostgreSQL 18 on ParseExplainOptionList in
// commands/explain_state.c).
func misexplained(msg []byte) bool {
	routine := string(wire.Field(msg, 'R'))
	return bytes.Contains(wire.Field(msg, 'M'), []byte(`"lsnproxy"`)) &&
		(routine == "ExplainQuery" || routine == "ParseExplainOptionList") && string(wire.Field(msg, 'C')) == "42601"
}

const explainHint = "Write EXPLAIN (LSNPROXY) statement, without other options and without other statements in the string."
