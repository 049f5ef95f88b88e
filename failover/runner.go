package failover

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lsnproxy/lsnproxy/election"
	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// Decider records decrees: *election.Node.
type Decider interface {
	State() *election.State
	Changed() <-chan struct{}
	Decide(ctx context.Context, from, to election.Decree) error
	IsFenced(epoch uint64) bool
	Record(ctx context.Context, f election.Failover) error
	Report(body json.RawMessage) error
	Reports() []election.Report
}

// Options say how to look after a database.
type Options struct {
	Settings
	Nodes []string // host:port

	// User and Password log in to every node, Database is where the record is kept;
	// docs/failover.md tells the rights. NoRecord: there is no record.
	User, Password, Database string
	NoRecord                 bool

	// Patroni is where the agents beside the nodes answer, http://host:port by the node's
	// address. Only in mode Observe.
	Patroni map[string]string

	Hooks       Hooks
	HookTimeout time.Duration // 30s

	// Acknowledged tells up to where clients were told that they have committed, on the
	// latest timelines; nil: there are no clients.
	Acknowledged func() []lsn.Position

	Log *slog.Logger
}

// DefaultTimeout is Settings.Timeout where nothing is said.
const DefaultTimeout = 3 * time.Second

func (o Options) withDefaults() Options {
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	o.Drain = cmp.Or(o.Drain, 10*time.Second)
	o.Database = cmp.Or(o.Database, "postgres")
	o.HookTimeout = cmp.Or(o.HookTimeout, 30*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Runner looks at the nodes, tells the coordinator what it sees, and while this proxy
// is the coordinator does what Next says.
type Runner struct {
	o       Options
	decider Decider
	probes  []*probe
	kick    chan struct{} // one slot: a look has brought something
	asks    chan *ask
	hooks   hooks
	awake   wakefulness

	cancel context.CancelFunc
	all    sync.WaitGroup // every goroutine

	status atomic.Pointer[Status]
	counts counts

	// Of the goroutine that runs.
	memory
	phase   Phase
	blocked bool
	why     string
	asked   *ask
	outcome string // why the last decree with a leader was made
	keeper  keeper
}

// memory is what a coordinator remembers only for itself, of the decree it is at.
type memory struct {
	epoch    uint64
	since    topology.Instant
	mark     lsn.LSN // see Input.Mark
	recorded bool
	hooked   map[string]bool
}

// counts are for metrics.
type counts struct {
	steps, failures, changes atomic.Uint64
}

// Status is what the runner is at, for people.
type Status struct {
	Coordinates bool
	Phase       Phase
	Blocked     bool
	Why         string
	Change      *Change
	Nodes       []Node
}

// Stat is a snapshot for metrics. Counters grow from 0 at New.
type Stat struct {
	Status
	Steps    uint64 // things done to nodes or decided
	Failures uint64 // of them
	Changes  uint64 // of leader that this proxy has published
}

// New makes a Runner that does nothing before Start.
func New(decider Decider, o Options) *Runner {
	r := &Runner{o: o.withDefaults(), decider: decider, kick: make(chan struct{}, 1), asks: make(chan *ask)}
	for _, address := range r.o.Nodes {
		r.probes = append(r.probes, newProbe(r, address))
	}
	r.hooks = hooks{commands: r.o.Hooks, timeout: r.o.HookTimeout, log: r.o.Log}
	r.keeper = keeper{r: r}
	r.awake.most = r.o.Timeout / 2
	r.status.Store(&Status{Phase: Steady})
	return r
}

// Start begins. It returns at once and must be called at most once.
func (r *Runner) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	// A goroutine for each node, one that notices standstills and one that decides; Close
	// ends them and waits.
	r.all.Go(func() { r.awake.run(ctx) })
	for _, p := range r.probes {
		r.all.Go(func() { p.run(ctx) })
		if url := r.o.Patroni[p.address]; url != "" && r.o.Mode == Observe {
			r.all.Go(func() { p.consult(ctx, url) })
		}
	}
	r.all.Go(func() { r.run(ctx) })
}

// Close ends everything that Start began, and returns when it is gone. What the
// runner was doing may be half done; the next coordinator goes on with it.
func (r *Runner) Close() {
	r.cancel()
	r.all.Wait()
	r.hooks.wait()
}

// Status tells what the runner is at.
func (r *Runner) Status() *Status { return r.status.Load() }

// Stat returns a snapshot.
func (r *Runner) Stat() Stat {
	return Stat{
		Status: *r.status.Load(),
		Steps:  r.counts.steps.Load(), Failures: r.counts.failures.Load(), Changes: r.counts.changes.Load(),
	}
}

// interval is the pause between looks while nothing is going on, urgent while
// something is.
func (r *Runner) interval() time.Duration { return r.o.Timeout / 6 }

const urgent = 20 * time.Millisecond

func (r *Runner) run(ctx context.Context) {
	for ctx.Err() == nil {
		changed := r.decider.Changed()
		pause := r.turn(ctx)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-r.kick:
		case <-timer.C:
		case a := <-r.asks:
			r.take(a)
		}
		timer.Stop()
	}
	r.answer(errors.New("this proxy is shutting down"))
	r.keeper.close()
}

// turn makes one decision and carries it out. It returns how long to wait at most.
func (r *Runner) turn(ctx context.Context) time.Duration {
	state := r.decider.State()
	in, err := r.input(state)
	if err != nil {
		r.show(state, nil, Step{Phase: Steady, Blocked: true, Why: err.Error()})
		return r.interval()
	}
	r.report(in.Sights[0])
	r.settle(state, in.Decree)
	if !state.Coordinates {
		r.memory = memory{}
		r.hurry(Step{Phase: Steady})
		r.show(state, in.Decree.Change, Step{Phase: Steady, Why: "another proxy coordinates"})
		return r.interval()
	}
	step := Next(*in)
	r.show(state, in.Decree.Change, step)
	r.hurry(step)
	r.hook(step, in)
	if step.Do == Wait {
		if step.Phase == Steady {
			r.amend(ctx, state, in)
			r.keeper.tend(ctx, in)
			return r.interval()
		}
		return urgent
	}
	r.counts.steps.Add(1)
	if err := r.do(ctx, state, in, step); err != nil && ctx.Err() == nil {
		r.counts.failures.Add(1)
		r.o.Log.Warn("failover: "+step.Do.String()+" failed", "node", step.Node, "error", err)
		return urgent
	}
	return 0
}

// hurry has the nodes looked at often while something is going on.
func (r *Runner) hurry(s Step) {
	for _, p := range r.probes {
		on := s.Phase != Steady || s.Do != Wait
		if p.hurry.Swap(on) != on && on {
			p.look()
		}
	}
}

// input gathers what Next decides from.
func (r *Runner) input(state *election.State) (*Input, error) {
	d := Decree{Epoch: state.Decree.Epoch, System: state.Decree.SystemID, Leader: state.Decree.Leader, Timeline: state.Decree.Timeline}
	if len(state.Decree.Plan) > 0 {
		d.Change = new(Change)
		if err := json.Unmarshal(state.Decree.Plan, d.Change); err != nil {
			return nil, fmt.Errorf("the plan in the decree cannot be read: %w", err)
		}
	}
	now := topology.Now()
	if r.epoch != d.Epoch {
		r.memory = memory{epoch: d.Epoch}
		for _, p := range r.probes {
			p.forgive()
		}
	}
	fenced := r.decider.IsFenced(d.Epoch)
	if fenced && r.since == 0 {
		r.since = now
	}
	in := &Input{
		Settings: r.o.Settings, Now: now, Wall: time.Now().UnixMilli(),
		Decree: d, Fenced: fenced, Since: r.since, Voters: len(state.Voters),
		Mark: r.mark, Recorded: r.recorded,
	}
	for _, p := range r.probes {
		in.Nodes = append(in.Nodes, p.node())
	}
	own := r.sight(&d, now)
	if r.o.Acknowledged != nil {
		own.Acked = r.o.Acknowledged()
	}
	in.Sights, in.Acked = append(in.Sights, own), slices.Clone(own.Acked)
	r.hear(in, state.Self.ID)
	if r.asked != nil && r.asked.epoch == d.Epoch {
		in.Wish = &r.asked.wish
	}
	return in, nil
}

// sight is what this proxy sees of the leader, or of the one that is to be replaced.
func (r *Runner) sight(d *Decree, now topology.Instant) Sight {
	leader := d.Leader
	if leader == "" && d.Change != nil {
		leader = d.Change.Old
	}
	for _, p := range r.probes {
		if p.address == leader {
			return p.sight(d.Timeline, now, r.awake.since(now), r.interval())
		}
	}
	return Sight{Leader: leader}
}

// hear adds what the other voters report.
func (r *Runner) hear(in *Input, self string) {
	for _, other := range r.decider.Reports() {
		age := time.Since(other.At)
		var said Sight
		if other.Member == self || json.Unmarshal(other.Body, &said) != nil {
			continue
		}
		in.Acked = append(in.Acked, said.Acked...)
		if !other.Votes || age > r.o.Timeout {
			continue
		}
		if said.Silent > 0 {
			said.Silent += age
		}
		in.Sights = append(in.Sights, said)
	}
}

// report tells the coordinator what this proxy sees.
func (r *Runner) report(s Sight) {
	text, err := json.Marshal(s)
	if err == nil {
		err = r.decider.Report(text)
	}
	if err != nil {
		r.o.Log.Warn("failover: what this proxy sees cannot be reported", "error", err)
	}
}

// show publishes and logs what the runner is at, a line for each phase.
func (r *Runner) show(state *election.State, c *Change, s Step) {
	nodes := make([]Node, len(r.probes))
	for i, p := range r.probes {
		nodes[i] = p.node()
	}
	r.status.Store(&Status{Coordinates: state.Coordinates, Phase: s.Phase, Blocked: s.Blocked, Why: s.Why, Change: c, Nodes: nodes})
	if s.Phase == r.phase && s.Blocked == r.blocked && (s.Why == r.why || !s.Blocked) {
		return
	}
	level := slog.LevelInfo
	if s.Blocked || s.Phase == Suspect {
		level = slog.LevelWarn
	}
	if state.Coordinates && (s.Phase != Steady || r.phase != "") {
		r.o.Log.Log(context.Background(), level, "failover", "phase", string(s.Phase), "blocked", s.Blocked, "node", s.Node, "why", s.Why)
	}
	r.phase, r.blocked, r.why = s.Phase, s.Blocked, s.Why
}
