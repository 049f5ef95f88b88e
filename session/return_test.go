package session_test

import (
	"strings"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// TestReturn: a session that had to leave its follower goes back to it when that
// has caught up, though it does not write and could stay where it is.
func TestReturn(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 2})
	p := startProxy(t, c, func(s *settings) {
		s.watch.MaxLagBytes = 64 << 10
		s.session.Return = 10 * time.Millisecond
	})
	p.awaitFollowers(t, 2)
	writer, conn := p.at(t, ""), p.at(t, "")
	must(t, writer, "create table returned(t text)")
	read := func() string {
		must(t, conn, "select 1 from returned limit 1")
		return served(t, conn)
	}
	own := ""
	eventually(t, "a read on a follower", func() bool { own = read(); return own != c.Leader().Addr() })
	for _, f := range c.Followers() {
		if f.Addr() != own {
			continue
		}
		if err := f.PauseReplay(t.Context()); err != nil {
			t.Fatal(err)
		}
		must(t, writer, "insert into returned select repeat('x', 1000) from generate_series(1, 200)")
		p.awaitFollowers(t, 1)
		if now := read(); now == own || now == c.Leader().Addr() {
			t.Errorf("read on %s while %s lags", now, own)
		}
		if err := f.ResumeReplay(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	p.awaitFollowers(t, 2)
	eventually(t, "a read on its own follower again", func() bool { return read() == own })
	returned := uint64(0)
	for _, r := range p.server.Stat().ReadsBy {
		if strings.HasPrefix(r.Why, "returns") {
			returned += r.Count
		}
	}
	if returned == 0 {
		t.Error("it was for another reason")
	}
}
