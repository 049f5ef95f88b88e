package pgcluster_test

import (
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

func TestClusterStreams(t *testing.T) {
	begin := time.Now()
	c := pgtest.Start(t, pgcluster.Options{Followers: 2})
	t.Log("started in", time.Since(begin))
	begin = time.Now()
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	t.Log("stopped in", time.Since(begin))
}
