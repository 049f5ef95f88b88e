package session

import (
	"errors"
	"time"

	"github.com/lsnproxy/lsnproxy/lagwatch"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// Mandate is this proxy's right to write, in a cluster of proxies. None of its
// methods may block.
type Mandate interface {
	// MayWrite says whether something new may begin now, and under which decree's epoch.
	MayWrite(now time.Time) (epoch uint64, until time.Time, ok bool)
	// MayFinish says whether what began under the decree of epoch may still go on.
	MayFinish(epoch uint64, now time.Time) bool
	// Acknowledge says that nothing is written here under a decree before that of
	// epoch any more.
	Acknowledge(epoch uint64)
}

// errDeposed is the cause of a connection's loss when it was cut because its
// server leads no more, or may not be written to from here any more.
var errDeposed = errors.New("the leader was replaced")

// deposed is what the client is told of that.
var deposed = wire.Error{
	Code: "08006", Message: "the leader was replaced, or may not be written to any more",
	Hint: "The transaction has to be run again.",
}

// leads reports whether something new may be sent to node now, as the leader,
// and under which epoch.
func (s *Server) leads(node int) (epoch uint64, ok bool) {
	v := s.board.View()
	if v.Leader != node {
		return 0, false
	}
	m := s.options.Mandate
	if m == nil {
		return v.Epoch, true
	}
	epoch, _, ok = m.MayWrite(time.Now())
	return epoch, ok && epoch == v.Epoch
}

// mayGoOn reports whether what the session has begun on the leader may go on. It
// is asked before each batch is sent there, and before each answer from there is
// believed: a proxy that stood still meanwhile may have sent to, and heard from, a
// server that others have replaced.
func (s *session) mayGoOn() bool {
	if m := s.srv.options.Mandate; m != nil {
		return m.MayFinish(s.epoch, time.Now())
	}
	return s.epoch == s.srv.board.View().Epoch
}

// leaseLook is how often the warden looks whether the write lease has run out.
const leaseLook = 20 * time.Millisecond

// drainLook is how often it looks whether transactions are over.
const drainLook = 2 * time.Millisecond

// warden ends what runs on a leader that is none any more. It is a goroutine of the
// server, which ends with its context; Close waits for it.
func (s *Server) warden() {
	defer s.loads.Done()
	news := make(chan struct{}, 1)
	look := time.NewTicker(leaseLook)
	defer look.Stop()
	if s.options.Mandate == nil {
		look.Stop()
	}
	at, leased := s.board.View().Epoch, false
	for s.ctx.Err() == nil {
		wait := s.watch.Await(lagwatch.Need{Node: noNode}, func(v *topology.View) bool { return v.Epoch != at }, func() {
			select {
			case news <- struct{}{}:
			default:
			}
		})
		select {
		case <-news:
		case <-look.C:
		case <-s.ctx.Done():
		}
		wait.Cancel()
		if v := s.board.View(); v.Epoch != at {
			at = v.Epoch
			s.withdraw(v)
		}
		was := leased
		if leased = s.leased(); was && !leased {
			for s.cut(at) > 0 && s.ctx.Err() == nil { // the lease has run out
				s.pause(drainLook)
			}
		}
	}
}

// leased reports whether anything may go on under the present lease.
func (s *Server) leased() bool {
	m := s.options.Mandate
	if m == nil {
		return true
	}
	now := time.Now()
	epoch, _, _ := m.MayWrite(now)
	return m.MayFinish(epoch, now)
}

// withdraw ends what runs under decrees before that of v, and says so when nothing
// does any more. It gives up when a newer decree comes.
func (s *Server) withdraw(v *topology.View) {
	for s.cut(v.Epoch) > 0 {
		if s.pause(drainLook); s.ctx.Err() != nil || s.board.View().Epoch != v.Epoch {
			return
		}
	}
	if s.options.Mandate != nil {
		s.options.Mandate.Acknowledge(v.Epoch)
	}
}

// cut closes the connections that sessions hold to a leader under a decree before
// that of epoch, or without a lease, and has those who stand in line for one go on.
// As long as the lease lasts and the server answers, transactions may come to their
// end. It returns how many are left.
func (s *Server) cut(epoch uint64) int {
	counts := make(chan int, len(s.homes))
	posted := 0
	for _, h := range s.homes {
		if h.loop.Post(func() { counts <- h.cut(epoch) }) {
			posted++
		}
	}
	left := 0
	for range posted {
		select {
		case n := <-counts:
			left += n
		case <-s.ctx.Done():
			return left
		}
	}
	return left
}

// cut does so for the sessions of one loop.
func (h *home) cut(epoch uint64) int {
	left := 0
	for x := range h.sessions {
		if x.conn == nil && x.forsaken() {
			x.waking.Wake()
		}
		if x.conn == nil || !x.onLeader || x.epoch >= epoch && x.mayGoOn() {
			continue
		}
		left++
		idle := x.task == nil && x.status == wire.Idle
		if idle || x.relaying || !x.mayGoOn() || x.srv.board.View().Nodes[x.conn.Node].State == topology.Down {
			x.cut = errDeposed
			_ = x.conn.Net.Close() // which wakes the session
		}
	}
	return left
}
