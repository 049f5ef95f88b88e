package session_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/internal/history"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// levels says what each level guarantees, and what it does not: that a history of
// it breaks, given the occasion, which shows that the judge can tell.
var levels = []struct {
	name         string
	keeps, lacks []history.Guarantee
}{
	{"leader", everything, nil},
	{"strong", everything, nil},
	{
		"service",
		[]history.Guarantee{history.Written, history.Session, history.Service},
		[]history.Guarantee{history.Linearizable},
	},
	{
		"session",
		[]history.Guarantee{history.Written, history.Session},
		[]history.Guarantee{history.Bounded, history.Service, history.Linearizable},
	},
	{
		"bounded",
		[]history.Guarantee{history.Written, history.Bounded},
		[]history.Guarantee{history.Session, history.Service, history.Linearizable},
	},
	{
		"eventual",
		[]history.Guarantee{history.Written},
		[]history.Guarantee{history.Bounded, history.Session, history.Service, history.Linearizable},
	},
}

var everything = []history.Guarantee{
	history.Written, history.Bounded, history.Session, history.Service, history.Linearizable,
}

// atLevel is a history at a level through two proxies. Sessions move between them
// with their tokens; a quarter only read.
func atLevel(level string, proxies []*proxy) history.Options {
	o := history.Options{
		Sessions: 32, Readers: 8,
		Params:    map[string]string{"lsnproxy.consistency": level},
		NodeQuery: "SHOW lsnproxy.node",
		Token:     "lsnproxy.token",
	}
	for _, p := range proxies {
		o.Addresses = append(o.Addresses, p.addr)
	}
	return o
}

// awaitReads waits until followers serve reads of a table.
func (p *proxy) awaitReads(t testing.TB, table string) {
	t.Helper()
	conn := p.connect(t, "default_query_exec_mode=simple_protocol")
	awaitFollower(t, conn, "SELECT FROM "+table)
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestGuarantees: on followers that apply everything late, each level keeps what it
// guarantees and nothing beyond it.
func TestGuarantees(t *testing.T) {
	const late = 100 * time.Millisecond
	c := pgtest.Start(t, pgcluster.Options{Followers: 2, ApplyDelay: late})
	var proxies []*proxy
	for range 3 {
		p := startProxy(t, c, func(s *settings) { s.session.Policy.Wait = 3 * late })
		p.awaitFollowers(t, 2)
		proxies = append(proxies, p)
	}
	for _, level := range levels {
		t.Run(level.name, func(t *testing.T) {
			o := atLevel(level.name, proxies[:2])
			o.Pairs = 16
			o.Ready = func(ctx context.Context) error {
				for _, p := range proxies {
					p.awaitReads(t, "history_shared")
				}
				return c.WaitStreaming(ctx)
			}
			o.Bound = late / 2
			switch level.name {
			case "bounded":
				o.Bound = 2 * late
				o.Params["lsnproxy.staleness"] = fmt.Sprintf("%dms", o.Bound.Milliseconds())
			case "service":
				o.ReadersAt = []string{proxies[2].addr} // it hears of no write
			}
			r, err := history.Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%v", r)
			if len(r.Errors) > 0 {
				t.Errorf("errors: %v", r.Errors)
			}
			if !r.Keeps(level.keeps...) {
				t.Errorf("not kept: %v", r.Violations)
			}
			for _, g := range level.lacks {
				if r.Keeps(g) {
					t.Errorf("nothing was found against %v", g)
				}
			}
		})
	}
}
