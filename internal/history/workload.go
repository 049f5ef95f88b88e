package history

import (
	"cmp"
	"fmt"
	"strconv"
	"time"
)

// Numbers of rows: few enough that own rows are often deleted and inserted
// anew, and that every shared row is written by many sessions. Shared rows take
// turns, so many at a time: the search for a linear order takes room by the square
// of what was done to one.
const (
	ownRows    = 4
	sharedRows = 8
	turn       = 10 * time.Second
	turns      = 64 // and over again
)

// setup makes the tables of the workload. Versions of shared rows begin at 0.
var setup = []string{
	"DROP TABLE IF EXISTS history_own, history_shared",
	`CREATE TABLE history_own (session bigint, key bigint, version bigint NOT NULL, PRIMARY KEY (session, key))`,
	`CREATE TABLE history_shared (key bigint PRIMARY KEY, version bigint NOT NULL, session bigint NOT NULL, n bigint NOT NULL)
		WITH (fillfactor = 50)`,
	fmt.Sprintf("INSERT INTO history_shared SELECT key, 0, 0, 0 FROM generate_series(1, %d) AS key", sharedRows*turns),
}

// The statements of the workload, as indices into texts.
const (
	begin = iota
	beginReadOnly
	beginRepeatable
	commit
	rollback
	insertOwn
	updateOwn
	deleteOwn
	bumpShared
	readOwn
	readShared
	readAllShared
)

var texts = [...]string{
	begin:           "BEGIN",
	beginReadOnly:   "BEGIN READ ONLY",
	beginRepeatable: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
	commit:          "COMMIT",
	rollback:        "ROLLBACK",
	insertOwn:       "INSERT INTO history_own (session, key, version) VALUES ($1, $2, $3)",
	updateOwn:       "UPDATE history_own SET version = $3 WHERE session = $1 AND key = $2",
	deleteOwn:       "DELETE FROM history_own WHERE session = $1 AND key = $2",
	bumpShared:      "UPDATE history_shared SET version = version + 1, session = $1, n = $2 WHERE key = $3 RETURNING version",
	readOwn:         "SELECT session, key, version FROM history_own WHERE session = $1 AND key = $2",
	readShared:      "SELECT key, version, session, n FROM history_shared WHERE key = $1",
	readAllShared:   "SELECT key, version, session, n FROM history_shared WHERE key BETWEEN $1 AND $2 ORDER BY key",
}

// statement fills in a text. The names of prepared statements turn with the
// session, so that one name stands for different texts in different sessions,
// as it does among applications that number their statements.
func (s *session) statement(which int, args ...int64) statement {
	return statement{
		name: "h" + strconv.Itoa((which+s.id)%len(texts)),
		sql:  texts[which],
		args: args,
	}
}

func (s *session) ownKey() Key { return Key{Owner: s.id, N: 1 + s.rng.IntN(ownRows)} }

func (s *session) sharedKey() Key {
	return Key{N: 1 + int(s.run.now()/turn)%turns*sharedRows + s.rng.IntN(sharedRows)}
}

func (s *session) anyKey() Key {
	if s.rng.IntN(3) == 0 {
		return s.sharedKey()
	}
	return s.ownKey()
}

func (s *session) anyWay() Way { return Way(s.rng.IntN(3)) }

// plan chooses what to write to the row k, given what is there.
func (s *session) plan(p Protocol, way Way, k Key) Event {
	s.writes++
	w := Event{Session: s.id, Protocol: p, Way: way, Key: k, Version: s.writes, Start: s.run.now()}
	switch {
	case k.Owner == 0:
		w.Kind, w.Version, w.Mark = Bump, 0, Mark{Session: s.id, N: s.writes}
	case !s.present[k.N]:
		w.Kind = Insert
	case s.rng.IntN(4) == 0:
		w.Kind, w.Absent = Delete, true
	default:
		w.Kind = Update
	}
	return w
}

// writing is the statement that carries w out.
func (s *session) writing(w Event) statement {
	session, key := int64(s.id), int64(w.Key.N)
	switch w.Kind {
	case Insert:
		return s.statement(insertOwn, session, key, w.Version)
	case Update:
		return s.statement(updateOwn, session, key, w.Version)
	case Delete:
		return s.statement(deleteOwn, session, key)
	default:
		return s.statement(bumpShared, session, w.Mark.N, key)
	}
}

// reading is a statement that reads k: of the shared rows sometimes all of its turn.
func (s *session) reading(k Key) statement {
	switch {
	case k.Owner != 0:
		return s.statement(readOwn, int64(k.Owner), int64(k.N))
	case s.rng.IntN(4) == 0:
		first := k.N - (k.N-1)%sharedRows
		return s.statement(readAllShared, int64(first), int64(first+sharedRows-1))
	default:
		return s.statement(readShared, int64(k.N))
	}
}

// pair carries one write and the reads after it. An error means that the
// session is over; a statement refused is counted and ends only the pair.
func (s *session) pair(p Protocol) error {
	if s.reader {
		return s.watch(p)
	}
	switch p {
	case Simple:
		return s.autocommit(p, Query)
	case Extended:
		return s.autocommit(p, Unnamed)
	case Prepared:
		return s.autocommit(p, Named)
	case Transaction:
		return s.transaction(s.anyWay())
	case ReadOnly:
		return s.readOnly(s.anyWay())
	case Pipelined:
		return s.pipelined(s.anyWay())
	case Multi:
		return s.multi()
	default:
		panic(fmt.Sprintf("bug: protocol %d", p))
	}
}

// autocommit writes, reads the row back, and every other time reads another.
func (s *session) autocommit(p Protocol, way Way) error {
	k := s.anyKey()
	if err := s.write(p, way, k); err != nil {
		return err
	}
	if err := s.read(p, way, k); err != nil || s.rng.IntN(2) == 0 {
		return err
	}
	return s.read(p, way, s.anyKey())
}

// transaction writes one or two rows in an explicit transaction, which it
// rolls back now and then, and reads one of them outside. Half of the
// transactions read before they write; none reads after, because what it would
// see is not yet history.
func (s *session) transaction(way Way) error {
	began := s.run.now()
	if _, err := s.call(way, s.statement(begin)); err != nil {
		return err
	}
	if s.rng.IntN(2) == 0 {
		if err := s.readSince(began, Transaction, way, s.anyKey()); err != nil {
			return err
		}
	}
	writes := []Event{s.plan(Transaction, way, s.ownKey())}
	if s.rng.IntN(2) == 0 {
		writes = append(writes, s.plan(Transaction, way, s.sharedKey()))
	}
	for i := range writes {
		writes[i].Start = s.run.now()
		r, err := s.call(way, s.writing(writes[i]))
		if err == nil && !s.tookEffect(&writes[i], r) {
			err = errRefused
		}
		if err != nil {
			// Nobody has asked for the commit, so the server rolls back.
			s.settle(Failed, writes...)
			return err
		}
	}
	if err := s.end(way, writes); err != nil {
		return err
	}
	return s.read(Transaction, s.anyWay(), writes[s.rng.IntN(len(writes))].Key)
}

// end commits the transaction that made writes, or rolls it back.
func (s *session) end(way Way, writes []Event) error {
	if s.rng.IntN(8) == 0 {
		_, err := s.call(way, s.statement(rollback))
		s.settle(Failed, writes...)
		return err
	}
	answers, err := s.ask(request{way: way, statements: []statement{s.statement(commit)}})
	outcome := outcomeOf(answers, 0)
	if outcome == Acked && answers[0].results[0].tag != "COMMIT" {
		outcome = Failed // COMMIT of a failed transaction is answered ROLLBACK
	}
	s.settle(outcome, writes...)
	if err == nil && outcome == Failed {
		err = errRefused
	}
	return err
}

// readOnly writes, then reads the row and others in a read-only transaction.
func (s *session) readOnly(way Way) error {
	k := s.anyKey()
	if err := s.write(ReadOnly, way, k); err != nil {
		return err
	}
	return s.inside(way, k, s.sharedKey(), s.anyKey())
}

// inside reads rows in a read-only transaction.
func (s *session) inside(way Way, keys ...Key) error {
	start, began := beginReadOnly, s.run.now()
	if s.rng.IntN(2) == 0 {
		start = beginRepeatable
	}
	if _, err := s.call(way, s.statement(start)); err != nil {
		return err
	}
	for _, k := range keys {
		if err := s.readSince(began, ReadOnly, way, k); err != nil {
			return err
		}
	}
	_, err := s.call(way, s.statement(commit))
	return err
}

// pipelined sends a write and one or two reads, each under its own Sync (or
// Query), before it reads any answer. On one connection to one server the
// reads run after the write.
func (s *session) pipelined(way Way) error {
	w := s.plan(Pipelined, way, s.anyKey())
	keys := []Key{w.Key}
	if s.rng.IntN(2) == 0 {
		keys = append(keys, s.sharedKey())
	}
	flight := []request{{way: way, statements: []statement{s.writing(w)}}}
	for _, k := range keys {
		flight = append(flight, request{way: way, statements: []statement{s.reading(k)}})
	}
	answers, err := s.ask(flight...)
	outcome := outcomeOf(answers, 0)
	if outcome == Acked && !s.tookEffect(&w, answers[0].results[0]) {
		outcome = Failed
	}
	s.settle(outcome, w)
	for i, k := range keys {
		if i+1 >= len(answers) || answers[i+1].err != nil {
			continue
		}
		e := Event{Protocol: Pipelined, Way: way, Key: k, Start: w.Start}
		err = cmp.Or(err, s.saw(e, answers[i+1].results[0]))
	}
	return err
}

// multi sends two writes and a read of one of them in one Query, which is one
// transaction, and then reads both rows in another.
func (s *session) multi() error {
	own, shared := s.plan(Multi, Query, s.ownKey()), s.plan(Multi, Query, s.sharedKey())
	answers, err := s.ask(request{statements: []statement{s.writing(own), s.writing(shared), s.reading(own.Key)}})
	outcome := outcomeOf(answers, 0)
	if outcome != Acked {
		s.settle(outcome, own, shared)
		return cmp.Or(err, errRefused)
	}
	results := answers[0].results
	for i, w := range []Event{own, shared} {
		if s.tookEffect(&w, results[i]) {
			s.settle(Acked, w)
		} else {
			s.settle(Failed, w)
		}
	}
	if err := s.saw(Event{Protocol: Multi, Key: own.Key, Start: own.Start}, results[2]); err != nil {
		return err
	}

	start := s.run.now()
	answers, err = s.ask(request{statements: []statement{s.reading(own.Key), s.reading(shared.Key)}})
	if outcomeOf(answers, 0) != Acked {
		return cmp.Or(err, errRefused)
	}
	for i, k := range []Key{own.Key, shared.Key} {
		err = cmp.Or(err, s.saw(Event{Protocol: Multi, Key: k, Start: start}, answers[0].results[i]))
	}
	return err
}

// watch reads shared rows in the way of p, and writes nothing.
func (s *session) watch(p Protocol) error {
	way, keys := s.anyWay(), []Key{s.sharedKey(), s.sharedKey()}
	var flight []request
	switch p {
	case Simple:
		return s.read(p, Query, keys[0])
	case Extended:
		return s.read(p, Unnamed, keys[0])
	case Prepared:
		return s.read(p, Named, keys[0])
	case Multi:
		flight = []request{{statements: []statement{s.reading(keys[0]), s.reading(keys[1])}}}
	case Pipelined:
		for _, k := range keys {
			flight = append(flight, request{way: way, statements: []statement{s.reading(k)}})
		}
	default:
		return s.inside(way, keys...)
	}
	start := s.run.now()
	answers, err := s.ask(flight...)
	var results []result
	for _, a := range answers {
		if a.err == nil {
			results = append(results, a.results...)
		}
	}
	if len(results) < len(keys) {
		return cmp.Or(err, errRefused)
	}
	for i, k := range keys {
		err = cmp.Or(err, s.saw(Event{Protocol: p, Way: way, Key: k, Start: start}, results[i]))
	}
	return err
}
