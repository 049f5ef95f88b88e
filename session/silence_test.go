package session_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/pgcluster"
)

// silent is a proxy whose way to its servers can fall silent, and which notices that after a while.
func silent(t *testing.T, after time.Duration) *proxy {
	p := startProxy(t, shared.cluster, func(s *settings) {
		linked(s)
		s.watch.Timeout = after
		s.session.Silence = after
	})
	p.awaitFollowers(t, 2)
	p.awaitDefinitions(t)
	return p
}

// silence makes the follower that serves a session vanish without a word.
func (p *proxy) silence(t *testing.T, r *raw) {
	t.Helper()
	p.awaitRead(t, r)
	node := slices.IndexFunc(p.links, func(l *pgcluster.Link) bool {
		return strings.HasPrefix(r.shown("node"), l.Addr()+" follower")
	})
	if node < 0 {
		t.Fatalf("none of the links leads to %s", r.shown("node"))
	}
	p.links[node].Blackhole()
	t.Cleanup(func() { _ = p.links[node].Heal() })
}

// TestReadOnSilentFollower: a read on its way to a follower that vanishes runs elsewhere.
func TestReadOnSilentFollower(t *testing.T) {
	for _, ask := range []turn{query("select 2"), flight(parse("", "select 2"), bind("", ""), execute("", 0), sync)} {
		p := silent(t, 250*time.Millisecond)
		r := p.dialRaw(t, nil)
		p.silence(t, r)
		got := r.say(ask)
		if len(got) < 3 || got[len(got)-3] != "DataRow 2" {
			t.Errorf("%q", got)
		}
		r.expect(query("select 3"), "RowDescription", "DataRow 3", "CommandComplete SELECT 1", "ReadyForQuery I")
	}
}

// TestTransactionOnSilentFollower: one that is READ ONLY fails, be it at rest or not.
func TestTransactionOnSilentFollower(t *testing.T) {
	const lost = "ErrorResponse 08006 no answer comes from the server"
	for _, resting := range []bool{false, true} {
		p := silent(t, 250*time.Millisecond)
		r := p.dialRaw(t, nil)
		p.awaitRead(t, r)
		r.say(query("begin read only"))
		p.silence(t, r)
		if resting {
			eventually(t, "the connection is given up", func() bool { return p.server.Stat().Silent > 0 })
		}
		r.expect(query("select 2"), lost, "ReadyForQuery E")
		r.say(query("rollback"))
		r.expect(query("select 3"), "RowDescription", "DataRow 3", "CommandComplete SELECT 1", "ReadyForQuery I")
	}
}

// awaitRead waits until reads of the session go to a follower.
func (p *proxy) awaitRead(t *testing.T, r *raw) {
	t.Helper()
	eventually(t, "a read on a follower", func() bool {
		r.say(query("select 1"))
		return strings.Contains(r.shown("node"), " follower")
	})
}

// TestLongReadIsNotSilence: a statement may take its time on a server that answers others.
func TestLongReadIsNotSilence(t *testing.T) {
	p := silent(t, 2*time.Second) // a busy machine may keep a follower from answering for a moment
	r := p.dialRaw(t, nil)
	p.awaitRead(t, r)
	r.expect(query("select pg_sleep(3)"), "RowDescription", "DataRow ", "CommandComplete SELECT 1", "ReadyForQuery I")
	if n := p.server.Stat().Silent; n != 0 {
		t.Errorf("%d connections were given up", n)
	}
}
