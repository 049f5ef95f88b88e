//go:build patroni

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/internal/history"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// patroni is three servers that Patroni leads, with etcd beside it.
type patroni struct {
	t     *testing.T
	dir   string
	etcd  string
	nodes []*patroniNode
}

type patroniNode struct {
	name, postgres, rest string // addresses
	config, data         string
	agent                *exec.Cmd
}

// TestPatroni is the proxy that only watches: Patroni switches the leader over, and
// then replaces one that was killed, while sessions write and read. It runs by
// `make patroni`, which installs Patroni and etcd.
func TestPatroni(t *testing.T) {
	h := startPatroni(t)
	s := source{set: []string{"listen=127.0.0.1:0", "http=127.0.0.1:0", "leader_wait=30s", "monitor.timeout=1s", "failover.timeout=1s"}}
	for _, n := range h.nodes {
		s.nodes = append(s.nodes, n.postgres)
	}
	c := mustLoad(t, s)
	for _, n := range h.nodes {
		c.Failover.Patroni = append(c.Failover.Patroni, patroniConfig{Node: n.postgres, URL: "http://" + n.rest})
	}
	p, err := startProxy(c, newLog(c.Log, slog.LevelWarn, testWriter{t}))
	pgtest.Must(t, err)
	defer p.close(5 * time.Second)
	wantReady(t, p.http.Addr().String(), 200, "usable followers: 2 of 2")
	r, err := history.Run(t.Context(), history.Options{
		Addresses: []string{p.clients.Addr().String()}, Sessions: 24, Duration: 90 * time.Second, Pause: 5 * time.Millisecond,
		NodeQuery: "SHOW lsnproxy.node", Timeout: 40 * time.Second, EndsSession: []string{"LS001", "LS003"},
		Meanwhile: func(ctx context.Context) error { return h.disturb(ctx, p) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v", r)
	if !r.Keeps(history.Written, history.Session) {
		t.Errorf("violations: %v", r.Violations)
	}
	for code, n := range r.Errors {
		switch code {
		case "08006", "08007", "57P01", "LS001", "LS003": // in a transaction, perhaps committed, lost
		default:
			t.Errorf("%d times %s: %s", n, code, r.Samples[code])
		}
	}
}

// disturb has Patroni move the leader, and then kills it.
func (h *patroni) disturb(ctx context.Context, p *proxy) error {
	wait(ctx, 5*time.Second)
	for range 3 {
		v := p.board.View()
		if v.Leader < 0 {
			return fmt.Errorf("no leader before a switchover")
		}
		from, to := h.nodes[v.Leader], h.nodes[(v.Leader+1)%3]
		if out, err := h.ctl("switchover", "--leader", from.name, "--candidate", to.name, "--force", "lsnproxy"); err != nil {
			return fmt.Errorf("switchover: %w: %s", err, out)
		}
		h.t.Logf("switched over from %s to %s", from.name, to.name)
		wait(ctx, 10*time.Second)
	}
	v := p.board.View()
	if v.Leader < 0 {
		return fmt.Errorf("no leader to kill")
	}
	n := h.nodes[v.Leader]
	h.t.Logf("killing %s", n.name)
	_ = n.agent.Process.Kill() // or it would start the server again
	if err := n.killServer(); err != nil {
		return err
	}
	wait(ctx, 20*time.Second)
	h.run(n.name, n.agent.SysProcAttr, "patroni", n.config) // and it comes back as a follower
	wait(ctx, 15*time.Second)
	return nil
}

func (n *patroniNode) killServer() error {
	text, err := os.ReadFile(filepath.Join(n.data, "postmaster.pid"))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.SplitN(string(text), "\n", 2)[0])
	if err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

func (h *patroni) ctl(args ...string) (string, error) {
	out, err := exec.Command("patronictl", append([]string{"-c", h.nodes[0].config}, args...)...).CombinedOutput()
	return string(out), err
}

// startPatroni starts etcd and three nodes, as an unprivileged user, and waits until
// one leads two others.
func startPatroni(t *testing.T) *patroni {
	t.Helper()
	dir, err := os.MkdirTemp("", "lsnproxy-patroni-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h := &patroni{t: t, dir: dir, etcd: unused(t)}
	who, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(who.Uid)
	gid, _ := strconv.Atoi(who.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	as := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, Setpgid: true}
	peer := unused(t)
	h.run("etcd", as, "etcd", "--data-dir", filepath.Join(dir, "etcd"), "--enable-v2",
		"--listen-client-urls", "http://"+h.etcd, "--advertise-client-urls", "http://"+h.etcd,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer,
		"--initial-cluster", "default=http://"+peer)
	bin, err := pgcluster.FindBinaries("")
	pgtest.Must(t, err)
	for i := range 3 {
		n := &patroniNode{name: fmt.Sprintf("n%d", i), postgres: unused(t), rest: unused(t)}
		n.config, n.data = filepath.Join(dir, n.name+".json"), filepath.Join(dir, n.name)
		text, err := json.Marshal(h.configOf(n, bin))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(n.config, text, 0o644); err != nil { // YAML is a superset of JSON
			t.Fatal(err)
		}
		n.agent = h.run(n.name, as, "patroni", n.config)
		h.nodes = append(h.nodes, n)
	}
	for end := time.Now().Add(90 * time.Second); !h.whole(); wait(t.Context(), 100*time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("there is no leader with two streaming replicas")
		}
	}
	return h
}

// whole reports whether one node leads and two follow.
func (h *patroni) whole() bool {
	out, _ := h.ctl("list", "-f", "json", "lsnproxy")
	var members []struct{ Role, State string }
	_ = json.Unmarshal([]byte(out), &members)
	leads, follows := 0, 0
	for _, m := range members {
		switch {
		case m.Role == "Leader" && m.State == "running":
			leads++
		case m.Role == "Replica" && (m.State == "running" || m.State == "streaming"):
			follows++
		}
	}
	return leads == 1 && follows == 2
}

// wait pauses; less if ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// testWriter writes a log to a test's.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(text []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(text)))
	return len(text), nil
}

func (h *patroni) configOf(n *patroniNode, bin string) any {
	type object = map[string]any
	login := object{"username": "postgres"}
	return object{
		"scope": "lsnproxy", "name": n.name,
		"restapi": object{"listen": n.rest, "connect_address": n.rest},
		"etcd3":   object{"host": h.etcd},
		"bootstrap": object{
			"dcs": object{
				"ttl": 10, "loop_wait": 1, "retry_timeout": 3, "maximum_lag_on_failover": 1 << 20,
				"postgresql": object{"use_pg_rewind": true, "use_slots": true},
			},
			"initdb": []any{"data-checksums", object{"auth": "trust"}, object{"encoding": "UTF8"}},
		},
		"postgresql": object{
			"listen": n.postgres, "connect_address": n.postgres, "data_dir": n.data, "bin_dir": bin,
			"authentication": object{"superuser": login, "replication": login, "rewind": login},
			"pg_hba":         []string{"local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"},
			"parameters":     object{"unix_socket_directories": h.dir, "fsync": "off", "max_connections": 200},
		},
	}
}

// run starts a program that lives until the test ends; its log is shown if that fails.
func (h *patroni) run(name string, as *syscall.SysProcAttr, program string, args ...string) *exec.Cmd {
	h.t.Helper()
	cmd := exec.Command(program, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr, cmd.Dir = &log, &log, as, h.dir
	cmd.Env = append(os.Environ(), "HOME="+h.dir)
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGCONT)
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait()
		if h.t.Failed() {
			text := log.Bytes()
			h.t.Logf("%s:\n%s", name, text[max(0, len(text)-1500):])
		}
	})
	return cmd
}
