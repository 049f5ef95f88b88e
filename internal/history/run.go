package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Options say what to run against what. Only Addresses is required.
type Options struct {
	Addresses []string // host:port, shared out among the sessions in turn
	User      string   // default postgres
	Password  string
	Database  string            // default postgres; Run drops and makes its tables there
	Params    map[string]string // startup parameters of every session

	Sessions int           // concurrent sessions, default 32
	Pairs    int           // pairs of a write and its reads per session; 0: no limit but Duration
	Duration time.Duration // how long pairs are begun; 0: no limit but Pairs. Neither given: 100 pairs
	Pause    time.Duration // of a session after each pair

	// Readers is how many of the sessions write nothing and read shared rows only,
	// every few milliseconds and for as long as others write. They connect to
	// ReadersAt, or to Addresses if that is nil.
	Readers   int
	ReadersAt []string

	// Token names the setting that carries a session's past: shown on one
	// connection and set on another, it stands for all that the session has written
	// and read. Then a session moves to the next address after every so many pairs
	// (MoveEvery, default 8) and goes on there. "": sessions stay where they are.
	Token     string
	MoveEvery int

	Bound time.Duration // what is older must be seen: see Judge

	Mix     map[Protocol]int // weights; nil: all protocols alike
	Seed    uint64           // 0: chosen at random; Result tells it
	Timeout time.Duration    // for the answers to one flight, default 10s; then the connection counts as lost

	// EndsSession lists SQLSTATEs by which the other side tells a session that
	// its past is gone. The session then ends and another begins.
	EndsSession []string

	NodeQuery string // asked after some pairs: its first column names the node that served the last read
	NodeEvery int    // after how many pairs of a session, default 16

	// Ready runs when the tables exist and before the sessions begin: the place
	// to wait for the followers. Meanwhile runs beside the sessions, to inject
	// faults; its context ends when the sessions have ended, and Run waits for
	// it. An error of either is returned by Run.
	Ready     func(context.Context) error
	Meanwhile func(context.Context) error
}

// withDefaults fills in what was left out.
func (o Options) withDefaults() Options {
	setDefault(&o.User, "postgres")
	setDefault(&o.Database, "postgres")
	setDefault(&o.Sessions, 32)
	setDefault(&o.Timeout, 10*time.Second)
	setDefault(&o.NodeEvery, 16)
	setDefault(&o.MoveEvery, 8)
	if o.ReadersAt == nil {
		o.ReadersAt = o.Addresses
	}
	if o.Pairs == 0 && o.Duration == 0 {
		o.Pairs = 100
	}
	for o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	if o.Mix == nil {
		o.Mix = make(map[Protocol]int)
		for p := range protocols {
			o.Mix[p] = 1
		}
	}
	return o
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// run is one run under way.
type run struct {
	options  Options
	weight   int // sum of the mix
	began    time.Time
	sessions atomic.Int64 // the number of the last session
	writing  atomic.Int64 // slots that write and are not done

	mu struct {
		sync.Mutex
		Result
	}
}

// Run sets up the tables through the first address, lets the sessions play and
// judges what they saw. Refused statements and lost connections are counted in
// the result, not returned: a session whose connection is lost begins anew,
// without obligations. It ends early, without error, when ctx does.
//
// One run at a time may use a database. Events stay in memory, about 1 KB per
// pair, so this is for runs of minutes.
func Run(ctx context.Context, o Options) (*Result, error) {
	if len(o.Addresses) == 0 {
		return nil, errors.New("history: no address")
	}
	r := &run{options: o.withDefaults()}
	for _, weight := range r.options.Mix {
		r.weight += weight
	}
	if r.weight <= 0 {
		return nil, errors.New("history: the mix names no protocol")
	}
	if err := r.prepare(ctx); err != nil {
		return nil, fmt.Errorf("history: set up: %w", err)
	}
	r.began = time.Now()
	r.mu.Errors, r.mu.Samples, r.mu.Nodes = make(map[string]int), make(map[string]string), make(map[string]int)
	r.mu.Ends = make(map[int]string)

	beside, cancel := context.WithCancel(ctx)
	defer cancel()
	meanwhile := make(chan error, 1)
	// Ends when beside does, after the sessions; awaited below.
	go func() {
		if o.Meanwhile == nil {
			meanwhile <- nil
			return
		}
		meanwhile <- o.Meanwhile(beside)
	}()
	r.writing.Store(int64(r.options.Sessions - r.options.Readers))
	var slots sync.WaitGroup
	for i := range r.options.Sessions {
		// Ends when its pairs are done or ctx ends; awaited below.
		slots.Go(func() { r.slot(ctx, i) })
	}
	slots.Wait()
	cancel()
	err := <-meanwhile

	result := &r.mu.Result
	result.Seed, result.Elapsed = r.options.Seed, r.now()
	result.Sessions = int(r.sessions.Load())
	result.Verdict = Judge(result.Events, o.Bound)
	if err != nil && !errors.Is(err, context.Canceled) {
		return result, fmt.Errorf("history: meanwhile: %w", err)
	}
	return result, nil
}

func (r *run) prepare(ctx context.Context) error {
	c, err := connect(ctx, r.options, r.options.Addresses[0])
	if err != nil {
		return err
	}
	defer c.close()
	for _, sql := range setup {
		answers, err := c.flight(request{statements: []statement{{sql: sql}}})
		if err != nil {
			return err
		}
		if answers[0].err != nil {
			return answers[0].err
		}
	}
	if r.options.Ready == nil {
		return nil
	}
	return r.options.Ready(ctx)
}

// slot plays one session after another until the budget is spent.
func (r *run) slot(ctx context.Context, i int) {
	rng := rand.New(rand.NewPCG(r.options.Seed, uint64(i)))
	reader, addresses := i < r.options.Readers, r.options.Addresses
	if reader {
		addresses = r.options.ReadersAt
	} else {
		defer r.writing.Add(-1)
	}
	pairs := 0
	for try := i; r.more(ctx, pairs, reader); try++ {
		c, err := connect(ctx, r.options, addresses[try%len(addresses)])
		if err != nil {
			r.lost(fmt.Errorf("connect: %w", err))
			pairs++ // so that a number of pairs is an end even if nobody answers
		} else {
			s := &session{
				run: r, id: int(r.sessions.Add(1)), rng: rng, client: c,
				reader: reader, addresses: addresses, at: try, pairs: pairs,
			}
			err = s.play(ctx)
			s.client.close()
			r.ended(s)
			pairs = s.pairs
		}
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(10*time.Millisecond + rand.N(40*time.Millisecond)):
			}
		}
	}
}

// more reports whether a slot that has begun so many pairs may begin another.
func (r *run) more(ctx context.Context, pairs int, reader bool) bool {
	o := &r.options
	within := o.Pairs == 0 || pairs < o.Pairs
	if reader {
		within = r.writing.Load() > 0
	}
	return ctx.Err() == nil && within && (o.Duration == 0 || r.now() < o.Duration)
}

// protocol draws from the mix.
func (r *run) protocol(rng *rand.Rand) Protocol {
	n := rng.IntN(r.weight)
	for p := range protocols {
		if n -= r.options.Mix[p]; n < 0 {
			return p
		}
	}
	panic("bug: weights do not add up")
}

func (r *run) now() time.Duration { return time.Since(r.began) }

func (r *run) record(events []Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.Events = append(r.mu.Events, events...)
}

func (r *run) ended(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.fate != "" {
		r.mu.Ends[s.id] = s.fate
	}
}

func (r *run) served(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.Nodes[node]++
}

// failed counts an error and keeps the first text of its code.
func (r *run) failed(code, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.Errors[code]++; r.mu.Samples[code] == "" {
		r.mu.Samples[code] = fmt.Sprintf("after %v: %s", r.now(), text)
	}
}

func (r *run) refused(err *pgconn.PgError) { r.failed(err.Code, err.Error()) }

// lost counts a connection that was lost, unless we closed it ourselves.
func (r *run) lost(err error) {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, context.Canceled) {
		return
	}
	r.failed(lossCode(err), err.Error())
}
