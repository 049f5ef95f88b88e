package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lsnproxy/lsnproxy/admin"
	"github.com/lsnproxy/lsnproxy/internal/history"
	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// row is one row of the workload. Session 0 has the shared ones.
type row struct{ session, key int }

// content is what a server holds: versions of rows, those without one are absent.
type content map[row]int64

// contentOf reads it.
func contentOf(t *testing.T, url string) content {
	conn, err := pgx.Connect(t.Context(), url)
	pgtest.Must(t, err)
	defer conn.Close(context.Background())
	all := make(content)
	var k row
	var version int64
	rows, err := conn.Query(t.Context(), "SELECT session, key, version FROM history_own UNION ALL SELECT 0, key, version FROM history_shared")
	pgtest.Must(t, err)
	_, err = pgx.ForEachRow(rows, []any{&k.session, &k.key, &version}, func() error { all[k] = version; return nil })
	pgtest.Must(t, err)
	return all
}

// lostWrites are the acknowledged writes that cannot be in a server's present state:
// of each session's own rows the last one, of the shared ones all whose version is above
// the present one or was given again, on a later timeline.
func lostWrites(events []history.Event, now content) (lost []history.Event) {
	type version struct{ key, number int64 }
	last := make(map[row]history.Event)
	unsure := make(map[row]bool) // a write of unknown outcome came later
	again := make(map[version]history.Event)
	for _, e := range events {
		k := row{e.Key.Owner, e.Key.N}
		switch {
		case e.Kind == history.Read:
		case e.Outcome == history.Unknown:
			unsure[k] = true
		case e.Outcome == history.Acked && k.session == 0:
			v := version{int64(k.key), e.Version}
			other, twice := again[v]
			if twice && before(e, other) {
				e, other = other, e
			}
			if again[v] = e; twice {
				lost = append(lost, other)
			}
			if e.Version > now[k] {
				lost = append(lost, e)
			}
		case e.Outcome == history.Acked:
			last[k], unsure[k] = e, false
		}
	}
	for k, e := range last {
		if found := now[k]; !unsure[k] && (e.Absent && found != 0 || !e.Absent && found != e.Version) {
			lost = append(lost, e)
		}
	}
	return lost
}

// before reports whether a write was made before another: by their timelines, because an
// answer may come late.
func before(a, b history.Event) bool {
	at, _ := lsn.ParseToken(a.Token)
	bt, _ := lsn.ParseToken(b.Token)
	return cmp.Or(cmp.Compare(at.Timeline, bt.Timeline), cmp.Compare(a.End, b.End)) < 0
}

// reign is one proxy's time under one leader.
type reign struct {
	proxy    string
	timeline uint32
}

// account is what has to explain the writes that were lost.
type account struct {
	past    lsn.History             // of the present leader's timeline
	changes []admin.Failover        // the record
	ends    map[int]string          // history.Result.Ends
	died    map[reign]bool          // proxies that died with the leader, and all that only they knew
	tell    func(token string) bool // whether a session that comes with token is told that it stands for something lost
}

// of finds what the account does not explain: what a failover has lost lies within what
// its record says was lost at most, and every session that it hit was told.
func (a *account) of(lost []history.Event) (wrong []string, told map[string]int) {
	told = make(map[string]int)
	for _, e := range lost {
		token, err := lsn.ParseToken(e.Token)
		if err != nil || e.Token == "" {
			wrong = append(wrong, fmt.Sprintf("lost without a token to tell by: %v", e))
			continue
		}
		if why := a.beyond(token.Position); why != "" && !a.died[reign{e.Through, token.Timeline}] {
			wrong = append(wrong, fmt.Sprintf("%s: %v, token %s", why, e, e.Token))
		}
		switch how := a.ends[e.Session]; {
		case how == "LS001", how == "LS003":
			told[how]++
		case how != "" && a.tell(e.Token):
			told["LS001 by its token, after: "+how]++
		default:
			wrong = append(wrong, fmt.Sprintf("session was not told (%q): %v", how, e))
		}
	}
	return wrong, told
}

// beyond says in what way the record does not cover the loss of a position.
func (a *account) beyond(p lsn.Position) string {
	i := slices.IndexFunc(a.past.Ancestors, func(s lsn.Switch) bool { return s.Timeline == p.Timeline })
	if i < 0 || p.LSN <= a.past.Ancestors[i].End {
		return "lost, and yet in the history"
	}
	successor := a.past.Timeline
	if i+1 < len(a.past.Ancestors) {
		successor = a.past.Ancestors[i+1].Timeline
	}
	j := slices.IndexFunc(a.changes, func(f admin.Failover) bool { return f.Timeline == successor })
	if j < 0 {
		return "lost in a change that is not recorded"
	}
	if bytes := uint64(p.LSN - a.past.Ancestors[i].End); bytes > a.changes[j].LostAtMost {
		return fmt.Sprintf("lost %d bytes behind the end of timeline %d, the record says %d at most", bytes, p.Timeline, a.changes[j].LostAtMost)
	}
	return ""
}

// accounted holds the record, and what the sessions were told, against what was lost.
func (c *chaos) accounted(r *history.Result) {
	leader := c.cluster.Leader()
	lost := lostWrites(r.Events, contentOf(c.t, leader.URL("postgres")))
	s, err := c.fleet.status(c.t.Context())
	pgtest.Must(c.t, err)
	a := account{past: c.past(s.Cluster.Decree.Timeline), changes: s.Cluster.Failovers, ends: r.Ends, died: c.died, tell: c.tells}
	wrong, told := a.of(lost)
	for _, w := range wrong {
		c.t.Error(w)
	}
	hit := make(map[int]bool)
	for _, e := range lost {
		hit[e.Session] = true
	}
	c.t.Logf("%d acknowledged writes of %d sessions lost; told: %v", len(lost), len(hit), told)
	if len(lost) == 0 {
		return
	}
	// The same must be found wrong with an account that is.
	for i := range a.changes {
		a.changes[i].LostAtMost = 0
	}
	a.died = nil
	if wrong, _ := a.of(lost); len(wrong) < len(lost) {
		c.t.Errorf("with a record that says nothing was lost, %d of %d are found", len(wrong), len(lost))
	}
	a.ends = nil
	if _, told := a.of(lost); len(told) > 0 {
		c.t.Errorf("sessions that nobody told anything: %v", told)
	}
}

// past is the history of a timeline, from the leader's own file.
func (c *chaos) past(timeline uint32) lsn.History {
	file, err := os.ReadFile(filepath.Join(c.cluster.Leader().DataDir(), "pg_wal", fmt.Sprintf("%08X.history", timeline)))
	if timeline == 1 {
		return lsn.History{Timeline: 1}
	}
	pgtest.Must(c.t, err)
	h, err := lsn.ParseHistory(timeline, file)
	pgtest.Must(c.t, err)
	return h
}

// tells reports whether a session that begins with a token is told that it stands for
// something that was lost.
func (c *chaos) tells(token string) bool {
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, "postgres://postgres@"+c.fleet.members[0].clients+"/postgres?sslmode=disable&lsnproxy.token="+token)
	if err == nil {
		defer conn.Close(context.WithoutCancel(ctx))
		_, err = conn.Exec(ctx, "SELECT FROM history_shared")
	}
	return err != nil && strings.Contains(err.Error(), "LS001")
}

// kept looks on the leader for everything that was acknowledged.
func (c *chaos) kept(r *history.Result) {
	now := contentOf(c.t, c.cluster.Leader().URL("postgres"))
	lost := lostWrites(r.Events, now)
	for _, e := range lost {
		c.t.Errorf("lost: %v; there is version %d", e, now[row{e.Key.Owner, e.Key.N}])
	}
	acked := 0
	for _, e := range r.Events {
		if e.Kind != history.Read && e.Outcome == history.Acked {
			acked++
		}
	}
	c.t.Logf("%d acknowledged writes, %d found lost; sessions ended by %v", acked, len(lost), counted(r.Ends))
}

func counted(ends map[int]string) map[string]int {
	counts := make(map[string]int)
	for how := range maps.Values(ends) {
		counts[how]++
	}
	return counts
}

// TestLostWrites: what is lost is found, and an account that does not explain it is
// refused.
func TestLostWrites(t *testing.T) {
	wrote := func(session, owner int, version int64, end time.Duration, token string) history.Event {
		kind := history.Update
		if owner == 0 {
			kind = history.Bump
		}
		return history.Event{Session: session, Kind: kind, Key: history.Key{Owner: owner, N: 1}, Version: version, End: end, Token: token, Through: fmt.Sprintf("p%d", session)}
	}
	events := []history.Event{
		wrote(1, 1, 1, 1, "7:1:0/100"), wrote(1, 1, 2, 2, "7:1:0/200"), // the last one was lost
		wrote(2, 2, 1, 3, "7:1:0/110"),
		wrote(2, 0, 1, 4, "7:1:0/120"), wrote(3, 0, 2, 7, "7:1:0/210"), wrote(2, 0, 2, 6, "7:2:0/300"), // version 2 was made again
		wrote(4, 0, 3, 7, "7:2:0/310"),
	}
	lost := lostWrites(events, content{{1, 1}: 1, {2, 1}: 1, {0, 1}: 3})
	if len(lost) != 2 || lost[0].Session+lost[1].Session != 1+3 {
		t.Fatalf("lost: %v", lost)
	}
	if lost := lostWrites(events, content{{1, 1}: 2, {2, 1}: 1, {0, 1}: 2}); len(lost) != 2 {
		t.Errorf("lost: %v", lost)
	}
	good := func() account {
		return account{
			past:    lsn.History{Timeline: 2, Ancestors: []lsn.Switch{{Timeline: 1, End: 0x180}}},
			changes: []admin.Failover{{Timeline: 2, LostAtMost: 0x90}},
			ends:    map[int]string{1: "LS001", 3: "end of stream"},
			tell:    func(string) bool { return true },
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(*account)
		wrong int
	}{
		{"nothing", func(*account) {}, 0},
		{"a proxy that died knew", func(a *account) { a.changes, a.died = nil, map[reign]bool{{"p1", 1}: true} }, 1},
		{"too little recorded", func(a *account) { a.changes[0].LostAtMost = 0x8f }, 1},
		{"not recorded", func(a *account) { a.changes = nil }, 2},
		{"in the history", func(a *account) { a.past.Ancestors[0].End = 0x200 }, 1},
		{"never told", func(a *account) { a.ends = nil }, 2},
		{"not told elsewhere", func(a *account) { a.tell = func(string) bool { return false } }, 1},
	} {
		a := good()
		c.spoil(&a)
		if wrong, _ := a.of(lost); len(wrong) != c.wrong {
			t.Errorf("%s: %q", c.name, wrong)
		}
	}
}
