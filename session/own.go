package session

import (
	"strings"

	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// ownNames are the proxy's variables that SHOW lsnproxy.<name> answers. The
// server answers it, from a value that is put in place in front of the
// statement and taken away behind it: so it comes in whatever protocol, format
// and transaction state the client uses.
var ownNames = []string{"token", "node", "pinned"}

// ownValues returns the queries that put the values in place. In a failed
// transaction none can be, and SHOW fails as it should.
func (s *session) ownValues() []string {
	if s.status == wire.Failed {
		return nil
	}
	queries := make([]string, len(ownNames))
	for i, name := range ownNames {
		queries[i] = "SET lsnproxy." + name + " = '" + strings.ReplaceAll(s.ownValue(name), "'", "''") + "'"
	}
	return queries
}

func (s *session) ownValue(name string) string {
	switch name {
	case "token":
		if s.token.IsZero() {
			return ""
		}
		return s.srv.board.View().Token(s.token).String()
	case "node":
		return s.routedText()
	default:
		return s.pinned.String()
	}
}

// routedText says which node served the previous statement, and why.
func (s *session) routedText() string {
	r := s.routed
	if r.why == route.WhyNothing {
		return r.why.String()
	}
	v := s.srv.board.View()
	role := "follower"
	if r.leader {
		role = "leader"
	}
	return v.Nodes[r.node].Address + " " + role + ": " + r.why.String() + "; statement: " + r.reason.String()
}

// errOwnSet refuses to change a variable of the proxy.
var errOwnSet = &wire.Error{Code: "55P02", Message: "variables of lsnproxy can be shown but not set"}
