//go:build torture

package session_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/internal/history"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

var levelTime = flag.Duration("level.time", 2*time.Minute, "how long to try each level")

// TestTortureLevels tries each level through two proxies on a cluster to which one
// thing after another happens, and prints what stands against which guarantee.
func TestTortureLevels(t *testing.T) {
	var table strings.Builder
	table.WriteString("| level | sessions | writes | reads |")
	for _, g := range everything {
		fmt.Fprintf(&table, " %v |", g)
	}
	table.WriteString("\n|---|--:|--:|--:|" + strings.Repeat("--:|", len(everything)) + "\n")
	defer func() { t.Logf("operations and violations; what a level guarantees is in stars\n%s", table.String()) }()

	for _, level := range levels {
		t.Run(level.name, func(t *testing.T) {
			c := pgtest.Start(t, pgcluster.Options{Followers: 2, Faults: true, FaultReplication: true})
			var proxies []*proxy
			for range 2 {
				p := startProxy(t, c, func(s *settings) {
					s.links = true
					s.watch.MaxLag = 500 * time.Millisecond
					s.session.Return = 10 * time.Millisecond // followers come and go
				})
				p.awaitFollowers(t, 2)
				proxies = append(proxies, p)
			}
			o := atLevel(level.name, proxies)
			o.Duration, o.Ready = *levelTime, c.WaitStreaming
			o.Bound = 50 * time.Millisecond
			if level.name == "bounded" {
				o.Params["lsnproxy.staleness"] = "50ms"
			}
			happened := make(map[string]int)
			o.Meanwhile = func(ctx context.Context) error { return disturb(ctx, c, proxies, happened) }
			r, err := history.Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%v", r)
			for _, what := range slices.Sorted(maps.Keys(happened)) {
				t.Logf("%d times: %s", happened[what], what)
			}
			table.WriteString(row(level.name, level.keeps, r))
			if !r.Keeps(level.keeps...) {
				t.Errorf("not kept: %v", r.Violations)
			}
			for _, g := range level.lacks {
				if r.Keeps(g) {
					t.Errorf("nothing was found against %v", g)
				}
			}
			for code, n := range r.Errors {
				if !slices.Contains(excusable, code) {
					t.Errorf("%d times %s: %s", n, code, r.Samples[code])
				}
			}
			for _, p := range proxies {
				if st := p.server.Stat(); st.Waits == 0 && level.name != "leader" && level.name != "eventual" || reads(st.Reads[1:]) == 0 && level.name != "leader" {
					t.Errorf("nothing was put to the test: %+v", st)
				}
			}
		})
	}
}

// excusable are the errors that a connection which is reset, or a follower which is
// killed, may bring a session.
var excusable = []string{
	"08006", // the connection of a transaction was lost
	"08007", // and it is not known what became of it
	"57P01", // the follower of a read-only transaction ended
	"40001", // replay had to go on
}

// row tells what stands against a level in one line of a table.
func row(level string, keeps []history.Guarantee, r *history.Result) string {
	line := fmt.Sprintf("| %s | %d | %d | %d |", level, r.Sessions, r.Writes, r.Reads)
	for _, g := range everything {
		cell := fmt.Sprint(r.Against(g))
		if slices.Contains(keeps, g) {
			cell = "**" + cell + "**"
		}
		line += " " + cell + " |"
	}
	return line + "\n"
}

// disturb lets one thing after another happen until ctx ends, and leaves the
// cluster whole. It counts what has happened.
func disturb(ctx context.Context, c *pgcluster.Cluster, proxies []*proxy, happened map[string]int) error {
	whole := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		f := c.Followers()[rand.IntN(len(c.Followers()))]
		p := proxies[rand.IntN(len(proxies))]
		link := p.links[rand.IntN(len(p.links))]
		var what string
		var err error
		switch rand.IntN(8) {
		case 0:
			what = "a follower applies late"
			err = f.SetApplyDelay(whole, some(200*time.Millisecond))
			wait(ctx, some(3*time.Second))
			err = errors.Join(err, f.SetApplyDelay(whole, 0))
		case 1:
			what = "replay pauses"
			err = f.PauseReplay(whole)
			wait(ctx, some(400*time.Millisecond))
			err = errors.Join(err, f.ResumeReplay(whole))
		case 2:
			what = "replay pauses until the follower is switched out by lag"
			err = f.PauseReplay(whole)
			wait(ctx, time.Second+some(time.Second))
			err = errors.Join(err, f.ResumeReplay(whole))
		case 3:
			what = "a follower is killed and starts again"
			err = f.Kill()
			wait(ctx, some(time.Second))
			err = errors.Join(err, f.Start(whole))
		case 4:
			what = "the network between a proxy and a server is slow"
			link.SetDelay(some(20 * time.Millisecond))
			wait(ctx, some(3*time.Second))
			err = link.Heal()
		case 5:
			what = "the network before the leader is slow, for replication too"
			c.Leader().Network().SetDelay(some(20 * time.Millisecond))
			wait(ctx, some(2*time.Second))
			err = c.Leader().Network().Heal()
		case 6:
			what = "the connections between a proxy and a server are reset"
			link.Reset()
		case 7:
			what = "nothing"
			wait(ctx, some(2*time.Second))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		happened[what]++
		wait(ctx, some(300*time.Millisecond))
	}
	return nil
}

// some draws a time up to d.
func some(d time.Duration) time.Duration { return rand.N(d) + 1 }
