package session

import (
	"errors"
	"strings"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/wire"
)

// replication reads the startup parameter of that name as ProcessStartupPacket
// (postmaster.c) does: "database" or a boolean, of which a beginning that is not
// ambiguous is enough (parse_bool in utils/adt/bool.c).
func replication(params []wire.Param) (bool, error) {
	asked := false
	for _, p := range params {
		if p.Name != "replication" {
			continue
		}
		v := strings.ToLower(p.Value)
		begins := func(word string, least int) bool { return len(v) >= least && strings.HasPrefix(word, v) }
		switch {
		case p.Value == "database", begins("true", 1), begins("yes", 1), v == "on", v == "1":
			asked = true
		case begins("false", 1), begins("no", 1), begins("off", 2), v == "0":
			asked = false
		default:
			return false, &wire.Error{
				Severity: "FATAL", Code: "22023", Message: `invalid value for parameter "replication": "` + p.Value + `"`,
				Hint: `Valid values are: "false", 0, "true", 1, "database".`,
			}
		}
	}
	return asked, nil
}

// replicate serves a replication connection ("Streaming Replication Protocol"
// in the manual): a connection of its own to the leader, whose bytes pass both
// ways unseen until either end closes. It returns an error always, which ends
// the session.
func (s *session) replicate(startup wire.Startup) error {
	srv := s.srv
	defer srv.replicating.Add(-1)
	if n, most := srv.replicating.Add(1), srv.options.Replications; n > int64(most) {
		return &wire.Error{
			Code: "53300", Message: "too many replication connections",
			Hint: "The proxy's replication.max_connections is the limit.",
		}
	}
	s.request.Login = s.loginOf(startup)
	conn, err := s.dialLeader(s.request.Login)
	if err != nil {
		return err
	}
	s.conn, s.relaying, s.onLeader = conn, true, true // for a cancel request, and the warden
	defer func() {
		s.conn = nil
		conn.Close()
	}()
	if err := srv.register(s, srv.policyOf(startup.Database, startup.User), startup.Version >= wire.Version32); err != nil {
		return err
	}
	srv.metrics.replications.Add(1)
	up := flow{from: s.client, to: conn.Net}
	down := flow{from: conn.Net, to: s.client}
	up.buf.Attach(s.loop.Borrow())
	up.buf.Filled(copy(up.buf.Space(), s.in.Bytes())) // sent ahead of our greeting
	down.buf.Attach(s.loop.Borrow())
	defer func() {
		s.giveBack(up.buf.Detach())
		s.giveBack(down.buf.Detach())
	}()
	greeting := greetingOf(conn.Params)
	if _, err := s.client.Write(s.hello(greeting)); err != nil {
		return errEnd
	}
	return s.relayBoth(&up, &down)
}

// dialLeader opens a connection to the leader outside the pool, and waits up to
// LeaderWait for there to be one that answers.
func (s *session) dialLeader(login backend.Login) (conn *backend.Conn, err error) {
	err = s.withLeader(func(node int) (err error) {
		conn, err = s.srv.pool.Dial(s.task, node, s.srv.board.View().Nodes[node].Address, login)
		if err == nil && !s.authorize(node) {
			conn.Close()
			err = errDeposed
		}
		return err
	})
	return conn, err
}

// flow is one direction of a relay.
type flow struct {
	from, to *reactor.Conn
	buf      wire.Buffer
	over     bool // from has closed
}

// move carries what can be carried now.
func (f *flow) move() error {
	if space := f.buf.Space(); len(space) > 0 && !f.over && f.from.Readable() {
		n, err := f.from.TryRead(space)
		f.buf.Filled(n)
		f.over = n == 0 && !errors.Is(err, reactor.ErrAgain)
	}
	if f.buf.Len() > 0 && f.to.Writable() {
		n, err := f.to.TryWrite(f.buf.Bytes())
		f.buf.Consume(n)
		if err != nil && !errors.Is(err, reactor.ErrAgain) {
			return errEnd
		}
	}
	if f.over && f.buf.Len() == 0 {
		return errEnd
	}
	return nil
}

// interests appends what the direction waits for.
func (f *flow) interests(on []reactor.Interest) []reactor.Interest {
	if f.buf.Len() > 0 {
		on = append(on, reactor.Interest{Conn: f.to, Write: true})
	}
	if !f.over && len(f.buf.Space()) > 0 {
		on = append(on, reactor.Interest{Conn: f.from})
	}
	return on
}

// relayBoth carries both directions until one of them has ended.
func (s *session) relayBoth(up, down *flow) error {
	var few [4]reactor.Interest
	for {
		if err := errors.Join(down.move(), up.move()); err != nil {
			return errEnd
		}
		if s.srv.closing.Load() {
			return errEnd // in the midst of a message, perhaps: there is no way to say anything
		}
		on := down.interests(up.interests(few[:0]))
		s.task.Wait(noDeadline, on...)
	}
}
