package session

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// The proxy's variables are custom settings to the servers, so that SET, RESET
// and SHOW of them are answered in whatever protocol, format and transaction state
// the client uses, and a transaction that rolls back undoes what it has set. The
// values that SHOW finds are put in place in front of it and taken away behind it.

// ownPrefix begins their names.
const ownPrefix = "lsnproxy."

// shownNames are the variables that can be shown.
var shownNames = append([]string{"token", "node", "pinned", "route"}, policyNames...)

// ownShown returns the variables that a batch shows: the one it names, or all if
// it is of several statements. What the session has set the server knows.
func (s *session) ownShown(b *batch) []string {
	names := shownNames
	if !b.class.Multi && slices.Contains(shownNames, b.class.Name) {
		names = []string{b.class.Name}
	}
	touched := strings.Fields(s.touched)
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, carried := s.settings.Values[ownPrefix+name]
		return carried || slices.Contains(touched, ownPrefix+name)
	})
}

// ownValues returns the queries that put values in place. In a failed
// transaction none can be, and SHOW fails as it should.
func (s *session) ownValues(names []string) []string {
	if s.status == wire.Failed {
		return nil
	}
	queries := make([]string, len(names))
	for i, name := range names {
		queries[i] = "SET " + ownPrefix + name + " = '" + strings.ReplaceAll(s.ownValue(name), "'", "''") + "'"
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
	case "route":
		return s.routeText()
	case "pinned":
		return s.pinned.String()
	default:
		return policyValue(s.policy, name)
	}
}

// settleShown makes the token that a batch shows cover what the session has read,
// if that can be told soon, and what it has written in any case.
func (s *session) settleShown(b *batch) error {
	wait := s.policy.Budget()
	if s.last.written {
		wait = s.srv.options.LeaderWait
	}
	shows := b.class.Multi || b.class.Name == "token"
	if shows && s.sight.node != noNode {
		if err := s.overtakeApart(&b.class); err != nil {
			return err
		}
	}
	if s.settle(time.Now().Add(wait)) || !s.last.written || !shows {
		return nil
	}
	if s.cancelled {
		return errCancelled
	}
	if err := s.checkToken(); err != nil || !s.last.written {
		return err
	}
	return &wire.Error{Code: "57P03", Message: "the position of the last write is not known", Detail: "There is no leader to ask."}
}

// ownSet is one variable that a statement sets; the value is empty for DEFAULT
// and RESET.
type ownSet struct{ name, value string }

// vary returns p with one variable set, or what is wrong with its value. A token
// counts from here on, whatever becomes of the transaction: knowing of a write does
// no harm.
func (s *session) vary(p route.Policy, own ownSet) (route.Policy, error) {
	if own.name == "token" {
		return p, s.importToken(own.value)
	}
	return withVariable(p, *s.base, own.name, own.value)
}

// adoptOwn gives a variable the value that the server was left with. One that
// was not checked, because a function has set it, may not be allowed: the client
// is warned, and nothing changes.
func (s *session) adoptOwn(name, value string) bool {
	p, err := withVariable(*s.policy, *s.base, name, value)
	if e, ok := asError(err); ok {
		notice := *e
		notice.Severity = "WARNING"
		s.out.put(s.conn, notice.AppendNotice)
		return false
	}
	if s.policy = &p; p == *s.base {
		s.policy = s.base
	}
	return true
}

// importToken makes the session's reads cover what a token stands for.
func (s *session) importToken(text string) error {
	refused := func(format string, args ...any) error {
		s.srv.metrics.tokensRefused.Add(1)
		return &wire.Error{
			Code: "22023", Message: fmt.Sprintf("invalid value for parameter \"lsnproxy.token\": \"%s\"", text),
			Detail: fmt.Sprintf(format, args...),
		}
	}
	t, err := lsn.ParseToken(strings.TrimSpace(text))
	if err != nil {
		return refused("%v.", err)
	}
	if t == (lsn.Token{}) {
		return nil
	}
	deadline := time.Now().Add(s.srv.options.LeaderWait)
	leader, ok := s.leaderSince(0, deadline)
	if v := s.srv.board.View(); ok && t.System == v.System && !v.History.Covers(leader, t.Position) { // not as far as is known: ask anew
		leader, ok = s.leaderSince(topology.Now(), deadline)
	}
	if !ok {
		return &wire.Error{Code: "57P03", Message: "there is no leader to hold the token against"}
	}
	v := s.srv.board.View()
	if t.System != v.System {
		return refused("It is a token of another database system, %d; this one is %d.", t.System, v.System)
	}
	switch {
	case t.Timeline > v.History.Timeline || t.Timeline == v.History.Timeline && t.LSN > leader.LSN:
		return refused("It is ahead of the leader, which is at %v.", leader)
	case !v.History.Contains(t.Position):
		s.srv.metrics.lostWrites.Add(1)
		return s.tellLost(lostWrite(t.Position))
	}
	s.srv.metrics.tokensImported.Add(1)
	s.token = lsn.Later(s.token, t.Position)
	return nil
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

// routeText says everything about how the previous statement was routed, a fact
// on a line.
func (s *session) routeText() string {
	r := s.routed
	if r.why == route.WhyNothing {
		return r.why.String()
	}
	v := r.view
	if v == nil {
		v = s.srv.board.View()
	}
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, name+": "+format+"\n", args...)
	}
	line("statement", "%v", r.reason)
	line("level", "%v", r.level)
	if need := r.need; !need.IsZero() {
		line("needed", "%v", v.Token(need))
	}
	if r.waited > 0 {
		line("waited", "%v", r.waited.Round(time.Microsecond))
	}
	line("served by", "%s", s.routedText())
	for i := range v.Nodes {
		n := &v.Nodes[i]
		line("node", "%s %v %v at %v, %s", n.Address, n.Role, n.State, n.Position, lagText(n))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// lagText says how far a node is behind.
func lagText(n *topology.Node) string {
	switch {
	case n.Role == topology.RoleLeader:
		return "leads"
	case n.LagBytes == topology.LagBytesUnknown:
		return "lag unknown"
	case n.Lag == topology.LagUnknown:
		return fmt.Sprintf("%d bytes behind, in time unknown", n.LagBytes)
	default:
		return fmt.Sprintf("%d bytes and %v behind", n.LagBytes, n.Lag.Round(time.Microsecond))
	}
}
