// Package pgtest starts clusters for tests.
package pgtest

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/pgcluster"
)

// Start starts a cluster, waits until its followers have all of the leader's
// log, and stops it when the test ends. Without PostgreSQL the test fails with
// the command that installs it: a test that needs a database is never skipped.
func Start(t testing.TB, o pgcluster.Options) *pgcluster.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := pgcluster.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			logTails(t, c)
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	if o.ApplyDelay == 0 {
		if err := c.WaitStreaming(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// logTails shows what the servers said last.
func logTails(t testing.TB, c *pgcluster.Cluster) {
	const most = 2000
	for _, n := range c.Nodes() {
		if log, err := os.ReadFile(n.LogFile()); err == nil {
			t.Logf("log of %s ends:\n%s", n.Name(), log[max(0, len(log)-most):])
		}
	}
}
