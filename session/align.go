package session

import (
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// align brings the held connection in line with the session before the batch runs
// on it, in the same flight where the batch cannot do anything if that fails.
func (s *session) align(b *batch) error {
	c := s.conn
	if c.Settings == s.settings {
		return nil
	}
	want := s.wantsOf(c)
	queries := difference(c.Set, want)
	c.Settings, c.Set = s.settings, want
	made(c)
	if len(queries) == 0 {
		return nil
	}
	s.srv.metrics.aligned.Add(1)
	s.prelude = queries
	if b.complete && endsNothing(b.class) {
		return nil
	}
	return s.apart(func() error {
		s.startUp()
		s.sendPrelude()
		return s.exchangeOwn()
	})
}

// endsNothing reports whether the statement does nothing in a failed transaction:
// it has been read, it is the only one, and does not end the transaction.
func endsNothing(class route.Class) bool {
	return !class.Multi && class.Reason != route.ReasonUnreadable &&
		class.Kind != route.Commit && class.Kind != route.Rollback
}

// wantsOf returns what has to be set on a connection so that the client finds its
// own settings: what it has set, and what its server reports by default and the
// client was told otherwise at its login.
func (s *session) wantsOf(c *backend.Conn) map[string]string {
	want, own := s.settings.Values, false
	for name, value := range c.Params {
		name = strings.ToLower(name)
		told, ok := s.settings.Begun[name]
		if !ok || told == value || !settable(name) {
			continue
		}
		if _, ok := want[name]; ok {
			continue
		}
		if !own {
			want, own = maps.Clone(want), true
			if want == nil {
				want = make(map[string]string)
			}
		}
		want[name] = told
	}
	return want
}

// difference returns the queries that lead from what is set to what is wanted.
// Roles come first when they go and last when they come: the rest is set by who
// has logged in. An encoding is a query of its own, because a query is read in
// the encoding that it finds.
func difference(have, want map[string]string) []string {
	encoding, rest := changes(have, want)
	var queries []string
	if encoding != "" {
		queries = append(queries, encoding)
	}
	if len(rest) > 0 || encoding != "" {
		queries = append(queries, strings.Join(append(rest, "COMMIT"), "; "))
	}
	return queries
}

// changes are the commands of difference, that of the encoding by itself.
func changes(have, want map[string]string) (encoding string, rest []string) {
	var drops, sets, roles []string
	names := make(map[string]struct{}, len(have)+len(want))
	for name := range have {
		names[name] = struct{}{}
	}
	for name := range want {
		names[name] = struct{}{}
	}
	_, changesUser := names["session_authorization"]
	changesUser = changesUser && have["session_authorization"] != want["session_authorization"]
	for _, name := range slices.Sorted(maps.Keys(names)) {
		before, had := have[name]
		value, wanted := want[name]
		isRole := name == "role" || name == "session_authorization"
		if had == wanted && before == value && !(name == "role" && changesUser) || !settable(name) {
			continue
		}
		switch {
		case isRole:
			if had {
				drops = append([]string{"RESET " + name}, drops...) // in the reverse order: the role is the inner one
			}
			if wanted {
				roles = append([]string{assignment(name, value)}, roles...)
			}
		case !wanted:
			drops = append(drops, "RESET "+quotedName(name))
		case name == "client_encoding":
			encoding = assignment(name, value)
		default:
			sets = append(sets, assignment(name, value))
		}
	}
	return encoding, slices.Concat(drops, sets, roles)
}

// assignment gives a setting its value. Lists of names that SET would quote anew
// and text that depends on the encoding are given by set_config.
func assignment(name, value string) string {
	if strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		return "SELECT pg_catalog.set_config('" + name + "', pg_catalog.convert_from(pg_catalog.decode('" +
			hex.EncodeToString([]byte(value)) + "', 'hex'), pg_catalog.getdatabaseencoding()), false) IS NULL" // the client's encoding may lack it
	}
	quoted := "'" + strings.ReplaceAll(value, "'", "''") + "'"
	if strings.Contains(value, `\`) {
		quoted = "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	switch name {
	case "search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries": // GUC_LIST_QUOTE in guc.h
		return "SELECT pg_catalog.set_config('" + name + "', " + quoted + ", false)"
	}
	return "SET " + quotedName(name) + " TO " + quoted
}

func quotedName(name string) string {
	return `"` + strings.ReplaceAll(name, ".", `"."`) + `"`
}

// preamble begins a transaction by the extended protocol. If that fails the server
// skips all that follows, and if one of the queries behind it fails, what follows
// them meets a failed transaction: so a statement never runs with settings that
// are not the session's. The level keeps a default from asking for more.
var preamble = func() []byte {
	b := wire.AppendParse(nil, "", []byte("BEGIN ISOLATION LEVEL READ COMMITTED\x00\x00\x00"))
	b = append(wire.AppendBindHead(b, nil, "", 6), 0, 0, 0, 0, 0, 0)
	return append(b, wire.Execute, 0, 0, 0, 9, 0, 0, 0, 0, 0)
}()

// sendPrelude sends what brings the connection in line.
func (s *session) sendPrelude() {
	s.up = append(s.up, preamble...)
	s.cycle.insert(step{typ: wire.Parse, prelude: true, fills: true, slot: backend.Unknown})
	s.cycle.insert(step{typ: wire.Bind, prelude: true})
	s.cycle.insert(step{typ: wire.Execute, prelude: true})
	for _, sql := range s.prelude {
		s.up = wire.AppendQuery(s.up, sql)
		s.cycle.insert(step{typ: wire.Query, prelude: true})
	}
	s.prelude = nil
}

// misfitError says that a connection could not be brought in line, and in the
// server's words why.
type misfitError struct{ cause *wire.Error }

func (e *misfitError) Error() string { return "settings not taken over: " + e.cause.Message }

// settable reports whether SET takes a parameter that servers report.
func settable(name string) bool {
	switch name {
	case "server_version", "server_encoding", "integer_datetimes", "in_hot_standby", "is_superuser":
		return false
	case "transaction_isolation", "transaction_read_only", "transaction_deferrable": // the transaction's; from PostgreSQL 16 on RESET refuses them
		return false
	}
	return true
}
