// Package pool lends server connections: a bounded number for each node,
// database and user, first come first served.
//
// A connection on loan belongs to one session and lives on that session's loop.
// It comes back idle and clean or it is destroyed; the pool never repairs one.
// Sessions of one user may have logged in with different startup parameters; a
// connection serves only sessions that gave the same ones, because that alone
// makes RESET and DISCARD return to the right values. They share the bound.
package pool

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"time"
	"weak"

	"github.com/lsnproxy/lsnproxy/backend"
)

// Limits are what one group is held to.
type Limits struct {
	Size     int           // most connections to one node for one database and user
	Min      int           // connections kept open once there has been one
	Reserve  int           // connections beyond Size when somebody has waited for long
	Pressed  time.Duration // that is how long
	Wait     time.Duration // how long a session waits for a connection
	Idle     time.Duration // a connection unused for so long is closed; 0: never
	Lifetime time.Duration // a connection this old is closed when it comes back; 0: never

	// Most connections to one node for the database, whoever the user, and for
	// the user, whatever the database. 0: no limit but Size.
	OfDatabase, OfUser int
}

// Options are what the groups of the pool are held to.
type Options struct {
	Limits
	LimitsOf func(database, user string) Limits // in their place, if not nil

	Connect time.Duration // how long opening a connection may take
	Log     *slog.Logger  // default slog.Default()
}

// Key names a group of connections that share one bound.
type Key struct {
	Node           int
	Database, User string
}

// What Acquire fails with, beside the error of backend.Dial.
var (
	ErrTimeout     = errors.New("no server connection became free in time")
	ErrInterrupted = errors.New("interrupted while waiting for a server connection")
	ErrClosed      = errors.New("the pool is closed")
)

// Pool holds the groups.
type Pool struct {
	options Options
	ctx     context.Context // ends when the pool closes: no dial outlives it
	cancel  context.CancelFunc
	work    sync.WaitGroup // the janitor, the dials, and what was posted to loops

	mu struct {
		sync.Mutex
		// A group lives as long as a session or a connection holds it: whoever
		// tries one name after another leaves nothing behind.
		groups map[Key]weak.Pointer[Group]
		shares map[shareKey]weak.Pointer[share]
		closed bool
	}
}

// New starts a pool. Close stops it.
func New(o Options) *Pool {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	p := &Pool{options: o}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.mu.groups = make(map[Key]weak.Pointer[Group])
	p.mu.shares = make(map[shareKey]weak.Pointer[share])
	p.work.Add(1)
	go p.janitor() // owned by the pool: ends with p.ctx, Close waits for it
	return p
}

// Group returns the group of k, whose connections go to address. Sessions keep
// it: looking it up is not on the path of a query.
func (p *Pool) Group(k Key, address string) *Group {
	p.mu.Lock()
	defer p.mu.Unlock()
	if g := p.mu.groups[k].Value(); g != nil {
		return g
	}
	g := &Group{pool: p, key: k, address: address, limits: p.options.Limits}
	if p.options.LimitsOf != nil {
		g.limits = p.options.LimitsOf(k.Database, k.User)
	}
	g.limits.Min = min(g.limits.Min, g.limits.Size)
	for _, s := range []*share{
		p.shareLocked(shareKey{node: k.Node, name: k.Database}, g.limits.OfDatabase),
		p.shareLocked(shareKey{node: k.Node, user: true, name: k.User}, g.limits.OfUser),
	} {
		if s != nil {
			g.shares = append(g.shares, s)
		}
	}
	g.mu.closed = p.mu.closed
	p.mu.groups[k] = weak.Make(g)
	runtime.AddCleanup(g, p.forget, k)
	return g
}

// Address is where the group's connections go.
func (g *Group) Address() string { return g.address }

// forget drops the entry of a group that nobody has held any more, unless there
// is another one by now.
func (p *Pool) forget(k Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.groups[k].Value() == nil {
		delete(p.mu.groups, k)
	}
}

// Groups returns all groups there are.
func (p *Pool) Groups() []*Group {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*Group, 0, len(p.mu.groups))
	for _, pointer := range p.mu.groups {
		if g := pointer.Value(); g != nil {
			all = append(all, g)
		}
	}
	return all
}

// Close fails the sessions that wait, closes the idle connections, and returns
// when that is done and the pool's goroutines have ended. Connections on loan
// are closed when they come back. The loops must still be running, and it must
// not be called on one.
func (p *Pool) Close() {
	p.mu.Lock()
	p.mu.closed = true
	p.mu.Unlock()
	for _, g := range p.Groups() {
		g.close()
	}
	p.cancel()
	p.work.Wait()
}

// janitorPause is how often idle connections are looked over.
const janitorPause = time.Second

func (p *Pool) janitor() {
	defer p.work.Done()
	tick := time.NewTicker(janitorPause)
	defer tick.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case now := <-tick.C:
			for _, g := range p.Groups() {
				g.expire(now)
				g.keepMin()
			}
		}
	}
}

// Stat is what one group has and has done.
type Stat struct {
	Key
	Address string

	Open, Idle, Waiting                       int
	Opened, Failed, Destroyed, TimedOut, Lent uint64
	Waited                                    time.Duration // by all sessions together
}

// Stat returns the figures of every group.
func (p *Pool) Stat() []Stat {
	groups := p.Groups()
	stats := make([]Stat, len(groups))
	for i, g := range groups {
		stats[i] = g.stat()
	}
	return stats
}

// expired reports whether an idle connection, of so many open ones, is to be
// closed at now.
func (g *Group) expired(x idle, open int, now time.Time) bool {
	unused := g.limits.Idle > 0 && now.Sub(x.since) > g.limits.Idle
	return unused && open > g.limits.Min || open > g.limits.Size || g.aged(x.Conn, now)
}

func (g *Group) aged(c *backend.Conn, now time.Time) bool {
	return g.limits.Lifetime > 0 && now.Sub(c.Born) > g.limits.Lifetime
}

// Resting is a connection that nobody uses.
type Resting struct {
	Key
	Address     string
	PID         uint32 // of the server's process
	Born, Since time.Time
}

// Resting tells of all of them.
func (p *Pool) Resting() []Resting {
	var all []Resting
	for _, g := range p.Groups() {
		g.mu.Lock()
		for _, x := range g.mu.idle {
			all = append(all, Resting{Key: g.key, Address: g.address, PID: x.PID(), Born: x.Born, Since: x.since})
		}
		g.mu.Unlock()
	}
	return all
}
