package session_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// at connects with variables of the proxy set, such as "consistency=strong".
func (p *proxy) at(t *testing.T, variables string) *pgx.Conn {
	t.Helper()
	options := ""
	for _, v := range strings.Fields(variables) {
		options += " -c lsnproxy." + v
	}
	return p.connect(t, "default_query_exec_mode=simple_protocol&options="+escape(options))
}

// escape makes text fit for a connection URL: a plus sign is not a space there.
func escape(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

// TestLevels: with all followers stopped in time, each level misses what it may
// miss and nothing else. What a level may miss it does miss here, which is what
// shows that the test can fail.
func TestLevels(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 2})
	p := startProxy(t, c, nil)
	p.awaitFollowers(t, 2)
	leader := c.Leader().Addr()
	writer := p.at(t, "")
	must(t, writer, "create table n(i int)", "insert into n values (0)")
	eventually(t, "the row on a follower", func() bool {
		return count(t, writer, "select i from n") == 0 && served(t, writer) != leader
	})
	other, err := pgx.Connect(t.Context(), c.Leader().URL("postgres")) // past the proxy
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(t.Context())

	readers := map[string]*pgx.Conn{}
	for _, variables := range []string{
		"consistency=leader", "consistency=strong", "consistency=service", "consistency=session", "consistency=eventual",
		"consistency=bounded staleness=1h", "consistency=bounded staleness=100ms", "consistency=bounded staleness=1GB",
		"consistency=bounded staleness=1B", "consistency=bounded staleness=1h,1B",
		"consistency=strong fallback=error", "consistency=strong fallback=stale",
	} {
		readers[variables] = p.at(t, variables)
		if got := count(t, readers[variables], "select i from n"); got != 0 {
			t.Fatalf("%s: the table says %d at the beginning", variables, got)
		}
	}
	for _, f := range c.Followers() {
		if err := f.PauseReplay(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := other.Exec(t.Context(), "update n set i = 1"); err != nil {
		t.Fatal(err)
	}
	// The watcher must have heard of it before a bound can say how old it is.
	eventually(t, "the leader's new position", func() bool {
		v := p.board.View()
		return v.Nodes[1].LagBytes > 0 && v.Nodes[2].LagBytes > 0
	})
	time.Sleep(200 * time.Millisecond) // it is to be older than a bound
	check := func(variables string, want int) {
		t.Helper()
		if got := count(t, readers[variables], "select i from n"); got != want {
			t.Errorf("%s: %d, want %d; served by %s", variables, got, want, served(t, readers[variables]))
		}
	}
	check("consistency=leader", 1)
	check("consistency=strong", 1)
	check("consistency=service", 0) // the proxy was not told of it
	check("consistency=session", 0)
	check("consistency=eventual", 0)
	check("consistency=bounded staleness=1h", 0)
	check("consistency=bounded staleness=100ms", 1)
	check("consistency=bounded staleness=1GB", 0)
	check("consistency=bounded staleness=1B", 1)
	check("consistency=bounded staleness=1h,1B", 1)
	check("consistency=strong fallback=stale", 0)
	_, err = readers["consistency=strong fallback=error"].Exec(t.Context(), "select i from n")
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "LS002" || e.Hint == "" {
		t.Errorf("fallback=error: %v", err)
	}

	must(t, writer, "update n set i = 2") // through the proxy
	if got := count(t, writer, "select i from n"); got != 2 {
		t.Errorf("the writer reads %d", got)
	}
	check("consistency=service", 2)
	check("consistency=session", 0)
	check("consistency=eventual", 0)
	check("consistency=strong", 2)
	// For one statement, in a comment, prepared or not.
	for _, mode := range []string{"simple_protocol", "cache_statement", "exec"} {
		hinting := p.connect(t, "default_query_exec_mode="+mode)
		for range 2 {
			for sql, want := range map[string]int{
				"/* lsnproxy: consistency=strong */ select i from n":                       2,
				"select i from n /*lsnproxy_consistency='eventual'*/":                      0,
				"/* lsnproxy: token=" + show(t, writer, "token") + " */ select i+0 from n": 2,
			} {
				session := hinting
				if strings.Contains(sql, "token") {
					session = p.connect(t, "default_query_exec_mode="+mode)
				}
				var got int
				if err := session.QueryRow(t.Context(), sql).Scan(&got); err != nil || got != want {
					t.Errorf("%s: %q gives %d, %v; want %d", mode, sql, got, err, want)
				}
			}
		}
		if got := sqlstate(t, hinting, "/* lsnproxy: consistency=sesion */ select 1"); got != "22023" {
			t.Errorf("a bad hint: %q", got)
		}
		must(t, hinting, "/* lsnproxy: consistency=strong */ begin read only")
		if got := count(t, hinting, "select i from n"); got != 2 {
			t.Errorf("a read-only transaction at strong: %d", got)
		}
		must(t, hinting, "commit")
	}
	if s := p.server.Stat(); s.StaleAllowed == 0 {
		t.Error("no stale read was counted")
	}

	for _, f := range c.Followers() {
		if err := f.ResumeReplay(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for variables, r := range readers {
		eventually(t, variables+": the follower's present state", func() bool {
			return strings.Contains(variables, "=leader") || strings.Contains(variables, "=error") || count(t, r, "select i from n") == 2 && served(t, r) != leader
		})
	}
}

// TestNoFollower: what reads do when no follower is usable.
func TestNoFollower(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	p := startProxy(t, c, func(s *settings) { s.watch.MaxLagBytes = 1 })
	p.awaitFollowers(t, 1)
	writer := p.at(t, "")
	must(t, writer, "create table n(i int)", "insert into n values (0)")
	reader := map[string]*pgx.Conn{}
	for _, f := range []string{"leader", "error", "stale"} {
		reader[f] = p.at(t, "consistency=eventual fallback="+f)
	}
	awaitFollower(t, reader["leader"], "select i from n")
	if err := c.Followers()[0].PauseReplay(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, writer, "update n set i = 1")
	p.awaitFollowers(t, 0)
	if got := count(t, reader["leader"], "select i from n"); got != 1 {
		t.Errorf("fallback=leader: %d", got)
	}
	if got := count(t, reader["stale"], "select i from n"); got != 0 {
		t.Errorf("fallback=stale: %d", got)
	}
	_, err := reader["error"].Exec(t.Context(), "select i from n")
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "LS002" {
		t.Errorf("fallback=error: %v", err)
	}
	if err := c.Followers()[0].ResumeReplay(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.awaitFollowers(t, 1)
}

// TestBadStartupVariables: a client is told what is wrong with them.
func TestBadStartupVariables(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	for options, want := range map[string]string{
		"consistency=sesion": "22023", "wait=50": "22023", "nonsense=1": "42704", "node=x": "42704",
	} {
		_, err := pgx.Connect(t.Context(), p.url("options="+escape("-c lsnproxy."+options)))
		var e *pgconn.PgError
		if !errors.As(err, &e) || e.Code != want {
			t.Errorf("%s: %v, want %s", options, err, want)
		}
	}
}
