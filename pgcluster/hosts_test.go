package pgcluster_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// TestHosts: servers on hosts of their own replicate, miss what is written while they
// are cut off from each other, and get it afterwards; from here both are reached all the
// time.
func TestHosts(t *testing.T) {
	w, err := pgcluster.NewNetwork(2)
	if errors.Is(err, pgcluster.ErrNoHosts) {
		t.Skip(err)
	}
	pgtest.Must(t, err)
	t.Cleanup(w.Close)
	c := pgtest.Start(t, pgcluster.Options{Followers: 1, Hosts: w.Hosts})
	count := func(n *pgcluster.Node) (count int) {
		conn, err := pgx.Connect(t.Context(), n.URL("postgres"))
		pgtest.Must(t, err)
		defer conn.Close(context.Background())
		pgtest.Must(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&count))
		return count
	}
	leader, err := pgx.Connect(t.Context(), c.Leader().URL("postgres"))
	pgtest.Must(t, err)
	defer leader.Close(context.Background())
	write := func() {
		_, err := leader.Exec(t.Context(), "CREATE TABLE IF NOT EXISTS t (a int); INSERT INTO t VALUES (1)")
		pgtest.Must(t, err)
	}
	follower := c.Followers()[0]
	write()
	pgtest.Must(t, c.WaitStreaming(t.Context()))
	pgtest.Eventually(t, "the first row is there", func() bool { return count(follower) == 1 })

	pgtest.Must(t, w.Hosts[0].Cut(w.Hosts[1]))
	write()
	time.Sleep(300 * time.Millisecond)
	if n := count(follower); n != 1 {
		t.Errorf("cut off, and it has %d rows", n)
	}
	pgtest.Must(t, w.Heal())
	pgtest.Eventually(t, "the second row is there", func() bool { return count(follower) == 2 })
}
