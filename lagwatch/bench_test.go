package lagwatch

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/topology"
)

// BenchmarkReadYourWrite commits, learns the token and waits until the follower
// has it, one at a time. It reports the medians and the 99th percentiles from
// the acknowledgement to the token, and to the follower.
func BenchmarkReadYourWrite(b *testing.B) {
	c := pgtest.Start(b, pgcluster.Options{Followers: 1, Settings: quietSettings})
	w := watch(b, Options{}, c.Nodes()...)
	w.shows("leader 0: usable usable")
	conn := dialNode(b, c.Leader())
	exec(b, conn, "CREATE TABLE kept (k bigint)")
	var tokens, reads []time.Duration
	for b.Loop() {
		exec(b, conn, "INSERT INTO kept VALUES (1)")
		acknowledged := time.Now()
		token := w.token()
		tokens = append(tokens, time.Since(acknowledged))
		need, ready := covered(1, token)
		w.until("the follower has it", need, ready)
		reads = append(reads, time.Since(acknowledged))
	}
	for what, all := range map[string][]time.Duration{"token": tokens, "read": reads} {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds()), what+"-p50-us")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), what+"-p99-us")
	}
	b.ReportMetric(float64(w.Stat().Nudges)/float64(b.N), "nudges/op")
}

// BenchmarkDemand reports what sampling one follower for a waiting reader costs
// the watcher's process: CPU per sample, and samples per second.
func BenchmarkDemand(b *testing.B) {
	c := pgtest.Start(b, pgcluster.Options{Followers: 1, Settings: quietSettings})
	w := watch(b, Options{}, c.Nodes()...)
	w.shows("leader 0: usable usable")
	used := func() time.Duration {
		var r syscall.Rusage
		must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	first, cpu, begun := w.Stat().Nodes[1].Samples, used(), time.Now()
	for b.Loop() {
		w.within(100*time.Millisecond, Need{Followers: true, Node: -1}, func(*topology.View) bool { return false })
	}
	samples := float64(w.Stat().Nodes[1].Samples - first)
	b.ReportMetric(samples/time.Since(begun).Seconds(), "samples/s")
	b.ReportMetric(float64((used()-cpu).Microseconds())/samples, "cpu-us/sample")
}
