package admin

import (
	"maps"
	"math"
	"runtime"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
)

// collector turns a Snapshot into metrics at every scrape.
type collector struct {
	snapshot func() Snapshot
	version  string
}

// emit gives one value with the values of the metric's labels.
type emit func(value float64, labels ...string)

// metric is one family: how it is called and where in a Snapshot its values are.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	each  func(s *Snapshot, out emit)
	times func(s *Snapshot) *Histogram // in place of each
}

func gauge(name, help string, labels []string, each func(*Snapshot, emit)) metric {
	return metric{desc: prometheus.NewDesc("lsnproxy_"+name, help, labels, nil), kind: prometheus.GaugeValue, each: each}
}

func counter(name, help string, labels []string, each func(*Snapshot, emit)) metric {
	return metric{desc: prometheus.NewDesc("lsnproxy_"+name, help, labels, nil), kind: prometheus.CounterValue, each: each}
}

func histogram(name, help string, times func(*Snapshot) *Histogram) metric {
	return metric{desc: prometheus.NewDesc("lsnproxy_"+name, help, nil, nil), times: times}
}

// one is the value of a metric without labels.
func one[T int | int64 | uint64](value func(*Snapshot) T) func(*Snapshot, emit) {
	return func(s *Snapshot, out emit) { out(float64(value(s))) }
}

func perNode(value func(n *Node, out emit)) func(*Snapshot, emit) {
	return func(s *Snapshot, out emit) {
		for i := range s.Nodes {
			value(&s.Nodes[i], out)
		}
	}
}

func perReplica(value func(d *Distance, out func(float64))) func(*Snapshot, emit) {
	return func(s *Snapshot, out emit) {
		for i := range s.Watch.Replicas {
			r := &s.Watch.Replicas[i]
			value(&r.Write, func(v float64) { out(v, label(r.Application), r.Address, "write") })
			value(&r.Flush, func(v float64) { out(v, label(r.Application), r.Address, "flush") })
			value(&r.Replay, func(v float64) { out(v, label(r.Application), r.Address, "replay") })
		}
	}
}

func perPool(value func(*Pool) float64) func(*Snapshot, emit) {
	return func(s *Snapshot, out emit) {
		for i := range s.Pools {
			p := &s.Pools[i]
			out(value(p), p.Node, label(p.Database), label(p.User))
		}
	}
}

func perLoop[T int | uint64 | float64](value func(*Loop) T) func(*Snapshot, emit) {
	return func(s *Snapshot, out emit) {
		for i := range s.Loops {
			out(float64(value(&s.Loops[i])), strconv.Itoa(i))
		}
	}
}

var (
	byNode = []string{"node"}
	byRole = []string{"node", "role"}
	byPool = []string{"node", "database", "user"}
	byLoop = []string{"loop"}
	byLag  = []string{"application", "address", "lag"}
)

var families = slices.Concat(sessionMetrics, nodeMetrics, poolMetrics, loopMetrics)

var sessionMetrics = []metric{
	gauge("clients", "Clients connected.", nil, one(func(s *Snapshot) int64 { return s.Sessions.Connected })),
	counter("clients_accepted_total", "Clients that have connected.", nil, one(func(s *Snapshot) uint64 { return s.Sessions.Clients })),
	gauge("replication_connections", "Clients that are replication connections.", nil,
		one(func(s *Snapshot) int64 { return s.Sessions.Replicating })),
	counter("replication_connections_total", "Replication connections that have begun.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.Replications })),
	counter("reads_total", "Statements served by a node as reads, by their level of consistency and why they ran there.",
		[]string{"node", "role", "level", "reason"}, func(s *Snapshot, out emit) {
			for _, r := range s.Sessions.Reads {
				out(float64(r.Count), r.Node, r.Role, r.Level, r.Reason)
			}
		}),
	counter("writes_total", "Statements sent to the leader because they may write.", byRole,
		perNode(func(n *Node, out emit) { out(float64(n.Writes), n.Address, n.Role) })),
	counter("read_fallbacks_total", "Reads that no follower would do for, by what became of them and why.", []string{"to", "reason"},
		func(s *Snapshot, out emit) {
			for _, f := range s.Sessions.Fallbacks {
				out(float64(f.Count), f.To, f.Reason)
			}
		}),
	counter("replays_total", "Statements that a follower refused, with which SQLSTATE, and that were run again on the leader.", []string{"sqlstate"},
		func(s *Snapshot, out emit) {
			for _, code := range slices.Sorted(maps.Keys(s.Sessions.Replays)) {
				out(float64(s.Sessions.Replays[code]), code)
			}
		}),
	counter("retries_total", "Statements run again because the server connection was lost before anything was answered.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.Retries })),
	counter("silent_connections_total", "Server connections given up because nothing came from the follower.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.Silent })),
	histogram("read_wait_seconds", "Time reads have waited for a follower to apply what they must not miss.",
		func(s *Snapshot) *Histogram { return &s.Sessions.Waits }),
	counter("read_waits_spent_total", "Such waits that ended without a follower.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.WaitsSpent })),
	counter("guards_total", "Reads sent behind a question for the follower's position.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.Guards })),
	counter("guards_short_total", "Such reads whose answer was dropped because the follower was not there yet.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.GuardsShort })),
	counter("probes_total", "Positions asked for to learn what a session has written or read.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.Probes })),
	counter("aligned_total", "Server connections brought in line with the settings of the session they are lent to.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.Aligned })),
	counter("outcome_unknown_total", "Requests whose server connection was lost when they may have committed.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.OutcomeUnknown })),
	counter("lost_writes_total", "Sessions told that a write of theirs may have been lost in a failover.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.LostWrites })),
	counter("fates_unknown_total", "Sessions told that it is not known whether a failover has lost their last write.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.FatesUnknown })),
	counter("stale_reads_allowed_total", "Reads run on a follower that had not applied what their level asks for, because their policy allows it.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.StaleAllowed })),
	counter("tokens_imported_total", "Tokens that sessions were given by their clients.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.TokensImported })),
	counter("tokens_refused_total", "Tokens refused: malformed, of another system, or ahead of the leader.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.TokensRefused })),
	counter("cancels_total", "Cancel requests that were for a session.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.Cancels })),
	counter("panics_total", "Sessions ended by an error in the proxy's own code.", nil,
		one(func(s *Snapshot) uint64 { return s.Sessions.Panics })),
	gauge("sessions_pinned", "Sessions that hold on to a server connection because of what they have left there.", nil,
		one(func(s *Snapshot) int64 { return s.Sessions.Pinned })),
	counter("pins_total", "Times a session left something on its server connection that cannot be carried to another, by what.", []string{"reason"},
		func(s *Snapshot, out emit) {
			for _, reason := range slices.Sorted(maps.Keys(s.Sessions.Pins)) {
				out(float64(s.Sessions.Pins[reason]), reason)
			}
		}),
}

var nodeMetrics = []metric{
	gauge("node_state", "1 for the role and state a node is in.", []string{"node", "role", "state"},
		perNode(func(n *Node, out emit) { out(1, n.Address, n.Role, n.State) })),
	gauge("node_leader", "1 for the node that takes the writes, 0 for others.", byNode,
		perNode(func(n *Node, out emit) { out(truth(n.Leader), n.Address) })),
	gauge("node_lag_bytes", "Log that the leader has flushed and a follower has not applied; +Inf if not known.", byNode,
		perNode(func(n *Node, out emit) {
			if n.Follows {
				out(known(n.LagKnown, float64(n.LagBytes)), n.Address)
			}
		})),
	gauge("node_lag_seconds", "How long ago the leader was where a follower is; +Inf if not known.", byNode,
		perNode(func(n *Node, out emit) {
			if n.Follows {
				out(known(n.LagKnown, n.Lag.Seconds()), n.Address)
			}
		})),
	gauge("replication_lag_bytes", "Log that the leader has written and a replica has not written, flushed or replayed, by pg_stat_replication.", byLag,
		perReplica(func(d *Distance, out func(float64)) { out(float64(d.Bytes)) })),
	gauge("replication_lag_seconds", "How long the latest log that a replica has took to be written, flushed or replayed there, by pg_stat_replication.", byLag,
		perReplica(func(d *Distance, out func(float64)) {
			if d.Time >= 0 {
				out(d.Time.Seconds())
			}
		})),
	gauge("node_timeline", "Timeline of a node's position.", byNode, perNode(func(n *Node, out emit) {
		if n.Timeline != 0 {
			out(float64(n.Timeline), n.Address)
		}
	})),
	gauge("node_position_bytes", "Position in the log (LSN) that a follower has applied, or a leader written.", byNode,
		perNode(func(n *Node, out emit) {
			if n.Position != 0 {
				out(float64(n.Position), n.Address)
			}
		})),
	gauge("node_received_bytes", "Position in the log (LSN) up to which a node holds it.", byNode,
		perNode(func(n *Node, out emit) {
			if n.Received != 0 {
				out(float64(n.Received), n.Address)
			}
		})),
	gauge("node_sample_age_seconds", "How old the last sample of a node is.", byNode, perNode(func(n *Node, out emit) {
		if n.AgeKnown {
			out(n.Age.Seconds(), n.Address)
		}
	})),
	counter("node_samples_total", "Times a node answered the watcher.", byNode,
		perNode(func(n *Node, out emit) { out(float64(n.Samples), n.Address) })),
	counter("node_failures_total", "Times a node could not be connected to or did not answer the watcher.", byNode,
		perNode(func(n *Node, out emit) { out(float64(n.Failures), n.Address) })),
	gauge("timeline", "Highest timeline seen; a leader on a lower one is refused.", nil,
		func(s *Snapshot, out emit) { out(float64(s.Watch.Timeline)) }),
	gauge("watch_waiting", "Waits for a position that are open.", nil, one(func(s *Snapshot) int { return s.Watch.Waiting })),
	counter("watch_waits_total", "Waits for a position.", nil, one(func(s *Snapshot) uint64 { return s.Watch.Waits })),
	counter("watch_wakeups_total", "Waits for a position that ended because it was reached.", nil,
		one(func(s *Snapshot) uint64 { return s.Watch.Wakeups })),
	counter("nudges_total", "Times a quiet leader was made to flush its log because someone waited for it.", nil,
		one(func(s *Snapshot) uint64 { return s.Watch.Nudges })),
	gauge("failover_blocked", "1 while a change of the leader waits for a person or for a server, on the proxy that coordinates it.", nil,
		func(s *Snapshot, out emit) {
			if s.Changes.Blocked {
				out(1)
			} else {
				out(0)
			}
		}),
	counter("failover_steps_total", "Things this proxy has decided or done to servers to change or keep the leader.", nil,
		one(func(s *Snapshot) uint64 { return s.Changes.Steps })),
	counter("failover_step_failures_total", "Those that could not be carried out.", nil,
		one(func(s *Snapshot) uint64 { return s.Changes.Failures })),
	counter("failover_leaders_total", "Leaders that this proxy has decreed.", nil,
		one(func(s *Snapshot) uint64 { return s.Changes.Leaders })),
	counter("nudge_failures_total", "Nudges that could not be carried out.", nil,
		one(func(s *Snapshot) uint64 { return s.Watch.NudgeFailures })),
}

var poolMetrics = []metric{
	gauge("pool_open", "Server connections open.", byPool, perPool(func(p *Pool) float64 { return float64(p.Open) })),
	gauge("pool_idle", "Server connections that nobody uses.", byPool, perPool(func(p *Pool) float64 { return float64(p.Idle) })),
	gauge("pool_waiting", "Sessions that wait for a server connection.", byPool, perPool(func(p *Pool) float64 { return float64(p.Waiting) })),
	counter("pool_opened_total", "Server connections opened.", byPool, perPool(func(p *Pool) float64 { return float64(p.Opened) })),
	counter("pool_failed_total", "Server connections that could not be opened.", byPool, perPool(func(p *Pool) float64 { return float64(p.Failed) })),
	counter("pool_destroyed_total", "Server connections closed.", byPool, perPool(func(p *Pool) float64 { return float64(p.Destroyed) })),
	counter("pool_timeouts_total", "Sessions that got no server connection in time.", byPool, perPool(func(p *Pool) float64 { return float64(p.TimedOut) })),
	counter("pool_lent_total", "Times a server connection was lent to a session.", byPool, perPool(func(p *Pool) float64 { return float64(p.Lent) })),
	counter("pool_wait_seconds_total", "Time sessions have waited for a server connection, added up.", byPool,
		perPool(func(p *Pool) float64 { return p.Waited.Seconds() })),
}

var loopMetrics = []metric{
	gauge("loop_connections", "Connections attached to an event loop.", byLoop, perLoop(func(l *Loop) int { return l.Connections })),
	gauge("loop_tasks", "Tasks of a loop that have begun and not ended.", byLoop, perLoop(func(l *Loop) int { return l.Tasks })),
	gauge("loop_tasks_runnable", "Tasks of a loop that run or have their turn coming.", byLoop, perLoop(func(l *Loop) int { return l.Runnable })),
	gauge("loop_buffers", "Buffers in use on a loop.", byLoop, perLoop(func(l *Loop) int { return l.Buffers })),
	gauge("loop_courteous", "1: the loop has many tasks in flight, and waits for a free processor instead of interrupting others.", byLoop,
		perLoop(func(l *Loop) float64 { return truth(l.Courteous) })),
	counter("loop_turns_total", "Passes through a loop.", byLoop, perLoop(func(l *Loop) uint64 { return l.Turns })),
	counter("loop_wakeups_total", "Passes that began because another goroutine wanted something.", byLoop, perLoop(func(l *Loop) uint64 { return l.Wakeups })),
	counter("loop_resumes_total", "Times a task was begun or resumed.", byLoop, perLoop(func(l *Loop) uint64 { return l.Resumes })),
	counter("loop_stalls_total", "Times a task kept its loop for too long.", byLoop, perLoop(func(l *Loop) uint64 { return l.Stalls })),
	counter("loop_panics_total", "Tasks and functions on a loop that ended by an error in the proxy's own code.", byLoop, perLoop(func(l *Loop) uint64 { return l.Panics })),
}

var buildInfo = prometheus.NewDesc("lsnproxy_build_info", "1, with what the program was built from.", []string{"version", "goversion"}, nil)

// Describe is part of prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- buildInfo
	for _, m := range families {
		out <- m.desc
	}
}

// Collect is part of prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(buildInfo, prometheus.GaugeValue, 1, c.version, runtime.Version())
	s := c.snapshot()
	for _, m := range families {
		if m.times != nil {
			out <- m.times(&s).metric(m.desc)
			continue
		}
		m.each(&s, func(value float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
		})
	}
}

// metric is h as Prometheus has it: with the counts added up.
func (h *Histogram) metric(desc *prometheus.Desc) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Bounds))
	sum := uint64(0)
	for i, count := range h.Counts {
		if sum += count; i < len(h.Bounds) {
			buckets[h.Bounds[i].Seconds()] = sum
		}
	}
	return prometheus.MustNewConstHistogram(desc, sum, h.Sum.Seconds(), buckets)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// known is value, or +Inf in place of one that is not known: an alert on too
// much lag must fire then too.
func known(ok bool, value float64) float64 {
	if !ok {
		return math.Inf(1)
	}
	return value
}

// label makes a name that a client has chosen fit for a label, which must be UTF-8.
func label(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	return strconv.QuoteToASCII(name)
}
