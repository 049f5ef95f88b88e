package session

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/reactor"
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
	schema  atomic.Uint64 // counts changes of definitions that went through the proxy

	mu struct {
		sync.Mutex
		login     backend.Login // of the last client, to load the catalog with
		loading   bool
		again     bool // it became stale while it was being loaded
		greetings map[string]*greeting
		users     map[string]*user
	}
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
	catalogWait    = 300 * time.Millisecond // of a statement that calls a function not known
	catalogPause   = 2 * time.Millisecond

	maxGreetings = 1000 // clients may make up any number of startup parameters
)

// knownDatabase returns what database has made; nil if no login to that one has
// succeeded yet. Clients may make up any number of names.
func (s *Server) knownDatabase(name string) *database {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.databases[name]
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
// is provably a read.
func (d *database) stale() {
	d.schema.Add(1)
	d.catalog.Store(nil)
	d.load()
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

// load loads the catalog in the background, once more if it becomes stale
// meanwhile. Where nobody has logged in there may be no such database.
func (d *database) load() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.login.User == "" {
		return
	}
	if d.mu.loading {
		d.mu.again = true
		return
	}
	d.mu.loading = true
	d.srv.loads.Add(1)
	go d.loader() // ends when the catalog is loaded or the server closes; Server.Close waits for it
}

func (d *database) loader() {
	defer d.srv.loads.Done()
	for {
		d.mu.Lock()
		d.mu.again = false
		login := d.mu.login
		d.mu.Unlock()
		catalog, err := d.srv.loadCatalog(login)

		d.mu.Lock()
		switch {
		case d.srv.closing.Load():
		case err != nil && backend.ErrorOf(err).Code == "3D000": // dropped: for the next of that name, begin anew
			d.mu.login.User = ""
			d.catalog.Store(nil)
		case err != nil:
			d.mu.Unlock()
			d.srv.log.Warn("functions and relations could not be looked up: everything goes to the leader meanwhile",
				"database", d.name, "error", err)
			d.srv.pause(catalogRetry)
			continue
		case d.mu.again:
			d.mu.Unlock()
			continue
		default:
			d.catalog.Store(catalog)
		}
		d.mu.loading = false
		d.mu.Unlock()
		return
	}
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

// loadCatalog asks the leader, or if there is none a follower.
func (s *Server) loadCatalog(login backend.Login) (*route.Catalog, error) {
	v := s.board.View()
	node := v.Leader
	for i := range v.Nodes {
		if node == topology.NoLeader && v.Nodes[i].State == topology.Usable {
			node = i
		}
	}
	if node == topology.NoLeader {
		return nil, errNoNode
	}
	ctx, cancel := context.WithTimeout(s.ctx, catalogTimeout)
	defer cancel()
	login.Params = []wire.Param{{Name: "application_name", Value: "lsnproxy"}, {Name: "client_encoding", Value: "UTF8"}}
	rows, err := backend.Ask(ctx, v.Nodes[node].Address, login, route.CatalogQuery)
	if err != nil {
		return nil, err
	}
	return route.NewCatalog(rows)
}

var errNoNode = &wire.Error{Code: "57P03", Message: "no node is usable"}

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

// catalogComes waits for the catalog where it is being loaded, because what a
// function leaves in the session has to be known: one that was made a moment ago
// is in it.
func (s *session) catalogComes() bool {
	if s.db.catalog.Load() != nil {
		return false
	}
	for end := time.Now().Add(catalogWait); s.db.catalog.Load() == nil && time.Now().Before(end); {
		if s.task.Sleep(catalogPause)&reactor.Closed != 0 {
			return false
		}
	}
	return true
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
