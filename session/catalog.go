package session

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/lagwatch"
	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// database is what the sessions of one database share.
type database struct {
	srv        *Server
	name       string
	statements statements

	// catalog is nil while it is not known what the database's functions and
	// relations do: then nothing is provably a read.
	catalog atomic.Pointer[route.Catalog]
	// known is what the last load told, though definitions may have changed since.
	known atomic.Pointer[knowledge]
	// builtin is what the last catalog told of PostgreSQL's own functions, which no
	// definition changes.
	builtin atomic.Pointer[route.Catalog]
	missed  atomic.Pointer[map[string]bool] // custom settings that sessions without them have asked for
	native  atomic.Bool                     // there may be functions in C that keep anything in the server's process
	schema  atomic.Uint64                   // counts changes of definitions that went through the proxy

	mu struct {
		sync.Mutex
		login     backend.Login // of the last client, to load the catalog with
		loading   bool
		again     bool                  // another load is wanted behind the present one
		begun     uint64                // loads
		due       uint64                // the load that tells of all changes so far
		loaded    time.Time             // when it was last known that there is nothing newer
		next      time.Time             // not sooner
		waiters   map[*session]struct{} // want to be roused when a load is over
		greetings map[string]*greeting
		users     map[string]*user
	}
}

// knowledge is a catalog, and the number of the load that it came from.
type knowledge struct {
	catalog *route.Catalog
	load    uint64
}

// user is what the sessions of one user of a database share.
type user struct {
	currval atomic.Bool // they ask for what nextval has left in the session
}

// greeting is what a client with certain login data is told when it connects.
type greeting struct {
	messages []byte // ParameterStatus messages
	dialect  dialect
	settings *backend.Settings
}

// Times of the catalog: how long a load may take, how often it is looked over
// for changes that came past the proxy, and how soon a failed load is repeated.
const (
	catalogTimeout = 10 * time.Second
	catalogRefresh = 30 * time.Second
	catalogRetry   = 100 * time.Millisecond
	catalogShare   = 4           // while definitions keep changing, for one part of loading so many of leaving the servers alone
	catalogRespite = time.Second // but not for longer

	catalogNew      = time.Second            // a function that is not known now is not looked up again so soon
	catalogRecent   = 5 * time.Second        // a relation neither
	catalogPatience = 200 * time.Millisecond // with a follower that is to come as far as the leader
	catalogTries    = 5                      // one in so many asks the leader; from then on failures are told of

	maxGreetings = 1000 // clients may make up any number of startup parameters
)

// knownDatabase returns what database has made; nil if no login to that one has
// succeeded yet. Clients may make up any number of names.
func (s *Server) knownDatabase(name string) *database {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.databases[name]
}

// catalogParams are the session's that asks. It must not wait for a lock: on a
// follower, where replay holds those of the leader's transactions, replay would in
// turn wait for its snapshot.
var catalogParams = []wire.Param{
	{Name: "application_name", Value: "lsnproxy"}, {Name: "client_encoding", Value: "UTF8"}, {Name: "lock_timeout", Value: "20ms"},
}

// database returns what is shared by the sessions of the named database, to
// which a server has let a client log in.
func (s *Server) database(name string) *database {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.mu.databases[name]
	if d == nil {
		d = &database{srv: s, name: name}
		d.mu.greetings = make(map[string]*greeting)
		d.mu.users = make(map[string]*user)
		d.mu.waiters = make(map[*session]struct{})
		d.mu.due = 1
		d.known.Store(&knowledge{})
		s.mu.databases[name] = d
	}
	return d
}

// use notes a login, starts loading the catalog if nobody has, and returns what
// the sessions of the user share.
func (d *database) use(login backend.Login) *user {
	d.mu.Lock()
	u := d.mu.users[login.User]
	if u == nil {
		u = &user{}
		d.mu.users[login.User] = u
	}
	first := d.mu.login.User == ""
	d.mu.login = backend.Login{User: login.User, Password: login.Password, Database: login.Database}
	d.mu.Unlock()
	if first {
		d.load()
	}
	return u
}

// stale says that the catalog may have changed: until it is loaded anew nothing
// is provably a read. It returns the number of the load that will tell.
func (d *database) stale() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.schema.Add(1)
	d.catalog.Store(nil)
	d.mu.due = d.loadLocked()
	return d.mu.due
}

// changed says that a database may have been dropped, or renamed.
func (s *Server) changed(database string) {
	s.mu.Lock()
	d := s.mu.databases[database]
	s.mu.Unlock()
	if d != nil {
		d.stale()
	}
}

func (d *database) load() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.loadLocked()
}

// loadLocked loads the catalog in the background, once more if it is being loaded,
// and returns the number of the load that begins from now on. Where nobody has
// logged in there may be no such database.
func (d *database) loadLocked() uint64 {
	switch {
	case d.mu.login.User == "":
	case d.mu.loading:
		d.mu.again = true
	default:
		d.mu.loading = true
		d.srv.loads.Add(1)
		go d.loader() // ends when the catalog is loaded or the server closes; Server.Close waits for it
	}
	return d.mu.begun + 1
}

// loader loads the catalog until it is up to date. While definitions keep changing
// it leaves the servers alone for most of the time: nobody waits for it.
func (d *database) loader() {
	defer d.srv.loads.Done()
	for try, over := 1, false; !over; try++ {
		d.mu.Lock()
		next := d.mu.next
		d.mu.Unlock()
		d.srv.pause(time.Until(next))
		d.mu.Lock()
		d.mu.again = false
		d.mu.begun++
		login, load := d.mu.login, d.mu.begun
		d.mu.Unlock()
		start := time.Now()
		catalog, err := d.srv.loadCatalog(login, try)
		if err == nil {
			try = 0
		} else if try >= catalogTries && !d.srv.closing.Load() {
			d.srv.log.Warn("functions and relations could not be looked up: everything goes to the leader meanwhile",
				"database", d.name, "error", err)
		}
		over = d.learn(catalog, err, load, time.Since(start))
	}
}

// learn takes in what a load has told and rouses the sessions that it may be news
// for. It reports whether no other is wanted.
func (d *database) learn(catalog *route.Catalog, err error, load uint64, took time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.next = time.Now().Add(min(catalogShare*took, catalogRespite))
	over := true
	switch {
	case d.srv.closing.Load():
	case err != nil && backend.ErrorOf(err).Code == "3D000": // dropped: for the next of that name, begin anew
		d.mu.login.User = ""
		d.catalog.Store(nil)
	case err != nil:
		d.mu.next = time.Now().Add(catalogRetry)
		over = false
	default:
		d.known.Store(&knowledge{catalog, load})
		d.builtin.Store(catalog.Builtin())
		d.native.Store(catalog.Native())
		if load >= d.mu.due {
			d.catalog.Store(catalog)
			d.mu.loaded = time.Now()
		}
		if over = !d.mu.again && !catalog.Held(); catalog.Held() {
			d.mu.next = time.Now().Add(catalogRespite)
		}
	}
	d.mu.loading = !over
	for s := range d.mu.waiters {
		s.rouse()
	}
	return over
}

// names is what is known of names at the moment.
func (d *database) names() *route.Catalog {
	if c := d.catalog.Load(); c != nil {
		return c
	}
	return d.builtin.Load()
}

// await asks for s to be roused when a load is over, and returns the number of the
// one that tells of all changes so far.
func (d *database) await(s *session) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.waiters[s] = struct{}{}
	return d.mu.due
}

func (d *database) forget(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mu.waiters, s)
}

// reload loads the catalog because of a name that it does not know, unless it is
// younger than age. It reports the number of the load that tells of the name, and
// whether it is under way.
func (d *database) reload(age time.Duration) (load uint64, wanted bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.again || time.Since(d.mu.loaded) >= age {
		return d.loadLocked(), true
	}
	return 0, false
}

// pause waits, but not longer than the server is open.
func (s *Server) pause(d time.Duration) {
	select {
	case <-s.ctx.Done():
	case <-time.After(d):
	}
}

// refresher loads the catalogs anew from time to time.
func (s *Server) refresher() {
	defer s.loads.Done()
	tick := time.NewTicker(catalogRefresh)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		all := make([]*database, 0, len(s.mu.databases))
		for _, d := range s.mu.databases {
			all = append(all, d)
		}
		s.mu.Unlock()
		for _, d := range all {
			d.load()
		}
	}
}

// loadCatalog asks a follower that has come as far as the leader is now, so that
// the leader has neither the work nor an open snapshot, for which VACUUM would
// keep old rows and not count their pages as all-visible. The leader is asked if
// no follower is usable, and now and then when the followers do not answer.
func (s *Server) loadCatalog(login backend.Login, try int) (*route.Catalog, error) {
	ctx, cancel := context.WithTimeout(s.ctx, catalogTimeout)
	defer cancel()
	login.Params = catalogParams
	v := s.board.View()
	if usableFollower(v, anywhere) == noNode || try%catalogTries == 0 && v.Leader != topology.NoLeader {
		if v.Leader == topology.NoLeader {
			return nil, errNoNode
		}
		return s.askCatalog(ctx, v.Leader, login, lsn.Position{})
	}
	present := s.leaderNow(ctx)
	follower := s.awaitCover(ctx, present)
	if follower == noNode {
		return nil, errBehind
	}
	return s.askCatalog(ctx, follower, login, present)
}

// askCatalog asks one node, which must have come as far as present.
func (s *Server) askCatalog(ctx context.Context, node int, login backend.Login, present lsn.Position) (*route.Catalog, error) {
	v := s.board.View()
	if present.IsZero() {
		rows, err := backend.Ask(ctx, v.Nodes[node].Address, login, route.CatalogQuery)
		if err != nil {
			return nil, err
		}
		return route.NewCatalog(rows)
	}
	// The second statement's snapshot is taken after the first has answered.
	rows, err := backend.Ask(ctx, v.Nodes[node].Address, login, "SELECT pg_catalog.pg_last_wal_replay_lsn();"+route.CatalogQuery)
	if err != nil {
		return nil, err
	}
	at, err := lsn.Parse(rows[0][0])
	if err != nil || !v.History.Covers(lsn.Position{Timeline: v.Nodes[node].Position.Timeline, LSN: at}, present) {
		return nil, errBehind
	}
	return route.NewCatalog(rows[1:])
}

// leaderNow returns a position that covers all that the leader has acknowledged
// by now; zero if it does not tell.
func (s *Server) leaderNow(ctx context.Context) lsn.Position {
	begun := topology.Now()
	s.awaitView(ctx, needLeader, func(v *topology.View) bool { _, ok := leaderAt(v, begun); return ok })
	present, ok := leaderAt(s.board.View(), begun)
	if !ok {
		return lsn.Position{}
	}
	return present
}

// awaitCover waits, not for long, until a usable follower has come as far as at,
// and returns it, or noNode.
func (s *Server) awaitCover(ctx context.Context, at lsn.Position) int {
	covers := func(n *topology.Node, v *topology.View) bool { return at.IsZero() || v.History.Covers(n.Position, at) }
	s.awaitView(ctx, lagwatch.Need{Followers: true, Node: noNode, Position: at}, func(v *topology.View) bool {
		return usableFollower(v, covers) != noNode
	})
	return usableFollower(s.board.View(), covers)
}

// awaitView waits, not for long, for a view that is as wanted. It blocks.
func (s *Server) awaitView(ctx context.Context, need lagwatch.Need, wanted func(*topology.View) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, catalogPatience)
	defer cancel()
	wait := s.watch.Await(need, wanted, cancel)
	defer wait.Cancel()
	<-ctx.Done()
	return wanted(s.board.View())
}

func anywhere(*topology.Node, *topology.View) bool { return true }

// usableFollower returns the first usable follower that will do, or noNode.
func usableFollower(v *topology.View, will func(*topology.Node, *topology.View) bool) int {
	for i := range v.Nodes {
		if n := &v.Nodes[i]; n.State == topology.Usable && i != v.Leader && will(n, v) {
			return i
		}
	}
	return noNode
}

var (
	errNoNode = &wire.Error{Code: "57P03", Message: "no node is usable"}
	errBehind = errors.New("no follower has come as far as the leader")
)

// awaitCatalog waits for the catalog if there is no leader either: without both
// nothing could be served, not even reads.
func (s *session) awaitCatalog() {
	if s.db.catalog.Load() != nil || s.srv.board.View().Leader != topology.NoLeader {
		return
	}
	d := s.db
	s.awaitView(needLeader, func(v *topology.View) bool {
		return d.catalog.Load() != nil || v.Leader != topology.NoLeader
	}, time.Now().Add(s.srv.options.LeaderWait))
}

// greetingOf makes a greeting of what a server has reported.
func greetingOf(params map[string]string) *greeting {
	g := &greeting{dialect: usualDialect, settings: &backend.Settings{Begun: make(map[string]string, len(params))}}
	for _, name := range sortedKeys(params) {
		value := params[name]
		if name == "in_hot_standby" {
			value = "off" // the session as a whole can write
		}
		g.dialect.heed(name, value)
		g.settings.Begun[strings.ToLower(name)] = value
		g.messages = wire.AppendParameterStatus(g.messages, name, value)
	}
	return g
}

// greet keeps what clients with these login data are told.
func (d *database) greet(fingerprint string, params map[string]string) *greeting {
	g := greetingOf(params)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.mu.greetings) >= maxGreetings {
		clear(d.mu.greetings)
	}
	d.mu.greetings[fingerprint] = g
	return g
}

func (d *database) greeting(fingerprint string) *greeting {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.greetings[fingerprint]
}
