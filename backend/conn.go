// Package backend is one authenticated server connection: how it is opened,
// what is known of the server's side of it, and how a query on it is cancelled.
package backend

import (
	"errors"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// Conn is one server connection. It is on loan to at most one session, which
// runs on the loop that Net is attached to; nobody else touches it.
type Conn struct {
	Net    *reactor.Conn     // nil until Adopt
	Node   int               // the node's ID in the View
	Params map[string]string // as the server reported them when the connection was opened
	Opened topology.Instant  // not before the server accepted the login
	Floor  lsn.Position      // a position this very connection has reported

	In         wire.Buffer       // what the server sent and nobody has dealt with yet
	Statements Statements        // what is prepared on the server's side
	Settings   *Settings         // of the session that it was last in line with; nil: of none
	Set        map[string]string // what has been set on the server's side since it was opened; never changed, only replaced
	Made       map[string]bool   // custom settings that some session has made; PostgreSQL cannot unmake them
	Cancels    int               // cancel requests on their way to this connection's server process
	Hunted     bool              // one got lost on its way and may arrive at any time

	Writer uint64 // the session whose values currval and lastval tell here; 0 if none

	// For the pool:
	Fingerprint string         // of the startup parameters it was opened with
	Born        time.Time      // when it was opened
	Lent        bool           // on loan to a session
	Idle        reactor.Runner // watches it while nobody uses it

	home atomic.Pointer[Home]

	peer net.Addr // the server itself: where its process can be cancelled
	pid  uint32
	key  []byte
	fd   int // until Adopt, then -1
}

// Home makes a connection the one that a session prefers, because the session was
// told its process id.
type Home struct {
	Gone atomic.Bool                       // the session has ended
	Lost func(pid uint32, terminated bool) // the server has closed it while nobody used it; by pg_terminate_backend or the like

	conn atomic.Pointer[Conn]
}

// Settle makes c h's.
func (c *Conn) Settle(h *Home) {
	c.home.Store(h)
	h.conn.Store(c)
}

// Homeless reports whether the connection is closed, or there never was one.
func (h *Home) Homeless() bool { return h.conn.Load() == nil }

// Home returns whose connection it is; nil if nobody's.
func (c *Conn) Home() *Home {
	if h := c.home.Load(); h != nil && !h.Gone.Load() {
		return h
	}
	return nil
}

// PID is the number of the server's process.
func (c *Conn) PID() uint32 { return c.pid }

// Adopt attaches a dialed or detached connection to loop l. It runs on l. If it
// fails the connection is closed.
func (c *Conn) Adopt(l *reactor.Loop) error {
	if c.Net != nil {
		return l.Attach(c.Net)
	}
	var err error
	c.Net, err = l.Adopt(c.fd)
	c.fd = -1
	return err
}

// Close drops the connection, politely if the socket takes a Terminate at once.
// If it is attached to a loop, Close runs on that loop.
func (c *Conn) Close() {
	if h := c.home.Load(); h != nil {
		h.conn.CompareAndSwap(c, nil)
	}
	goodbye := wire.AppendTerminate(nil)
	if c.Net != nil {
		_, _ = c.Net.TryWrite(goodbye)
		_ = c.Net.Close()
		return
	}
	_ = unix.Send(c.fd, goodbye, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	_ = unix.Close(c.fd)
	c.fd = -1
}

// cancelTimeout bounds how long a cancel request may take to be delivered.
const cancelTimeout = 5 * time.Second

// Cancel asks the server to cancel what runs on this connection. It blocks, so
// it runs off the loops, and it may run while the connection is used or closed.
// When it returns nil the server has sent the signal: the postmaster's child
// closes the cancel connection after that (processCancelRequest in
// postmaster.c).
func (c *Conn) Cancel() error {
	n, err := net.DialTimeout(c.peer.Network(), c.peer.String(), cancelTimeout)
	if err != nil {
		return err
	}
	defer n.Close()
	if err := n.SetDeadline(time.Now().Add(cancelTimeout)); err != nil {
		return err
	}
	if _, err := n.Write(wire.AppendCancelRequest(nil, c.pid, c.key)); err != nil {
		return err
	}
	var b [1]byte
	_, err = n.Read(b[:])
	if slow := net.Error(nil); errors.As(err, &slow) && slow.Timeout() {
		return err
	}
	return nil // end of file, or a reset: either way it is done
}
