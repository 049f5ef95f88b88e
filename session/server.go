// Package session accepts clients and runs them: one task each while there is
// something to do, nothing but a struct while there is not.
//
// A session's token says what it has written and seen; no read of it runs on a
// node that is not known to have applied that. Between transactions a session
// holds no server connection, unless it has left state in one.
package session

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lsnproxy/lsnproxy/lagwatch"
	"github.com/lsnproxy/lsnproxy/pool"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
)

// Options are what every session follows.
type Options struct {
	Passwords map[string]string // of users, for logging in to the servers; a user without one logs in without

	LoginTimeout time.Duration // a client must have logged in by then
	Policy       route.Policy  // of reads, where nothing else is said
	Nearest      bool          // prefer the follower that is least behind, whatever the weights
	Return       time.Duration // how often a session looks whether it can go back to the follower that is its own by weight; 0: never
	Silence      time.Duration // a follower that has neither answered nor refused for so long is given up by those who wait for it; 0: never
	LeaderWait   time.Duration // how long a statement waits while there is no leader
	Clients      int           // most clients at once; 0: no limit
	Replications int           // most replication connections at once
	Statements   int           // most statements prepared on one server connection

	PolicyOf func(database, user string) Policy // nil: the zero Policy for all

	Console *Console // nil: there is none

	Mandate   Mandate             // nil: this proxy writes to whoever leads
	Elsewhere func(packet []byte) // takes cancel requests for sessions of other proxies; nil: there are none

	// IgnorePositions makes reads go to any usable follower. It breaks every
	// promise: it exists so that a test can show that the checker would notice.
	IgnorePositions bool

	Log *slog.Logger
}

// Server accepts clients and owns their sessions.
type Server struct {
	options Options
	engine  *reactor.Engine
	pool    *pool.Pool
	board   *topology.Board
	watch   *lagwatch.Watcher
	log     *slog.Logger

	listeners   []func() // stop accepting; each waits for its goroutine
	closing     atomic.Bool
	ctx         context.Context // ends with Close: for loading catalogs
	stop        context.CancelFunc
	count       atomic.Int64 // clients connected
	replicating atomic.Int64 // of them, replication connections
	loads       sync.WaitGroup
	homes       []*home // by loop, in the engine's order
	metrics     metrics
	defaults    atomic.Uint64 // counts changes of what sessions begin with, in all databases

	acked acknowledged
	over  leaderSnapshot

	mu struct {
		sync.Mutex
		databases map[string]*database
		byPID     map[uint32]*session // clients that may be cancelled
		crowds    map[crowd]int       // clients that have logged in
		reads     map[route.Policy]*route.Policy
		lastPID   uint32
	}
}

// home is the sessions of one loop. Only that loop touches it.
type home struct {
	loop     *reactor.Loop
	sessions map[*session]struct{}
	count    atomic.Int64
	counts   counts
	steps    [][]step // room for those of cycles, which idle sessions do without
}

// NewServer makes a server that runs its sessions on the loops of engine.
func NewServer(o Options, engine *reactor.Engine, p *pool.Pool, board *topology.Board, watch *lagwatch.Watcher) *Server {
	s := &Server{options: o, engine: engine, pool: p, board: board, watch: watch, log: o.Log}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for _, l := range engine.Loops() {
		s.homes = append(s.homes, &home{
			loop: l, sessions: make(map[*session]struct{}), counts: counts{nodes: make([]nodeCounts, len(board.View().Nodes))},
			steps: make([][]step, 0, spareSteps),
		})
	}
	s.mu.databases = make(map[string]*database)
	s.mu.byPID = make(map[uint32]*session)
	s.mu.crowds = make(map[crowd]int)
	s.mu.reads = make(map[route.Policy]*route.Policy)
	s.loads.Add(3)
	go s.refresher() // owned by the server: ends with ctx, Close waits for it
	go s.warden()    // likewise
	go s.attendant() // likewise
	return s
}

// Serve accepts clients on ln until Close, which closes ln.
func (s *Server) Serve(ln net.Listener) error {
	stop, err := s.engine.Accept(ln, s.accept)
	if err != nil {
		return err
	}
	s.listeners = append(s.listeners, func() {
		stop()
		_ = ln.Close()
	})
	return nil
}

// accept gives a new client to the loop that has the fewest.
func (s *Server) accept(fd int, remote net.Addr) {
	h := s.homes[0]
	for _, x := range s.homes[1:] {
		if x.count.Load() < h.count.Load() {
			h = x
		}
	}
	h.count.Add(1)
	h.loop.Post(func() { s.welcome(h, fd, remote) })
}

// welcome starts the session of a new client. It runs on its loop.
func (s *Server) welcome(h *home, fd int, remote net.Addr) {
	client, err := h.loop.Adopt(fd)
	if err != nil {
		h.count.Add(-1)
		s.log.Warn("client connection lost before it began", "client", remote, "error", err)
		return
	}
	x := &session{srv: s, home: h, loop: h.loop, client: client, status: idleStatus, policy: &s.options.Policy, base: &s.options.Policy, heeds: true}
	x.last.node, x.sight.node = noNode, noNode
	x.begun = time.Now()
	h.sessions[x] = struct{}{}
	s.count.Add(1)
	x.serial = s.metrics.clients.Add(1)
	h.loop.Start(x)
}

// gone takes a session that has ended off the books. It runs on its loop.
func (s *Server) gone(x *session) {
	delete(x.home.sessions, x)
	x.home.count.Add(-1)
	s.count.Add(-1)
	s.mu.Lock()
	if s.mu.byPID[x.pid] == x {
		delete(s.mu.byPID, x.pid)
		s.uncountLocked(x)
	}
	s.mu.Unlock()
}

// register counts the session, if its policy allows one more, and gives it a key
// that it can be cancelled with, and a process id if it is not at home on a
// connection; longKey is for protocol 3.2, which allows more than 4 bytes.
func (s *Server) register(x *session, p Policy, longKey bool) error {
	key := make([]byte, 4)
	if longKey {
		key = make([]byte, 32)
	}
	if _, err := rand.Read(key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.countLocked(x, p); err != nil {
		return err
	}
	for x.pid == 0 || s.mu.byPID[x.pid] != nil { // not at home anywhere, or in the place of one that is not there any more
		s.mu.lastPID++
		x.pid = firstNoPID + s.mu.lastPID%firstNoPID
	}
	x.key = key
	s.mu.byPID[x.pid] = x
	return nil
}

// firstNoPID is the first number that no process has (PID_MAX_LIMIT of Linux is
// far below).
const firstNoPID = 1 << 30

// errClosed ends a session when the server closes.
var errClosed = errors.New("the proxy is shutting down")

// Close stops accepting, ends idle sessions at once and others at the end of
// their transaction, and returns when all are gone or grace is over. The caller
// then closes the pool and the engine, which cuts off what is left.
func (s *Server) Close(grace time.Duration) {
	s.closing.Store(true)
	s.stop()
	for _, stop := range s.listeners {
		stop()
	}
	for _, h := range s.homes {
		h.loop.Post(func() {
			for x := range h.sessions {
				x.endIfIdle()
			}
		})
	}
	for end := time.Now().Add(grace); s.count.Load() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	s.loads.Wait()
}

// metrics counts what all sessions do that is not done for every statement; that is
// counted by loop (counts).
type metrics struct {
	clients                    atomic.Uint64
	silent                     atomic.Uint64 // connections given up to followers from which nothing comes
	retries                    atomic.Uint64 // server connection lost with nothing sent on, run again
	guards, guardsShort        atomic.Uint64
	overtakes, overtakesSpent  atomic.Uint64
	aligned                    atomic.Uint64 // connections brought in line with a session's settings
	outcomeUnknown, lostWrites atomic.Uint64
	fatesUnknown               atomic.Uint64 // sessions told that a write may be lost and nobody knows
	tokensImported             atomic.Uint64
	tokensRefused              atomic.Uint64
	cancels, panics            atomic.Uint64
	pins                       [route.PinCount]atomic.Uint64 // times sessions began to hold their connection, by why
	pinned                     atomic.Int64                  // sessions that do
	replications               atomic.Uint64
}

const maxNodes = 64 // bits of route.Ask.Tried

// MaxNodes is the most nodes that can be configured.
const MaxNodes = maxNodes

// Stat is what the sessions have done.
type Stat struct {
	Connected, Replicating      int64    // clients now; of them, replication connections
	Clients, Replications       uint64   // ever connected
	Reads, Writes               []uint64 // statements by node
	ReadsBy                     []Reads
	Fallbacks                   []Fallbacks       // of reads for which no follower would do
	Replays                     map[string]uint64 // statements refused by a follower and run again on the leader, by SQLSTATE
	Retries                     uint64
	Silent                      uint64 // connections given up to followers from which nothing came
	Waits, WaitsSpent           uint64
	WaitTimes                   []uint64 // waits by how long they took: to each of WaitBounds from the one before; the last: longer
	Waited                      time.Duration
	Guards, GuardsShort, Probes uint64
	Aligned                     uint64 // connections brought in line with a session's settings
	Overtakes, OvertakesSpent   uint64
	OutcomeUnknown, LostWrites  uint64
	FatesUnknown                uint64 // sessions told that nobody knows whether a write is lost
	StaleAllowed                uint64
	TokensImported              uint64
	TokensRefused               uint64
	Cancels, Panics             uint64
	Pins                        map[string]uint64 // times sessions began to hold on to their connection, by why
	Pinned                      int64             // sessions that do
}

// Stat returns the figures. It waits for every loop, so it must not be called on one.
func (s *Server) Stat() Stat {
	m := &s.metrics
	st := Stat{
		Connected: s.count.Load(), Clients: m.clients.Load(),
		Replicating: s.replicating.Load(), Replications: m.replications.Load(),
		Retries: m.retries.Load(), Silent: m.silent.Load(),
		Guards: m.guards.Load(), GuardsShort: m.guardsShort.Load(), Aligned: m.aligned.Load(),
		Overtakes: m.overtakes.Load(), OvertakesSpent: m.overtakesSpent.Load(),
		OutcomeUnknown: m.outcomeUnknown.Load(), LostWrites: m.lostWrites.Load(), FatesUnknown: m.fatesUnknown.Load(),
		TokensImported: m.tokensImported.Load(), TokensRefused: m.tokensRefused.Load(),
		Cancels: m.cancels.Load(), Panics: m.panics.Load(), Pinned: m.pinned.Load(), Pins: make(map[string]uint64),
	}
	counted := s.countUp()
	counted.tell(&st)
	for i := range m.pins {
		if n := m.pins[i].Load(); n > 0 {
			st.Pins[route.Pin(1<<i).String()] = n
		}
	}
	return st
}

// randomSeed spreads the sessions over the followers.
func randomSeed() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return binary.BigEndian.Uint32(b[:])
}
