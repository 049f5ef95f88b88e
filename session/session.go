package session

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/pool"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

const (
	noNode     = route.NoNode
	idleStatus = wire.Idle
)

// session is one client. It runs as a task from the first byte of a request to
// the last of its answer; in between it is this struct and nothing else.
type session struct {
	srv    *Server
	home   *home
	loop   *reactor.Loop
	client *reactor.Conn
	task   *reactor.Task // while it runs
	begun  time.Time

	pid uint32 // what the client was told, for cancelling
	key []byte

	serial uint64 // tells it from all other sessions

	// The login.
	db      *database
	mode    Mode
	user    *user
	request pool.Request
	groups  []*pool.Group // by node
	turn    uint32
	dialect dialect

	// Consistency.
	policy *route.Policy    // of its reads; shared, never changed
	base   *route.Policy    // what it began with
	token  lsn.Position     // what the session has written and seen
	need   lsn.Position     // what the node of the present read must have applied
	heeds  bool             // what is read where the session is now counts for its later reads
	told   lsn.Position     // the token the client was last told
	owed   bool             // the client is to be told the token: it covers a write that it has not heard of
	last   seen             // what the token does not cover yet
	sight  sighting         // the last read on a follower since the session was on the leader
	placed topology.Instant // when it was last looked whether the follower it stays on is its own

	// The transaction, and the connection that is held over requests.
	status    byte // as the client was last told: idle, in a transaction, failed
	conn      *backend.Conn
	group     *pool.Group // conn's
	onLeader  bool        // conn was taken as a connection to the leader
	epoch     uint64      // of the decree under which it was
	cut       error       // why conn was closed from here
	lining    int         // the leader for whose connection the session stands in line; noNode: it does not
	pinned    route.Pin   // why conn is held beyond the transaction
	doubtful  bool        // conn may hold less than pinned says: to be asked
	opening   opening     // how a transaction that is on a follower came to where it is
	hopeful   bool        // it is an optimistic one that is not on the leader yet
	redefined bool        // the transaction may have changed definitions
	dropped   bool        // or taken some away
	defined   uint64      // the load of the catalog that tells of what the session has defined
	missing   *doubts     // what a connection that was lost held is for a catalog to tell
	doubts    *doubts     // what conn holds is for a catalog to tell; nil: that is known
	witnessed bool        // conn is to be asked whether a function has deallocated all statements
	bound     *batch      // what portals that were left to be executed later may be of
	aborted   bool        // in a transaction whose connection was lost
	severed   *wire.Error // what to tell of a connection that was lost between requests

	// The settings.
	settings     *backend.Settings // as of when the session was last idle
	params       map[string]string // the parameters that the client was last told; names in lower case; never changed, only replaced
	touched      string            // settings whose values are to be asked once the session is idle
	meaning      string            // the settings that prepared statements depend on
	path         string            // search_path among them
	serializable bool              // transactions are by default: no follower takes them
	untold       []byte            // what the client is to be told of its settings before it is told that the batch is over
	unsaid       map[string]string // parameters that it may have to be told of then, as it was told them last
	localSet     bool              // the transaction may have settings of its own
	defaults     bool              // the transaction changes what sessions begin with
	prelude      []string          // goes in front of the batch that is about to be sent

	explained  []string              // the portals that are an EXPLAIN (LSNPROXY)
	statements map[string]*statement // named, as the client knows them
	unnamed    *statement
	longName   bool // the unnamed statement was too long to be remembered: conn has it

	in     wire.Buffer // from the client
	skip   int         // bytes of the client's that belong to a message nobody wants any more
	up     []byte      // to the server, not written yet
	upFrom []byte      // the memory of up, to be returned
	out    outlet      // to the client
	cycle  cycle

	routed    routing // of the last statement, for SHOW lsnproxy.node
	cancelled bool    // by a cancel request, while waiting for a connection or position
	waking    reactor.Waker
	relaying  bool // a replication connection, or the console's: its task runs as long as it lives
	ended     bool

	terminated bool // by an administrator: to end soon
}

// seen is a read whose node's position at the time is not known: something at
// or before that position has been seen.
type seen struct {
	node int // noNode if the token covers all that was seen
	at   topology.Instant

	written  bool   // the session has committed something there
	timeline uint32 // on this timeline
}

// sighting is a read on a follower.
type sighting struct {
	node int // noNode if there was none
	at   topology.Instant

	// Where the follower's snapshot ended after it, in an epoch; 0 if that was not
	// asked.
	xmax, epoch uint64

	run, lastRun int // such reads since the session was on the leader, and before that
}

// routing is how a statement was routed.
type routing struct {
	node   int
	leader bool
	why    route.Why
	reason route.Reason

	// Of a read: what else SHOW lsnproxy.route tells.
	level  route.Level
	need   lsn.Position
	waited time.Duration
	view   *topology.View // that it was placed by
}

// dialect is what of a session's settings decides how its statements read.
type dialect struct {
	conforming bool // standard_conforming_strings
	readable   bool // client_encoding keeps ASCII bytes for ASCII characters
}

var usualDialect = dialect{conforming: true, readable: true}

// heed takes note of a parameter that the server has reported.
func (d *dialect) heed(name, value string) {
	switch name {
	case "standard_conforming_strings":
		d.conforming = value == "on"
	case "client_encoding":
		// The encodings that only clients may use (PG_ENCODING_BE_LAST in
		// mb/pg_wchar.h): their second bytes may look like ASCII.
		switch value {
		case "SJIS", "BIG5", "GBK", "UHC", "GB18030", "JOHAB", "SHIFT_JIS_2004":
			d.readable = false
		default:
			d.readable = true
		}
	}
}

// noDeadline is for a Wait that may take any time.
var noDeadline time.Time

// errEnd ends a session without a word: the client has left or must go.
var errEnd = errors.New("session ended")

// Run implements reactor.Runner: the client is there, or has said something, or
// the connection that the session holds has.
func (s *session) Run(t *reactor.Task) {
	if s.ended || s.task != nil { // client and server may both have spoken
		return
	}
	s.client.OnReady(nil)
	if s.conn != nil {
		s.conn.Net.OnReady(nil)
	}
	s.task, s.waking = t, t.Waker()
	err := s.run()
	s.task = nil
	if err != nil {
		s.end(err)
	}
}

// Panicked implements the reactor's hook for a runner whose task has panicked:
// the state of its connections is unknown, so they go with it.
func (s *session) Panicked(any) {
	s.srv.metrics.panics.Add(1)
	s.task = nil
	s.end(errEnd)
}

func (s *session) run() error {
	if s.db == nil {
		if err := s.login(); err != nil {
			return err
		}
	}
	for {
		if s.srv.closing.Load() && s.status == wire.Idle {
			return errClosed
		}
		if s.terminated {
			return errTerminated
		}
		if s.conn != nil && s.conn.Net.Readable() {
			if err := s.hearServer(); err != nil {
				return err
			}
		}
		if s.doubts != nil && s.status == wire.Idle && s.conn != nil {
			if err := s.settleDoubts(); err != nil {
				return err
			}
		}
		if s.in.Len() == 0 && !s.client.Readable() {
			s.rest()
			return nil
		}
		s.cancelled = false
		if s.missing != nil {
			if err := s.settleMissing(); err != nil {
				return err
			}
		}
		s.awaitCatalog()
		if err := s.serveOne(); err != nil {
			return err
		}
	}
}

// rest lets go of everything that an idle client does not need, and asks to be
// run again when the client, or the server of a held connection, speaks.
func (s *session) rest() {
	s.dropIn()
	s.out.thin()
	s.cycle.thin(s.home)
	if s.conn != nil {
		s.conn.Net.OnReady(s)
	}
	s.client.OnReady(s)
}

// dropIn returns the memory of the client's buffer.
func (s *session) dropIn() {
	if s.in.Attached() && s.in.Len() == 0 {
		s.giveBack(s.in.Detach())
	}
}

// fill reads more from the client, waiting for it. Growing is the caller's
// business: a full buffer is an error here.
func (s *session) fill() error {
	if !s.in.Attached() {
		s.in.Attach(s.loop.Borrow())
	}
	space := s.in.Space()
	if len(space) == 0 {
		return fmt.Errorf("%w: the buffer is full", wire.ErrFraming)
	}
	n, err := s.client.Read(space)
	s.in.Filled(n)
	if n > 0 {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return errEnd
	}
	return errEnd
}

// end closes everything the session has.
func (s *session) end(err error) {
	if s.ended {
		return
	}
	s.ended = true
	var told *wire.Error
	switch {
	case errors.Is(err, errClosed):
		told = &wire.Error{Severity: "FATAL", Code: "57P01", Message: "terminating connection due to administrator command"}
	case errors.As(err, &told):
	case errors.Is(err, wire.ErrFraming):
		told = &wire.Error{Severity: "FATAL", Code: "08P01", Message: "invalid message length"}
	}
	if told != nil {
		last := *told
		last.Severity = "FATAL"
		_, _ = s.client.TryWrite(last.Append(nil))
	}
	if s.conn != nil {
		s.conn.Net.OnReady(nil)
		s.destroy()
	}
	s.repin(route.PinNone)
	if s.request.Home != nil {
		s.request.Home.Gone.Store(true)
	}
	s.client.OnReady(nil)
	_ = s.client.Close()
	if s.in.Attached() {
		s.in.Consume(s.in.Len())
		s.dropIn()
	}
	s.dropUp()
	s.forgetStatements()
	s.srv.gone(s)
}

// endIfIdle ends a session that has nothing running. It runs on the loop,
// outside any task.
func (s *session) endIfIdle() {
	if s.relaying && s.task != nil {
		s.waking.Wake()
	}
	if s.task == nil && s.status == wire.Idle && !s.ended {
		s.end(errClosed)
	}
}

// hold makes conn the session's until release or destroy.
func (s *session) hold(c *backend.Conn, g *pool.Group, leader bool) {
	s.conn, s.group, s.onLeader, s.cut = c, g, leader, nil
	if !c.In.Attached() {
		c.In.Attach(s.loop.Borrow())
	}
}

// release gives the connection back, unless something is left in it or about to
// hit it.
func (s *session) release() {
	c, g := s.conn, s.group
	s.conn, s.group = nil, nil // no further cancel request goes there
	closed := false
	for c.Cancels > 0 && !closed { // one on its way must not hit the next session's query
		closed = s.task.Wait(noDeadline)&reactor.Closed != 0
	}
	doubt := closed || c.In.Len() > 0 || c.Hunted || s.prelude != nil // not what it is said to be in line with
	s.prelude = nil
	s.giveBack(c.In.Detach())
	if doubt {
		g.Destroy(c)
	} else {
		g.Release(c)
	}
}

// destroy drops the connection: its state is not known, or not fit for others.
func (s *session) destroy() {
	c, g := s.conn, s.group
	s.conn, s.group, s.prelude = nil, nil, nil
	s.dropDoubts()
	s.giveBack(c.In.Detach())
	g.Destroy(c)
}

// hearServer deals with what the server of a held connection said between
// requests: notifications and notices go to the client, a closed connection is
// remembered for the next request.
func (s *session) hearServer() error {
	s.cycle.begin()
	var err error
	for err == nil && (s.conn.Net.Readable() || s.cycle.skip > 0) { // in the middle of a message nothing else can be said
		if !s.conn.Net.Readable() && s.await()&reactor.Closed != 0 {
			return errClosed
		}
		if err = s.readServer(); err == nil {
			err = s.flush()
		}
	}
	var lost *lostError
	if !errors.As(err, &lost) {
		return err
	}
	if s.cycle.skip > 0 {
		return errEnd
	}
	return s.sever(lost)
}

// sever gives up a held connection that was lost while nothing was under way on it.
func (s *session) sever(lost *lostError) error {
	told := lostText(lost.cause, s.cycle.fatal)
	s.out.spill(s.conn)
	held := s.lose()
	if err := s.flush(); err != nil {
		return err
	}
	if s.hopeful && s.status == wire.InTx && !lost.ends {
		return nil // it goes on on the leader
	}
	s.hopeful = false
	if lost.ends || held {
		told.Severity = "FATAL"
		return told // as directly; or its state went with the connection
	}
	if s.status != wire.Idle {
		s.aborted, s.severed = true, told
	}
	return nil
}
