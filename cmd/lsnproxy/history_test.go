package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lsnproxy/lsnproxy/internal/history"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// TestTokensBetweenProcesses: sessions go from one process to the other and back,
// with nothing but their token, before followers that apply late. They miss nothing
// that they have written or read; at level strong, nothing that anybody has.
func TestTokensBetweenProcesses(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 2, ApplyDelay: 50 * time.Millisecond})
	var addresses []string
	for range 2 {
		args := []string{"serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--set", "reads.wait=200ms"}
		for _, n := range c.Nodes() {
			args = append(args, "--node", n.Addr())
		}
		m := run(t, args...).find(`msg=serving .*clients=(\S+) http=(\S+)`)
		wantReady(t, m[2], 200, "usable followers: 2 of 2")
		addresses = append(addresses, m[1])
	}
	for _, test := range []struct {
		level string
		keeps []history.Guarantee
		lacks history.Guarantee
	}{
		{"session", []history.Guarantee{history.Written, history.Session}, history.Linearizable},
		{"strong", []history.Guarantee{history.Written, history.Session, history.Service, history.Linearizable}, history.Guarantees},
	} {
		r, err := history.Run(t.Context(), history.Options{
			Addresses: addresses, Sessions: 16, Readers: 4, Pairs: 20,
			Params: map[string]string{"lsnproxy.consistency": test.level},
			Token:  "lsnproxy.token", MoveEvery: 2,
			Ready: func(ctx context.Context) error {
				for _, a := range addresses {
					awaitReads(t, a, "history_shared")
				}
				return c.WaitStreaming(ctx)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %v", test.level, r)
		if !r.Keeps(test.keeps...) {
			t.Errorf("%s: not kept: %v", test.level, r.Violations)
		}
		if test.lacks < history.Guarantees && r.Keeps(test.lacks) {
			t.Errorf("%s: nothing was found against %v", test.level, test.lacks)
		}
		if len(r.Errors) > 0 || r.Sessions != 16 {
			t.Errorf("%s: %d sessions, errors %v", test.level, r.Sessions, r.Samples)
		}
	}
}

// awaitReads waits until followers serve reads of a table through a proxy: its
// definition has to be known first, and a run that is over by then shows nothing.
func awaitReads(t *testing.T, address, table string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), "postgres://postgres@"+address+"/postgres?sslmode=disable&default_query_exec_mode=simple_protocol")
	pgtest.Must(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	pgtest.Eventually(t, "followers serve reads of "+table, func() bool {
		_, err := conn.Exec(t.Context(), "SELECT FROM "+table)
		pgtest.Must(t, err)
		var node string
		pgtest.Must(t, conn.QueryRow(t.Context(), "SHOW lsnproxy.node").Scan(&node))
		return strings.Contains(node, "follower:")
	})
}
