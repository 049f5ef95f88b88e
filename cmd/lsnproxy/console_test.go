package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// TestConsole: psql at the proxy's own database, as an operator, as a watcher and as
// somebody else.
func TestConsole(t *testing.T) {
	cluster := pgtest.Start(t, pgcluster.Options{Followers: 1})
	c := mustLoad(t, source{
		nodes: []string{cluster.Nodes()[0].Addr(), cluster.Nodes()[1].Addr()},
		set:   []string{"listen=127.0.0.1:0", "http=127.0.0.1:0", "failover.mode=promote", "failover.password=hidden", "failover.user=postgres"},
	})
	c.Console.Users, c.Console.Watchers = []string{"postgres"}, []string{"watcher"}
	p, err := startProxy(c, newLog(c.Log, c.Log.Level, io.Discard))
	pgtest.Must(t, err)
	defer p.close(time.Second)
	wantReady(t, p.http.Addr().String(), 200, "usable followers: 1 of 1")
	host, port, _ := net.SplitHostPort(p.clients.Addr().String())
	psql := func(user string, ok bool, commands ...string) string {
		t.Helper()
		cmd := exec.Command(cluster.Program("psql"), "-XAt", "-h", host, "-p", port, "-U", user, "lsnproxy")
		for _, text := range commands {
			cmd.Args = append(cmd.Args, "-c", text)
		}
		out, err := cmd.CombinedOutput()
		if (err == nil) != ok {
			t.Errorf("%s, %q: %v\n%s", user, commands, err, out)
		}
		return string(out)
	}

	working, err := pgx.Connect(t.Context(), "postgres://postgres@"+p.clients.Addr().String()+"/postgres?sslmode=disable")
	pgtest.Must(t, err)
	defer working.Close(t.Context())
	exec1(t, working, "BEGIN")
	exec1(t, working, "CREATE TABLE t (a int)")

	leader := cluster.Nodes()[0].Addr()
	for command, want := range map[string][]string{
		"SHOW HELP":                    {"SHOW NODES|", "SHOW FAILOVERS|", "SWITCHOVER [TO 'HOST:PORT']|"},
		"show nodes":                   {leader + "|leader|usable|yes|1|", cluster.Nodes()[1].Addr() + "|follower|usable|no|1|"},
		"SHOW POOLS;":                  {leader + "|postgres|postgres|"},
		"SHOW CLIENTS":                 {"|postgres|postgres|in transaction|", "|postgres|lsnproxy|console|"},
		"SHOW SERVERS":                 {leader + "|postgres|postgres|active|"},
		"SHOW VERSION":                 {versionText()},
		"SHOW CONFIG":                  {"pool.size|20|20", "failover.password|(secret)|", "console.users|postgres|", "failover.mode|promote|observe", "nodes|" + leader + ", "},
		"SHOW LEASE":                   {"|" + leader + "|1|", "|yes|"},
		"SHOW FAILOVER":                {"yes|steady|no|"},
		"SHOW FAILOVERS":               {""},
		"SHOW MEMBERS; SHOW VERSION":   {versionText()},
		" ; ":                          {""},
		"SHOW VERSION; nonsense; SHOW": {versionText()},
	} {
		out := psql("postgres", !strings.Contains(command, "nonsense"), command)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", command, w, out)
			}
		}
		if strings.Contains(out, "hidden") {
			t.Errorf("%s tells a password:\n%s", command, out)
		}
	}
	for _, refused := range []struct{ user, command, want string }{
		{"postgres", "RELOAD", `ERROR:  the console does not know "RELOAD"`},
		{"postgres", "SHOW LISTS", `ERROR:  there is nothing called "LISTS" to show`},
		{"postgres", "SWITCHOVER TO '127.0.0.1:1'", "ERROR:  127.0.0.1:1 is not one of the nodes"},
		{"watcher", "SWITCHOVER", "ERROR:  this proxy does not change the leader"},
		{"stranger", "SHOW HELP", `FATAL:  user "stranger" may not use the console`},
	} {
		if out := psql(refused.user, false, refused.command); !strings.Contains(out, refused.want) {
			t.Errorf("%s: %s\n%s", refused.user, refused.command, out)
		}
	}
	if out := psql("watcher", true, "SHOW NODES"); !strings.Contains(out, leader) {
		t.Errorf("a watcher sees\n%s", out)
	}

	exec1(t, working, "COMMIT")
	psql("postgres", true, "SWITCHOVER", "SHOW FAILOVERS")
	if out := psql("postgres", true, "SHOW FAILOVERS"); !strings.Contains(out, "|"+leader+"|"+cluster.Nodes()[1].Addr()+"|switchover|2|") || !strings.HasSuffix(out, "|0\n") {
		t.Errorf("after the switchover:\n%s", out)
	}
	for _, n := range cluster.Nodes() {
		pgtest.Must(t, n.Stop(pgcluster.Immediate))
	}
	if out := psql("postgres", true, "SHOW FAILOVERS"); !strings.Contains(out, "|switchover|2|") {
		t.Errorf("without a database:\n%s", out)
	}
	status, body := get(t, p.http.Addr().String(), "/show/failovers")
	var rows []map[string]string
	if err := json.Unmarshal([]byte(body), &rows); status != 200 || err != nil || len(rows) != 1 || rows[0]["new_leader"] != cluster.Nodes()[1].Addr() {
		t.Errorf("/show/failovers: %d %s", status, body)
	}
	if status, _ := get(t, p.http.Addr().String(), "/show/nothing"); status != 404 {
		t.Errorf("/show/nothing: %d", status)
	}
}

// TestConsoleProtocol: what prepares statements is told so, and can go on.
func TestConsoleProtocol(t *testing.T) {
	c := mustLoad(t, source{nodes: []string{"127.0.0.1:1"}, set: []string{"listen=127.0.0.1:0", "http="}})
	c.Console.Users = []string{"postgres"}
	p, err := startProxy(c, newLog(c.Log, c.Log.Level, io.Discard))
	pgtest.Must(t, err)
	conn, err := pgx.Connect(t.Context(), "postgres://postgres@"+p.clients.Addr().String()+"/lsnproxy?sslmode=disable")
	pgtest.Must(t, err)
	defer conn.Close(t.Context())
	for range 2 {
		if _, err := conn.Exec(t.Context(), "SELECT $1::int", 1); err == nil || !strings.Contains(err.Error(), "0A000") {
			t.Errorf("a prepared statement: %v", err)
		}
		version := ""
		if err := conn.QueryRow(t.Context(), "SHOW VERSION", pgx.QueryExecModeSimpleProtocol).Scan(&version); err != nil || version != versionText() {
			t.Errorf("%q, %v", version, err)
		}
	}
	if _, err := conn.Exec(t.Context(), "SHOW "+strings.Repeat("x", 1<<20), pgx.QueryExecModeSimpleProtocol); err == nil || !strings.Contains(err.Error(), "54000") {
		t.Errorf("a long one: %v", err)
	}
	for seed := range uint64(200) {
		babble(t, p.clients.Addr().String(), rand.New(rand.NewPCG(seed, 0)))
	}
	if n := p.server.Stat().Panics; n > 0 {
		t.Errorf("%d panics", n)
	}
	waiting, err := pgx.Connect(t.Context(), "postgres://postgres@"+p.clients.Addr().String()+"/lsnproxy?sslmode=disable")
	pgtest.Must(t, err)
	defer waiting.Close(t.Context())
	p.close(time.Hour) // which an operator does not hold up
	if _, err := waiting.Exec(t.Context(), "SHOW VERSION", pgx.QueryExecModeSimpleProtocol); err == nil {
		t.Errorf("after the end: %v", err)
	}
}

// babble logs in to the console and sends whole messages of any type with anything in
// them.
func babble(t *testing.T, address string, rng *rand.Rand) {
	conn, err := net.Dial("tcp", address)
	pgtest.Must(t, err)
	defer conn.Close()
	const parameters = "\x00\x03\x00\x00user\x00postgres\x00database\x00lsnproxy\x00\x00"
	text := append(binary.BigEndian.AppendUint32(nil, uint32(4+len(parameters))), parameters...)
	for range 20 {
		body := make([]byte, rng.IntN(30))
		for i := range body {
			body[i] = byte(rng.IntN(256)) >> rng.IntN(8)
		}
		text = append(text, "QSPBDECFHdcfpX?"[rng.IntN(15)])
		text = binary.BigEndian.AppendUint32(text, uint32(4+len(body)))
		text = append(text, body...)
	}
	_, _ = conn.Write(append(text, 'X', 0, 0, 0, 4))
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the console neither answers nor leaves")
	}
}
