package session

import (
	"errors"
	"slices"
	"strings"

	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// A transaction that begins READ ONLY runs on a follower. Much that it may hold is
// refused there, means something else, or leaves something that has to be on the
// leader: LISTEN, SET TRANSACTION READ WRITE, advisory locks, functions that are
// not known. When such a statement comes, the transaction is begun anew on the
// leader, up to where it is. What it has read there is not read again: at READ
// COMMITTED every statement has a snapshot of its own, and the leader's is made to
// cover the follower's. Under REPEATABLE READ it has one snapshot, which the leader
// cannot take up, and an open cursor has one; so such a transaction cannot move once
// it has read. What begins anew tells another now().

// opening is what has brought a transaction on a follower to where it is.
type opening struct {
	log     []deed // of statements; first the one that has begun it
	stuck   bool   // they are not all there
	portals []*portal
}

// deed is one of them.
type deed struct {
	text   string  // haveRead, if it has only read; empty if not even that
	portal *portal // that it was run by, if it is still there
}

// haveRead stands in the log for all that was read and shown.
const haveRead = "SELECT 1"

// maxOpening is how long the log may become.
const maxOpening = 100

// enter adds what a batch has done in a transaction on a follower, if it was run
// without an error.
func (s *session) enter(note string) {
	o := &s.opening
	if s.conn == nil || s.onLeader || s.cycle.failed || s.status != wire.InTx {
		return
	}
	if s.cycle.class.Chain { // with the characteristics of the one before
		*o = opening{log: []deed{{text: o.log[0].text}}}
		return
	}
	if note != "" {
		o.add(deed{text: note})
	}
	o.enterPortals(s)
}

func (o *opening) add(d deed) {
	switch {
	case d.text == haveRead && d.portal == nil && o.reads() > 0:
	case len(o.log) == maxOpening || len(o.log) > 0 && strings.Contains(d.text, "$"): // it may have parameters
		o.stuck = true
	default:
		o.log = append(o.log, d)
	}
}

// reads counts what stands in the log for reads.
func (o *opening) reads() (n int) {
	for i := range o.log {
		if o.log[i].text == haveRead {
			n++
		}
	}
	return n
}

// textOf returns the statement that a batch of one statement runs.
func (s *session) textOf() string {
	for i := range s.cycle.steps {
		st := &s.cycle.steps[i]
		var text []byte
		switch {
		case st.typ == wire.Query:
			text, _, _ = wire.CString(s.bodyOf(st))
		case (st.typ == wire.Parse || st.typ == wire.Bind) && st.stmt != nil:
			text, _, _ = wire.CString(st.stmt.body)
		default:
			continue
		}
		return string(text)
	}
	return ""
}

// mindFollower looks whether a batch may run on the follower that the transaction
// is on, and if not takes the transaction to the leader. What it returns is to be
// entered in the log if all goes well.
func (s *session) mindFollower(b *batch) (note string, err error) {
	class := &b.class
	switch {
	case s.status == wire.Idle:
		return "", nil
	case s.status == wire.InTx && b.complete && !s.cycle.binds: // portals that are there, or are not; and nothing is run that is only prepared
		return s.note(class), nil
	case stays(class):
		return s.note(class), nil
	case s.status == wire.Failed || !b.complete && class.Pin == route.PinNone:
		return "", nil
	case class.Reason == route.ReasonUnreadable && class.CopyIn && class.Pin == route.PinNone: // no server can read it
		return "", nil
	}
	moves, err := s.movable()
	switch {
	case err != nil:
		return "", err
	case moves:
		return "", s.begunAnew(b)
	case class.Pin != route.PinNone || class.Reason == route.ReasonLocking:
		return "", errOnFollower
	}
	return "", nil
}

// stays reports whether a statement in a transaction is the same on a follower as on
// the leader.
func stays(class *route.Class) bool {
	switch class.Kind {
	case route.Begin, route.BeginReadOnly: // in a transaction they may give it other characteristics
		return false
	case route.Write:
	default:
		return true
	}
	if class.Pin != route.PinNone || class.Currval || class.Prepared != route.PreparedNone {
		return false
	}
	switch class.Reason {
	case route.ReasonSavepoint, route.ReasonCursor, route.ReasonSessionState: // the last, settings of the transaction
		return true
	case route.ReasonRowLocking: // refused since the transaction is READ ONLY (ExecCheckXactReadOnly in executor/execMain.c)
		return true
	case route.ReasonSetting:
		return !slices.Contains(namingSettings, class.Name)
	}
	return false
}

// namingSettings are those whose values name what the leader may have and the follower
// not yet.
var namingSettings = []string{
	"role", "session_authorization", "default_text_search_config", "default_tablespace", "temp_tablespaces", "default_table_access_method",
}

// note returns what is to be entered in the log for a batch that stays, but for what its
// portals do.
func (s *session) note(class *route.Class) string {
	for i := range s.cycle.steps {
		switch st := &s.cycle.steps[i]; {
		case st.typ == wire.Query && i == 0:
			return noteOf(class, s.textOf())
		case st.typ == wire.Query:
			return haveRead
		case (st.typ == wire.Parse || st.typ == wire.Bind) && st.stmt != nil:
			if c := s.classOf(st.stmt); analysed(&c) {
				return haveRead
			}
		}
	}
	return ""
}

// noteOf returns what is to be entered in the log for a statement that stays.
func noteOf(class *route.Class, text string) string {
	switch {
	case class.Kind == route.Empty || class.Kind == route.Own || class.Kind == route.Commit || class.Kind == route.Rollback || len(text) == 0:
		return ""
	case class.Kind == route.Read && class.Bare: // SHOW takes no snapshot (PlannedStmtRequiresSnapshot in tcop/pquery.c)
		return ""
	case class.Kind == route.Read, class.Reason == route.ReasonCursor:
		return haveRead
	}
	return text
}

// analysed reports whether it takes a snapshot to prepare a statement (analyze_requires_snapshot
// in parser/analyze.c).
func analysed(class *route.Class) bool {
	switch class.Reason {
	case route.ReasonTransaction, route.ReasonSavepoint, route.ReasonSessionState, route.ReasonSetting, route.ReasonUtility, route.ReasonEmpty:
		return false
	}
	return !class.Bare
}

// movable reports whether the transaction can be begun anew on the leader.
func (s *session) movable() (bool, error) {
	o := &s.opening
	again, lost := o.again(s.replacesPortal())
	switch {
	case o.stuck || len(o.log) == 0 || lost:
		return false, nil
	case o.reads() == 0 && len(o.portals) == 0:
		return true, nil
	}
	var found string
	err := s.ahead(func() (err error) {
		found, err = s.askValue("SELECT pg_catalog.concat(pg_catalog.current_setting('transaction_isolation'), (SELECT pg_catalog.count(*)" +
			" FROM pg_catalog.pg_cursors WHERE name OPERATOR(pg_catalog.<>) ALL (ARRAY['','" + asking + "'" + again + "])))")
		return err
	})
	level, moves := strings.CutSuffix(found, "0")
	return moves && (o.reads() == 0 || level == "read committed" || level == "read uncommitted"), err
}

// errOnFollower refuses what must not be left on a follower.
var errOnFollower = &wire.Error{
	Code: "25006", Message: "cannot leave a lock or anything of the session behind in a read-only transaction that has read from a snapshot of a follower",
	Hint: "Make this the first statement of the transaction, close its cursors, or begin it without READ ONLY.",
}

// begunAnew leaves the follower and begins the transaction on the leader, by running
// the log.
func (s *session) begunAnew(b *batch) error {
	s.leave()
	s.status = wire.Idle
	_, err := s.takeLeader(b)
	if err == nil {
		err = s.checkToken()
	}
	replaced, snapshot := s.replacesPortal(), s.takesSnapshot(&b.class)
	for i, d := range s.opening.log {
		if err != nil || i > 0 && s.status != wire.InTx {
			break
		}
		switch p := d.portal; {
		case p != nil && p.stmt != nil && p.done && !(replaced && p.name == "" && d.text == haveRead): // a command costs no more by its portal
			err = s.enact(d)
		case d.text != "" && !(d.text == haveRead && snapshot):
			s.status, err = s.stateAfter(func() { s.ask(d.text) })
		}
	}
	if err == nil && s.status == wire.InTx {
		return nil
	}
	if s.conn != nil {
		s.destroy()
	}
	s.aborted, s.status = true, wire.Failed
	var told *wire.Error
	if errors.As(err, &told) {
		return told
	}
	return lostText(err, nil)
}

// enact runs on the leader what a portal of the client's has run.
func (s *session) enact(d deed) (err error) {
	run := func() { s.askByPortal(d.portal.name, d.portal.stmt.body, d.portal.bind) }
	if d.text == haveRead || d.text == "" { // it may fail now
		return s.ahead(func() error { return s.tentatively(run) })
	}
	s.status, err = s.stateAfter(run)
	return err
}

// takesSnapshot reports whether the gathered batch is a statement that takes a snapshot
// before anything is run.
func (s *session) takesSnapshot(class *route.Class) bool {
	return s.cycle.binds && class.Kind == route.Write && !class.Multi && class.Reason != route.ReasonUnreadable && analysed(class)
}

// stateAfter asks on the held connection and returns the transaction state that it
// leaves.
func (s *session) stateAfter(ask func()) (state byte, err error) {
	err = s.ahead(func() error {
		s.startUp()
		ask()
		err := s.exchangeOwn()
		state = s.cycle.ownReady
		return err
	})
	return state, err
}
