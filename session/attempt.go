package session

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// Functions called by number over the fast path (pg_proc.dat); the fast path
// is the cheapest way to ask a server for one value.
const (
	oidInsertLSN = 2852 // pg_current_wal_insert_lsn()
	oidReplayLSN = 3821 // pg_last_wal_replay_lsn()
	oidSnapshot  = 5061 // pg_current_snapshot()
)

// attempt runs the batch on the connection that the session holds. With again,
// what the server answers is kept back at first, so that the batch can still be
// run elsewhere. front is queries of our own that go first.
func (s *session) attempt(b *batch, again bool, front ...string) error {
	if s.cancelled { // while it was on its way to a connection
		return errCancelled
	}
	if s.onLeader && !s.mayGoOn() {
		return &lostError{cause: errDeposed}
	}
	c := &s.cycle
	c.again = again && b.complete
	c.commits = s.commits(&c.class)
	if c.class.Empties != "" {
		s.srv.pool.Vacate(s.conn.Node, c.class.Empties)
	}
	if s.status == wire.Failed && s.onLeader && s.lacks(&c.class) {
		if err := s.beyond(b); err != nil {
			return err
		}
	}
	if c.class.Prepared != route.PreparedNone {
		if err := s.nameStatements(c.class); err != nil {
			return err
		}
	}
	if err := s.replan(); err != nil {
		return err
	}
	if err := s.prepareAsBefore(); err != nil {
		return err
	}
	switch {
	case !s.onLeader:
	case s.status == wire.Failed:
		if c.class.Nextval && c.class.Multi && !s.foreign() { // behind a ROLLBACK
			s.conn.Writer = s.serial
		}
	case c.class.Nextval || c.class.Currval || !b.complete:
		front = append(front, s.sequences(c.class)...)
	}
	if s.status == wire.Idle && (c.class.Multi || !b.complete) {
		var err error
		if front, err = s.prepareDescribed(front); err != nil {
			return err
		}
	}
	c.held = c.again || s.prelude != nil
	s.startUp()
	var shown []string
	if b.own {
		shown = s.ownShown(b)
		front = append(front, s.ownValues(shown)...)
	}
	s.splice(s.conn, front...)
	if c.part {
		s.askSync()
		c.sent = len(c.steps)
	}
	if !b.complete {
		if b.flushed {
			s.up = wire.AppendEmpty(s.up, wire.Flush)
		}
		c.commits = s.onLeader && !s.srv.options.IgnorePositions // what is still to come may write
		s.in.Consume(c.batch)
		c.batch = 0
	}
	if b.own && s.status != wire.Failed {
		for _, name := range shown {
			if b.mixed { // and so perhaps skipped, which a Sync would end
				s.askQuery("RESET " + ownPrefix + name)
			} else {
				s.ask("RESET " + ownPrefix + name)
			}
		}
		c.sent = len(c.steps)
	}
	if c.class.Kind == route.Begin && !s.onLeader {
		s.ask("SHOW transaction_isolation") // by default it may be another than READ COMMITTED
		c.sent = len(c.steps)
	}
	if names := s.settingsAfter(b); len(names) > 0 {
		s.askSettings(names, s.setsAlone(&b.class))
	}
	if c.commits && b.complete && s.policy.Delivery == route.DeliverInline && s.commitsNow(&c.class) {
		s.askPosition(oidInsertLSN)
		if s.srv.over.due() {
			s.askSnapshot()
		}
	}
	if b.complete && s.foresees(&c.class) {
		s.sight.epoch = s.srv.board.View().Epoch // a later one is no matter of its
		s.askSnapshot()
		c.foresees = true
	}
	if !c.held {
		s.in.Consume(c.batch)
		c.batch = 0
	}
	return s.exchange()
}

// commits reports whether a statement of this class may have changed something
// once the session is idle again, so that its position is needed. A read in no
// transaction has not; what else the leader was asked may have.
func (s *session) commits(class *route.Class) bool {
	return s.onLeader && !s.srv.options.IgnorePositions && !(s.status == wire.Idle && reads(class.Kind)) &&
		class.Kind != route.Rollback && class.Reason != route.ReasonSetting
}

// commitsNow reports whether the session will be idle after a statement of this
// class, and the server ready for a FunctionCall right behind it. In copy-in
// mode that would be an error.
func (s *session) commitsNow(class *route.Class) bool {
	return s.endsIdle(class) && class.Kind != route.Rollback
}

// askPosition calls a function that returns a position, behind what is on its
// way already.
func (s *session) askPosition(oid uint32) {
	s.askFunction(oid)
	s.cycle.probing, s.cycle.value = true, nil
}

// askSnapshot asks, behind what is on its way already, which transactions are over.
func (s *session) askSnapshot() {
	s.askFunction(oidSnapshot)
	s.cycle.snapshot = topology.Snapshot{}
}

func (s *session) askFunction(oid uint32) {
	s.up = wire.AppendFunctionCall(s.up, oid)
	s.cycle.insert(step{typ: wire.FunctionCall})
	s.cycle.sent = len(s.cycle.steps)
}

// probed returns the position that the server has told; 0 if it would not.
func (c *cycle) probed() lsn.LSN {
	if len(c.value) != 8 {
		return 0
	}
	return lsn.LSN(binary.BigEndian.Uint64(c.value))
}

// probe asks the server for a position now and returns it; 0 if it would not
// tell.
func (s *session) probe(oid uint32) (lsn.LSN, error) {
	_, err := s.call(oid)
	return s.cycle.probed(), err
}

// call calls a function by number and returns its value; nil if the server
// refused.
func (s *session) call(oid uint32) ([]byte, error) {
	s.startUp()
	s.askPosition(oid)
	err := s.exchangeOwn()
	s.cycle.probing = false
	return s.cycle.value, err
}

// askValue runs a query of ours and returns the last value it gave.
func (s *session) askValue(sql string) (string, error) {
	s.startUp()
	s.ask(sql)
	err := s.exchangeOwn()
	return string(s.cycle.value), err
}

// exchangeOwn runs what we have asked to its end while nothing of the client's is under
// way.
func (s *session) exchangeOwn() error {
	s.cycle.sent = len(s.cycle.steps)
	ready := s.cycle.ready
	s.cycle.ready = wire.Idle // nothing of the client's is due
	err := s.exchange()
	s.cycle.ready = ready
	return err
}

// finishOn ends a batch that was answered, or not.
func (s *session) finishOn(b *batch, err error) error {
	c := &s.cycle
	if c.part {
		c.ready = c.ownReady
	}
	if err == nil {
		s.in.Consume(c.batch)
		c.batch = 0
		err = s.account()
	}
	if err == nil && c.class.Local && c.runs && !c.nothing() {
		s.madeLocally(c.class.Made()) // or it is another's connection before that is asked
	}
	if err == nil && s.unsettled() {
		err = s.learnSettings()
	}
	if err != nil {
		lost, isLost := errors.AsType[*lostError](err)
		misfit, isMisfit := errors.AsType[*misfitError](err)
		switch {
		case isLost && c.ready == wire.Idle && s.pinned == route.PinNone && !s.unsettled():
			s.lostBehind() // the answer is complete: only our own question was lost
		case isLost && c.passed:
			return s.lostAfter(lost)
		case isLost:
			return s.lost(lost)
		case isMisfit:
			return s.mismatched(misfit)
		default:
			return err
		}
	}
	if s.inBlock() {
		if err := s.flush(); err != nil {
			return err
		}
		e := *errTransactionBlock
		e.Severity = "FATAL"
		return &e
	}
	if s.status = c.ready; s.status == wire.Idle {
		s.explained = nil // portals end with their transaction
	}
	if !c.passed && !c.part {
		ready := c.ready
		if s.owed && s.policy.Delivery != route.DeliverOff {
			s.owed, s.told = false, s.token
			var text [64]byte
			token := string(s.srv.board.View().Token(s.token).Append(text[:0]))
			s.out.put(s.conn, func(p []byte) []byte { return wire.AppendParameterStatus(p, "lsnproxy.token", token) })
		}
		s.out.put(s.conn, func(p []byte) []byte { return s.appendReady(p, ready) })
	}
	if err := s.flush(); err != nil {
		return err
	}
	if s.conn != nil {
		return s.keep(&c.class)
	}
	return nil
}

// account brings the session's token up to what it has now written or seen.
func (s *session) account() error {
	c := &s.cycle
	if s.srv.options.IgnorePositions {
		return nil
	}
	node := s.conn.Node
	if s.onLeader && c.snapshot.Xmax != 0 {
		s.srv.over.note(c.snapshot, s.epoch)
	}
	if !s.onLeader || c.ready != wire.Idle || !c.commits {
		if s.heeds && (!s.onLeader || c.ready == wire.Idle && c.class.Reason != route.ReasonSetting) {
			s.saw(node)
		}
		return nil
	}
	if s.policy.Delivery != route.DeliverInline && !c.probing {
		s.wrote(node)
		return nil
	}
	s.home.counts.probes++
	at := c.probed()
	if at == 0 && !c.probing {
		var err error
		if at, err = s.probe(oidInsertLSN); err != nil {
			return err
		}
	}
	v := s.srv.board.View()
	if at == 0 { // the server will not tell: ask the watcher
		s.wrote(node)
		s.settle(time.Now().Add(s.srv.options.LeaderWait))
		return nil
	}
	written := lsn.Position{Timeline: v.TimelineOf(node), LSN: lsn.Normalize(at, v.Segment)}
	s.token = lsn.Later(s.token, written)
	s.srv.acked.upTo(written)
	s.last = seen{node: noNode}
	s.owed = s.token != s.told
	return nil
}

// saw notes that something was read on a node just now.
func (s *session) saw(node int) {
	s.last.node, s.last.at = node, topology.Now()
	if !s.onLeader {
		s.sight = sighting{
			node: node, at: s.last.at, xmax: s.cycle.snapshot.Xmax, epoch: s.sight.epoch,
			run: s.sight.run + 1, lastRun: s.sight.lastRun,
		}
	}
}

// wrote notes a commit on a node that was acknowledged just now, whose position is
// left to be asked for when it is needed.
func (s *session) wrote(node int) {
	s.last = seen{node: node, at: topology.Now(), written: true, timeline: s.srv.board.View().TimelineOf(node)}
	s.srv.acked.unseen(s.last.at)
}

// keep decides what becomes of the connection after a batch.
func (s *session) keep(class *route.Class) error {
	s.discarded(class)
	if s.mode == ModeSession && s.onLeader && !reads(class.Kind) {
		class.Pin |= route.PinMode
	}
	s.pin(class)
	s.redefined = s.redefined || class.Schema
	if s.dropped = s.dropped || class.Schema || class.Drop; s.dropped {
		s.db.schema.Add(1)
		if class.Native {
			s.db.native.Store(true)
		}
		if s.status == wire.Idle { // others do not see it before
			if s.redefined {
				s.defined = s.db.stale()
			}
			s.redefined, s.dropped = false, false
		}
	}
	if s.doubts != nil || s.doubting() {
		s.keepDoubts()
	}
	// In a transaction only behind the function itself: before the first query of one its level may be set.
	if s.witnessed && (s.status == wire.Idle || s.status == wire.InTx && s.doubting() && !class.Multi) {
		if err := s.hearWitness(); err != nil || s.conn == nil {
			return err
		}
	}
	if class.Empties != "" {
		s.srv.changed(class.Empties)
	}
	s.defaults = s.defaults || class.Defaults && s.cycle.runs
	s.localSet = s.status != wire.Idle && (s.localSet || localSettings(class))
	s.rememberBound(class)
	if s.status != wire.Idle {
		return nil
	}
	if s.opening.log != nil {
		s.opening = opening{}
	}
	if s.defaults {
		s.srv.defaults.Add(1)
		s.defaults = false
	}
	return s.letGo()
}

// letGo gives the connection back if it holds nothing of the session's, which is asked
// if it is not known.
func (s *session) letGo() error {
	if s.doubtful {
		if err := s.verify(); err != nil || s.conn == nil {
			return err
		}
	}
	if s.pinned == route.PinNone && s.conn.Statements.Own != nil {
		if err := s.hideNames(); err != nil || s.conn == nil {
			return err
		}
	}
	switch {
	case s.pinned != route.PinNone:
	case s.cycle.poisoned:
		s.destroy()
	default:
		s.release()
	}
	return nil
}
