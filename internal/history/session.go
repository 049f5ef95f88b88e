package history

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// session is one connection's life: obligations begin and end with it.
type session struct {
	run    *run
	id     int
	rng    *rand.Rand
	client *client

	reader    bool     // it writes nothing
	addresses []string // to move among
	at        int      // among them, taken round and round

	present [ownRows + 1]bool // by Key.N: which own rows exist
	writes  int64             // writes tried, and the version of the last one
	pairs   int               // begun, those of the sessions before it included
	events  []Event           // of the pair in hand
	fate    string            // why it is over, if it is
}

var (
	// errRefused ends a pair: a statement was answered by an error that left
	// no doubt. It has been counted.
	errRefused = errors.New("statement refused")
	// errOver ends a session whose connection stands, because what it may
	// expect from now on is not known.
	errOver = errors.New("session over")
)

// readersPause keeps those who need not wait for anything from taking the machine
// from those who write.
const readersPause = 2 * time.Millisecond

// play carries pairs until the budget is spent. It returns an error if the
// session is over before.
func (s *session) play(ctx context.Context) error {
	for s.run.more(ctx, s.pairs, s.reader) {
		s.pairs++
		err := s.pair(s.run.protocol(s.rng))
		if err == nil || err == errRefused {
			err = s.tidy()
		}
		if err == nil && s.run.options.Token != "" && s.pairs%s.run.options.MoveEvery == 0 {
			err = s.move(ctx)
		}
		s.run.record(s.events)
		s.events = s.events[:0]
		if err != nil {
			return err
		}
		time.Sleep(s.run.options.Pause)
		if s.reader {
			time.Sleep(readersPause)
		}
	}
	return nil
}

// tidy leaves the transaction that a refused pair may have left open, and now
// and then asks who served the last read.
func (s *session) tidy() error {
	if s.client.status != 'I' {
		if _, err := s.call(Query, s.statement(rollback)); err != nil {
			return err
		}
	}
	query, every := s.run.options.NodeQuery, s.run.options.NodeEvery
	if query == "" || s.pairs%every != 0 {
		return nil
	}
	answers, err := s.client.flight(request{statements: []statement{{sql: query}}})
	switch {
	case err != nil:
		s.run.lost(err)
		return err
	case answers[0].err != nil:
		s.run.refused(answers[0].err)
	case len(answers[0].results) > 0 && len(answers[0].results[0].rows) > 0:
		node := answers[0].results[0].rows[0][0]
		s.run.served(node)
		if last := len(s.events) - 1; last >= 0 && s.events[last].Kind == Read {
			s.events[last].Node = node
		}
	}
	return nil
}

// move goes on at the next address, with all that the session has written and seen
// in its token: given when it connects, or set then.
func (s *session) move(ctx context.Context) error {
	o := s.run.options
	shown, err := s.call(Query, statement{sql: "SHOW " + o.Token})
	if err != nil {
		return err
	}
	token, atOnce := shown.rows[0][0], s.rng.IntN(2) == 0
	if o.Params = maps.Clone(o.Params); atOnce {
		if o.Params == nil {
			o.Params = make(map[string]string)
		}
		o.Params[o.Token] = token
	}
	s.at++
	c, err := connect(ctx, o, s.addresses[s.at%len(s.addresses)])
	if err != nil {
		s.run.lost(err)
		s.fate = lossCode(err)
		return err
	}
	s.client.close()
	s.client = c
	if atOnce {
		return nil
	}
	if _, err = s.call(Query, statement{sql: "SET " + o.Token + " = '" + token + "'"}); err == errRefused {
		err, s.fate = errOver, "token refused" // with nothing of its past
	}
	return err
}

// ask sends requests in one flight. The answers that arrived count even when
// the session is over, which err says.
func (s *session) ask(requests ...request) ([]answer, error) {
	answers, err := s.client.flight(requests...)
	if err != nil {
		s.run.lost(err)
		s.fate = lossCode(err)
	}
	for i, a := range answers {
		if a.err != nil {
			s.run.refused(a.err)
			if slices.Contains(s.run.options.EndsSession, a.err.Code) {
				s.fate = a.err.Code
				return answers[:i+1], errOver // what comes behind it is of another past
			}
			if doubtful(a.err) {
				err, s.fate = errOver, a.err.Code
			}
		} else if why := garbled(requests[i], a); why != "" {
			s.run.failed("garbled answer", why)
			return answers[:i], errOver
		}
	}
	return answers, err
}

// call sends one statement and returns its result, errRefused or an error that
// ends the session.
func (s *session) call(way Way, st statement) (result, error) {
	answers, err := s.ask(request{way: way, statements: []statement{st}})
	switch {
	case err != nil:
		return result{}, err
	case answers[0].err != nil:
		return result{}, errRefused
	}
	return answers[0].results[0], nil
}

// write carries one autocommit write of the row k.
func (s *session) write(p Protocol, way Way, k Key) error {
	w := s.plan(p, way, k)
	answers, err := s.ask(request{way: way, statements: []statement{s.writing(w)}})
	outcome := outcomeOf(answers, 0)
	if outcome == Acked && !s.tookEffect(&w, answers[0].results[0]) {
		outcome = Failed
	}
	s.settle(outcome, w)
	if err == nil && outcome == Failed {
		err = errRefused
	}
	return err
}

// read reads the row k, or a set of rows with k among them.
func (s *session) read(p Protocol, way Way, k Key) error {
	return s.readSince(s.run.now(), p, way, k)
}

// readSince is read, in a transaction that was begun at an instant: what it shows
// may be as old as that.
func (s *session) readSince(start time.Duration, p Protocol, way Way, k Key) error {
	e := Event{Protocol: p, Way: way, Key: k, Start: start}
	r, err := s.call(way, s.reading(k))
	if err != nil {
		return err
	}
	return s.saw(e, r)
}

// tookEffect says whether the answer to w tells of a row touched, and takes
// from it what the write learnt. A write of a row that is not where the
// session left it is as good as a read that misses it.
func (s *session) tookEffect(w *Event, r result) bool {
	if pgconn.NewCommandTag(r.tag).RowsAffected() == 0 {
		missed := *w
		missed.Kind, missed.Version, missed.Mark, missed.Absent = Read, 0, Mark{}, true
		missed.End, missed.Through = s.run.now(), s.client.address
		s.events = append(s.events, missed)
		return false
	}
	if w.Kind == Bump {
		w.Version, _ = strconv.ParseInt(r.rows[0][0], 10, 64)
	}
	return true
}

// settle records writes that share an outcome.
func (s *session) settle(outcome Outcome, writes ...Event) {
	for _, w := range writes {
		w.Outcome, w.End, w.Through = outcome, s.run.now(), s.client.address
		if outcome == Acked {
			w.Token = s.client.told[s.run.options.Token]
		}
		s.events = append(s.events, w)
		if outcome == Acked && w.Key.Owner != 0 {
			s.present[w.Key.N] = !w.Absent
		}
	}
}

// saw records what a read found of the row e.Key and of every other row in the
// answer.
func (s *session) saw(e Event, r result) error {
	e.Session, e.Kind, e.End, e.Through = s.id, Read, s.run.now(), s.client.address
	asked := false
	for _, row := range r.rows {
		numbers, err := integers(row)
		found := e
		switch {
		case err == nil && e.Key.Owner != 0 && len(numbers) == 3:
			found.Key = Key{Owner: int(numbers[0]), N: int(numbers[1])}
			found.Version = numbers[2]
		case err == nil && e.Key.Owner == 0 && len(numbers) == 4:
			found.Key.N, found.Version = int(numbers[0]), numbers[1]
			found.Mark = Mark{Session: int(numbers[2]), N: numbers[3]}
		default:
			s.run.failed("garbled answer", fmt.Sprintf("session %d read %v and got %q", s.id, e.Key, row))
			return errOver
		}
		asked = asked || found.Key == e.Key
		s.events = append(s.events, found)
	}
	if !asked {
		e.Absent = true
		s.events = append(s.events, e)
	}
	return nil
}

func integers(row []string) ([]int64, error) {
	numbers := make([]int64, len(row))
	for i, text := range row {
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, err
		}
		numbers[i] = v
	}
	return numbers, nil
}

// outcomeOf is the outcome of a write that was the i-th request of a flight.
func outcomeOf(answers []answer, i int) Outcome {
	switch {
	case i >= len(answers):
		return Unknown
	case answers[i].err == nil:
		return Acked
	case doubtful(answers[i].err):
		return Unknown
	default:
		return Failed
	}
}

// doubtful reports whether an error leaves open what became of the statement:
// class 08 holds 08007 transaction_resolution_unknown, and 40003 is
// statement_completion_unknown ("PostgreSQL Error Codes" in the manual).
func doubtful(err *pgconn.PgError) bool {
	return strings.HasPrefix(err.Code, "08") || err.Code == "40003"
}

// garbled says how an answer without error does not fit its request, as when a
// proxy hands a session the answer of another; "" if it fits.
func garbled(r request, a answer) string {
	if len(a.results) != len(r.statements) {
		return fmt.Sprintf("%d results for %q", len(a.results), r.text())
	}
	for i, s := range r.statements {
		verb, _, _ := strings.Cut(s.sql, " ")
		tag := a.results[i].tag
		if !strings.HasPrefix(tag, verb) && (verb != "COMMIT" || tag != "ROLLBACK") {
			return fmt.Sprintf("tag %q for %q", tag, s.sql)
		}
	}
	return ""
}
