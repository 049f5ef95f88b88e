package session

import (
	"time"

	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// A statement is run at once, whether or not it is known what its names stand for:
// a definition may have changed a moment ago, or was made past the proxy. What it
// leaves in the session decides whether the session keeps its connection, and the
// server cannot tell all of that: not which custom settings a function has made, nor
// what one in C keeps. So the session keeps the connection until the catalog that
// is being loaded can tell, and asks the server nothing until then.

// doubts are the statements of which it is not known what they have left behind.
type doubts struct {
	texts     map[string]doubt
	size      int
	lost      bool        // there were more than are kept
	discarded bool        // DISCARD ALL was the last of them
	load      uint64      // the load of the catalog that tells
	more      bool        // there are some of the present transaction: what it has defined is looked up after it
	until     time.Time   // then what the server can be asked has to do
	timer     *time.Timer // wakes the session then
}

// doubt is what was known of a statement when it was run.
type doubt struct {
	conforming bool // how its strings were read
	schema     bool // that it changes definitions
	defaults   bool // that it changes what sessions begin with
}

// doubtsPatience is how long a session keeps its connection at most because of
// definitions that cannot be looked up.
const doubtsPatience = 5 * time.Second

// tellable reports whether a catalog that is still to come may tell what a statement
// leaves behind.
func (s *session) tellable(c *route.Class) bool {
	d := s.db
	switch {
	case s.redefined: // it comes after the transaction
		return true
	case d.catalog.Load() == nil:
		return c.Unknown() || d.native.Load() || s.defined > d.known.Load().load
	}
	load, wanted := d.reload(catalogNew)
	s.cycle.tells = max(s.cycle.tells, load)
	return wanted
}

// doubting reports whether something in the batch is left for a catalog to tell. On a
// follower no session keeps its connection.
func (s *session) doubting() bool { return len(s.cycle.doubts) > 0 && s.onLeader }

// asked are the settings of a list that the server is to be asked for now.
func (s *session) asked(sets string) string {
	if s.doubting() {
		return route.Without(sets, route.AnySetting)
	}
	return sets
}

// keepDoubts takes over the doubts of a batch that has been run.
func (s *session) keepDoubts() {
	c := &s.cycle
	failed := c.nothing() && !c.class.Multi && s.status == wire.Idle
	if c.binds && !(failed && !(c.class.Nextval && s.user.currval.Load())) { // what nextval leaves stays
		if s.doubts == nil {
			s.doubts = &doubts{texts: make(map[string]doubt)}
		}
		for text, known := range c.doubts {
			s.doubts.add(text, known)
		}
		s.doubts.load, s.doubts.more = max(s.doubts.load, c.tells), s.doubts.more || len(c.doubts) > 0
	}
	d := s.doubts
	if d == nil || !d.more || s.status != wire.Idle {
		return
	}
	d.load, d.more = max(d.load, s.db.await(s)), false
	if d.timer == nil {
		d.until, d.timer = time.Now().Add(doubtsPatience), time.AfterFunc(doubtsPatience, s.rouse)
	}
	s.repin(s.pinned | route.PinDefinition)
}

func (d *doubts) add(text string, known doubt) {
	d.discarded = false
	switch _, ok := d.texts[text]; {
	case ok:
	case d.size+len(text) > maxText:
		d.lost = true
	default:
		d.texts[text] = known
		d.size += len(text)
	}
}

// rouse runs the session though nobody has said anything. Any goroutine may call it.
func (s *session) rouse() {
	s.loop.Post(func() {
		if s.missing != nil && s.task != nil {
			s.waking.Wake()
		} else {
			s.loop.Start(s)
		}
	})
}

// dropDoubts forgets them: the connection is gone, or what it held.
func (s *session) dropDoubts() {
	if s.doubts != nil {
		s.db.forget(s)
		if s.doubts.timer != nil {
			s.doubts.timer.Stop()
		}
		s.doubts = nil
		s.repin(s.pinned &^ route.PinDefinition)
	}
}

// settleDoubts finds out, if that can be done by now, what the statements in doubt have
// left behind: by the catalog, and by asking the server for the rest. The
// connection goes home if nothing is left.
func (s *session) settleDoubts() error {
	d, known := s.doubts, s.db.known.Load()
	if known.load < d.load && time.Now().Before(d.until) {
		return nil
	}
	class := s.tell(d, known.catalog)
	s.dropDoubts()
	if d.discarded && class.Pin != route.PinNone {
		s.destroy()
		s.repin(route.PinNone)
		return nil
	}
	s.repin(s.pinned | class.Pin)
	if class.Schema {
		s.defined = s.db.stale()
	}
	if class.Defaults {
		s.srv.defaults.Add(1)
	}
	s.doubtful = true
	err := s.aside(func() error {
		s.cycle.ready = wire.Idle
		s.touched = route.Union(class.Sets, route.AnySetting)
		return s.learnSettings()
	})
	switch {
	case err != nil:
		return err
	case s.conn != nil:
		return s.letGo()
	case d.leaves(class):
		return errMissing
	}
	return nil
}

// tell is the class of all statements in doubt, by what is known now.
func (s *session) tell(d *doubts, known *route.Catalog) *route.Class {
	var all batch
	read := 0
	for text, was := range d.texts {
		if read += len(text); read > BufferSize { // let others on
			s.task.Yield()
			read = 0
		}
		c := route.Classify([]byte(text), was.conforming, known)
		c.Schema, c.Defaults = c.Schema && !was.schema, c.Defaults && !was.defaults
		all.merge(c)
	}
	if d.lost {
		all.class.Pin |= route.PinUnread
	}
	if all.class.Nextval && s.user.currval.Load() {
		all.class.Pin |= route.PinSequence
	}
	if d.discarded {
		all.class.Pin &= route.PinLibrary | route.PinBackend | route.PinUnread
	}
	return &all.class
}

// lose gives up a connection that is gone and reports whether something of the session's
// has gone with it. If it is still in doubt what it held, that is found out before the
// client is served again.
func (s *session) lose() (held bool) {
	pinned, doubts := s.pinned, s.doubts
	s.destroy()
	if pinned == route.PinDefinition {
		s.missing = doubts
		return false
	}
	return pinned != route.PinNone
}

// settleMissing ends the session if statements in doubt have left something on a connection that
// was lost.
func (s *session) settleMissing() error {
	d := s.missing
	s.db.await(s)
	closed := false
	for s.db.known.Load().load < d.load && time.Now().Before(d.until) && !closed {
		closed = s.task.Wait(d.until)&reactor.Closed != 0
	}
	s.db.forget(s)
	if closed {
		return errClosed
	}
	class := s.tell(d, s.db.known.Load().catalog)
	s.missing = nil
	if d.leaves(class) {
		return errMissing
	}
	return nil
}

// leaves reports whether statements of this class have left anything behind.
func (d *doubts) leaves(class *route.Class) bool {
	return class.Pin != route.PinNone || class.Sets != "" && !d.discarded
}

// errMissing ends a session whose state went with its connection.
var errMissing = func() *wire.Error {
	told := lostText(nil, nil)
	told.Severity = "FATAL"
	return told
}()
