package session

import (
	"fmt"

	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// Mode says how long a session keeps its server connection: PgBouncer's pool
// modes.
type Mode uint8

// The modes.
const (
	// ModeTransaction: until the end of the transaction, and beyond only if
	// something is left in the server's session that cannot move.
	ModeTransaction Mode = iota
	// ModeSession: from the first statement that is not a read until the client
	// leaves; from then on everything runs there, reads too. A session that only
	// reads has nothing to keep, and is served by followers.
	ModeSession
	// ModeStatement: until the end of the statement. There are no transaction
	// blocks.
	ModeStatement
)

// UnmarshalText is part of encoding.TextUnmarshaler.
func (m *Mode) UnmarshalText(text []byte) error {
	switch string(text) {
	case "transaction":
		*m = ModeTransaction
	case "session":
		*m = ModeSession
	case "statement":
		*m = ModeStatement
	default:
		return fmt.Errorf("want transaction, session or statement, not %q", text)
	}
	return nil
}

// Policy is what the sessions of one user in one database are held to.
type Policy struct {
	Mode  Mode
	Reads *route.Policy // of reads; nil: Options.Policy

	// Most clients of the database, whoever the user, and of the user, whatever
	// the database. 0: no limit.
	OfDatabase, OfUser int
}

// policyOf returns the policy for a user in a database.
func (s *Server) policyOf(database, user string) Policy {
	if s.options.PolicyOf == nil {
		return Policy{}
	}
	return s.options.PolicyOf(database, user)
}

// readsOf returns the policy of reads that a user in a database begins with. Equal
// ones are one, so that a session costs no memory for it.
func (s *Server) readsOf(p Policy) *route.Policy {
	if p.Reads == nil {
		return &s.options.Policy
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	shared := s.mu.reads[*p.Reads]
	if shared == nil {
		shared = p.Reads
		s.mu.reads[*shared] = shared
	}
	return shared
}

// crowd names clients that are counted together: of a database, or of a user.
type crowd struct {
	user bool
	name string
}

func crowdsOf(x *session) (database, user crowd) {
	return crowd{name: x.request.Login.Database}, crowd{user: true, name: x.request.Login.User}
}

// countLocked counts a client, or says of what there are too many, as
// CheckMyDatabase and InitializeSessionUserId do (utils/init).
func (s *Server) countLocked(x *session, p Policy) error {
	database, user := crowdsOf(x)
	if p.OfDatabase > 0 && s.mu.crowds[database] >= p.OfDatabase {
		return &wire.Error{Code: "53300", Message: `too many connections for database "` + database.name + `"`}
	}
	if p.OfUser > 0 && s.mu.crowds[user] >= p.OfUser {
		return &wire.Error{Code: "53300", Message: `too many connections for role "` + user.name + `"`}
	}
	s.mu.crowds[database]++
	s.mu.crowds[user]++
	return nil
}

// uncountLocked takes a client that has left off the counts.
func (s *Server) uncountLocked(x *session) {
	database, user := crowdsOf(x)
	for _, c := range [...]crowd{database, user} {
		if s.mu.crowds[c]--; s.mu.crowds[c] == 0 {
			delete(s.mu.crowds, c)
		}
	}
}

// errTransactionBlock refuses a transaction block in statement mode, in
// PgBouncer's words.
var errTransactionBlock = &wire.Error{Code: "0A000", Message: "transaction blocks not allowed in statement pooling mode"}

// beginsBlock reports whether the batch would begin a transaction block in
// statement mode. One that is hidden in a batch of several statements shows
// only at its end (inBlock).
func (s *session) beginsBlock(b *batch) bool {
	return s.mode == ModeStatement && (b.class.Kind == route.Begin || b.class.Kind == route.BeginReadOnly)
}

// inBlock reports whether the batch has left a transaction block open in
// statement mode. The client does not hear of that: its session ends.
func (s *session) inBlock() bool {
	return s.mode == ModeStatement && s.cycle.ready != wire.Idle && s.cycle.ready != 0
}

// part gives back the connection that a session in session mode has kept, when
// its client leaves between requests, after cleaning it (PgBouncer's
// server_reset_query). What DISCARD ALL does not end goes with the connection.
func (s *session) part() {
	if s.conn == nil || s.mode != ModeSession || s.status != wire.Idle {
		return
	}
	var state byte
	err := s.apart(func() error {
		_, err := s.askValue("DISCARD ALL")
		state = s.cycle.ownReady
		return err
	})
	if err != nil || state != wire.Idle || s.cycle.failed {
		return
	}
	s.conn.Settings, s.conn.Set = nil, nil
	s.mode, s.cycle.runs = ModeTransaction, true
	if s.keep(&route.Class{Reset: route.ResetDiscardAll}) != nil && s.conn != nil {
		s.destroy()
	}
}
