package main

import (
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/lsnproxy/lsnproxy/failover"
	"github.com/lsnproxy/lsnproxy/pool"
	"github.com/lsnproxy/lsnproxy/session"

	"github.com/lsnproxy/lsnproxy/route"
)

const sample = "../../configs/lsnproxy.yaml"

func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "test.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func mustLoad(t *testing.T, s source) config {
	t.Helper()
	c, err := load(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSampleShowsDefaults: what the sample configuration shows in comments is
// every key there is, at its default.
func TestSampleShowsDefaults(t *testing.T) {
	text, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Nodes = []string{"10.0.0.1:5432", "10.0.0.2:5432", "10.0.0.3:5432"}
	if diff := cmp.Diff(want, mustLoad(t, source{file: sample})); diff != "" {
		t.Errorf("as it is (-want +got):\n%s", diff)
	}
	// A commented key follows its # at once, prose after a space.
	commented := regexp.MustCompile(`(?m)^( *)#([a-z_]+: )`)
	active := commented.ReplaceAllString(string(text), "$1$2")
	c := mustLoad(t, source{file: write(t, active)})
	if diff := cmp.Diff(want, c, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("with its comments taken off (-want +got):\n%s", diff)
	}
	for key, kind := range keys {
		name := key[strings.LastIndexByte(key, '.')+1:]
		if scalar(kind) && !regexp.MustCompile(`(?m)^[# -]*`+name+`: `).Match(text) {
			t.Errorf("%s is not explained", key)
		}
	}
}

// TestSampleUsers: the examples of users and databases in the sample are some.
func TestSampleUsers(t *testing.T) {
	text, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile(`(?m)^#   (users:|databases:|  [ -] .*)$`).FindAllStringSubmatch(string(text), -1)
	var lines []string
	for _, m := range example {
		lines = append(lines, m[1])
	}
	password := write(t, "from the file\n")
	yaml := strings.ReplaceAll(strings.Join(lines, "\n"), "/etc/lsnproxy/report.password", password)
	c := mustLoad(t, source{file: write(t, yaml), nodes: []string{"a:1"}})
	users := []userConfig{{Name: "app", Password: "secret"}, {
		Name: "report", Password: "from the file", PasswordFile: password, MaxConnections: new(10), MaxClients: new(100),
		Pool: poolOverride{Mode: new(session.ModeSession), Size: new(5)},
	}}
	if diff := cmp.Diff(users, c.Users); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	databases := []databaseConfig{{
		Name: "archive", MaxConnections: new(20), Pool: poolOverride{Min: new(2), Idle: new(time.Hour)},
		Reads: readsOverride{Consistency: new(route.LevelBounded), Staleness: new(10 * time.Second)},
	}}
	if diff := cmp.Diff(databases, c.Databases); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestOverrides: what is said of the user goes before what is said of the
// database, and that before what is said of all.
func TestOverrides(t *testing.T) {
	c := mustLoad(t, source{nodes: []string{"a:1"}, file: write(t, `
pool: {size: 10, min: 1, mode: statement, max_user_connections: 9}
reads: {wait: 0, staleness: 1m, level_wait: {service: 3s}}
max_database_clients: 8
databases: [{name: d, max_clients: 0, max_connections: 4, pool: {size: 20, idle: 1s}, reads: {consistency: bounded, wait: 1s, level_wait: {session: 5s, strong: 6s}, lost_write: notice}}]
users: [{name: u, max_clients: 3, max_connections: 5, pool: {size: 30, mode: session, lifetime: 0}, reads: {consistency: strong, staleness_bytes: 1MB, delivery: off, optimistic: true, level_wait: {strong: 0}}}]
`)})
	reads := func(change func(*route.Policy)) *route.Policy {
		r := defaults()
		p := r.Reads.policy()
		p.Wait, p.MaxAge = 0, time.Minute // as below
		change(&p)
		return &p
	}
	base := pool.Limits{
		Size: 10, Min: 1, Pressed: 5 * time.Second, Wait: 2 * time.Minute, Idle: 10 * time.Minute, Lifetime: time.Hour, OfUser: 9,
	}
	ofDatabase := base
	ofDatabase.Size, ofDatabase.Idle, ofDatabase.OfDatabase = 20, time.Second, 4
	both := ofDatabase
	both.Size, both.Lifetime, both.OfUser = 30, 0, 5
	for _, x := range []struct {
		database, user string
		limits         pool.Limits
		policy         session.Policy
	}{
		{"x", "x", base, session.Policy{Mode: session.ModeStatement, OfDatabase: 8}},
		{"d", "x", ofDatabase, session.Policy{Mode: session.ModeStatement, Reads: reads(func(p *route.Policy) {
			p.Level, p.Wait, p.Lost = route.LevelBounded, time.Second, route.LostNotice
			p.Waits[route.LevelSession], p.Waits[route.LevelStrong] = route.LevelWait{Set: true, Time: 5 * time.Second}, route.LevelWait{Set: true, Time: 6 * time.Second}
		})}},
		{"d", "u", both, session.Policy{Mode: session.ModeSession, OfUser: 3, Reads: reads(func(p *route.Policy) {
			p.Level, p.Wait, p.MaxBytes, p.Lost = route.LevelStrong, time.Second, 1<<20, route.LostNotice
			p.Delivery, p.Optimistic = route.DeliverOff, true
			p.Waits[route.LevelSession], p.Waits[route.LevelStrong] = route.LevelWait{Set: true, Time: 5 * time.Second}, route.LevelWait{Set: true}
		})}},
	} {
		if diff := cmp.Diff(x.limits, c.limitsOf(x.database, x.user)); diff != "" {
			t.Errorf("%s, %s (-want +got):\n%s", x.database, x.user, diff)
		}
		if diff := cmp.Diff(x.policy, c.policyOf(x.database, x.user)); diff != "" {
			t.Errorf("%s, %s (-want +got):\n%s", x.database, x.user, diff)
		}
	}
}

// TestWrongOverrides: every error in them is told with its path.
func TestWrongOverrides(t *testing.T) {
	_, err := load(source{nodes: []string{"a:1"}, file: write(t, `
pool: {mode: lazy, min: 30, reserve_wait: -1s}
databases:
- {name: d, max_clients: -1, pool: {sise: 20, idle: 5}, reads: {consistency: sesion, wait: -1s}}
- {name: d, reads: {consistency: bounded}}
- {pool: {size: 0}, reads: {consistency: bounded, staleness: 0}}
users: [{name: u, max_conections: 3, pool: {size: 3}, reads: {staleness: 0}}, {name: v, pool: 7, reads: {lost_write: hide, max_lag: 1s, level_wait: {strong: -1s, leader: 1s}}}]
`)})
	found, ok := err.(*problems)
	if !ok {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, p := range found.all {
		got[p.key] = p.what
	}
	want := map[string]string{
		"pool.mode":                        `want transaction, session or statement, not "lazy"`,
		"pool.min":                         "30 connections are to be kept open, but at most 20 may be",
		"pool.reserve_wait":                "must not be negative: -1s",
		"databases[0].max_clients":         "must be at least 0, not -1",
		"databases[0].pool.sise":           "unknown key; did you mean databases[0].pool.size?",
		"databases[0].pool.idle":           "want a time with its unit, like 50ms or 10s, not 5",
		"databases[1].name":                "d is there twice",
		"databases[2].name":                "must not be empty",
		"databases[2].pool.size":           "must be at least 1, not 0",
		"databases[0].reads.consistency":   "must be session, leader, strong, service, bounded or eventual",
		"databases[0].reads.wait":          "must not be negative: -1s",
		"databases[2].reads.consistency":   "bounded needs a bound: staleness or staleness_bytes",
		"users[0].reads":                   "in database d the level is bounded, and there is no bound",
		"users[1].reads.lost_write":        "must be error or notice",
		"users[1].reads.level_wait.strong": "must not be negative: -1s",
		"users[1].reads.level_wait.leader": "unknown key; did you mean users[1].reads.level_wait.bounded?",
		"users[1].reads.max_lag":           "unknown key; did you mean reads.max_lag?",
		"users[0].max_conections":          "unknown key; did you mean users[0].max_connections?",
		"users[0].pool.size":               "30 connections are to be kept open, but at most 3 may be",
		"users[1].pool":                    "want a section of keys, not 7",
	}
	for key, what := range want {
		if got[key] != what {
			t.Errorf("%s: %q, want %q", key, got[key], what)
		}
	}
}

func TestMinimalIsEnough(t *testing.T) {
	c := mustLoad(t, source{file: "../../configs/minimal.yaml"})
	if len(c.Nodes) != 3 || c.Pool.Size != defaults().Pool.Size {
		t.Errorf("%+v", c)
	}
}

func TestEveryKeyCanBeSet(t *testing.T) {
	password, key := write(t, "geheim\r\n"), write(t, "MDEyMzQ1Njc4OWFiY2RlZg==\n")
	c := mustLoad(t, source{
		file: write(t, `
Listen: 127.0.0.1:1
nodes: [a:1, "[::1]:2"]
users: [{name: A, password: "007"}]
pool:
reads: {max_lag_bytes: 4096, max_lag: 0}
`),
		nodes: []string{"b:3"},
		set: []string{
			"listen=:5", "http=", "monitor.user=u", "monitor.password_file=" + password, "monitor.database=d",
			"monitor.interval=1s", "monitor.timeout=2m", "POOL.size=1", "pool.wait=1ns", "pool.idle=0", "pool.lifetime=0s",
			"pool.connect=1h30m", "pool.mode=statement", "pool.min=1", "pool.reserve=2", "pool.reserve_wait=3s",
			"pool.max_database_connections=4", "pool.max_user_connections=5", "max_database_clients=6", "max_user_clients=7",
			"reads.wait=0", "reads.consistency=eventual", "reads.staleness=2s", "reads.staleness_bytes=1kB",
			"reads.fallback=stale", "reads.no_follower=error", "reads.lost_write=notice",
			"reads.delivery=lazy", "reads.optimistic=true", "reads.level_wait.strong=7s", "reads.prefer=nearest", "reads.slow_start=0", "reads.return_after=0", "reads.silence=0",
			"tcp.keepalive=false", "tcp.keepidle=1s", "tcp.keepintvl=2s", "tcp.keepcnt=3", "tcp.user_timeout=4s", "leader_wait=3s", "login_timeout=4s", "max_clients=5",
			"max_prepared_statements=6", "replication.max_connections=9", "engine.loops=7", "log.level=debug", "log.format=json", "shutdown_grace=8s",
			"test.ignore_positions=true",
			"cluster.id=p1", "cluster.bind=127.0.0.1:7", "cluster.advertise=h:8", "cluster.key_file=" + key, "cluster.label=x",
			"cluster.data=d", "cluster.expect=3", "cluster.heartbeat=1ms", "cluster.election=5ms", "cluster.lease=18ms",
			"failover.mode=promote", "failover.timeout=4s", "failover.durability=sync", "failover.max_lost_bytes=2MB",
			"failover.require_all_followers=true", "failover.drain=5s", "failover.user=f", "failover.password_file=" + password,
			"failover.database=e", "failover.record=false", "failover.hooks.timeout=6s", "console.database=g",
		},
	})
	want := config{
		Listen: ":5", Nodes: []string{"b:3"},
		Monitor: monitorConfig{User: "u", Password: "geheim", PasswordFile: password, Database: "d", Interval: time.Second, Timeout: 2 * time.Minute},
		Users:   []userConfig{{Name: "A", Password: "007"}},
		Pool: poolConfig{
			Mode: session.ModeStatement, Size: 1, Min: 1, Reserve: 2, ReserveWait: 3 * time.Second, Wait: 1, Connect: 90 * time.Minute,
			MaxDatabaseConnections: 4, MaxUserConnections: 5,
		},
		MaxDatabaseClients: 6, MaxUserClients: 7,
		Reads: readsConfig{
			Consistency: route.LevelEventual, Staleness: 2 * time.Second, StalenessBytes: 1 << 10,
			Fallback: route.FallStale, NoFollower: route.FallError, LostWrite: route.LostNotice, Delivery: route.DeliverLazy,
			Optimistic: true, LevelWait: levelWait{Strong: new(7 * time.Second)}, MaxLagBytes: 4096, Prefer: "nearest",
		},
		TCP:        tcpConfig{KeepIdle: time.Second, KeepIntvl: 2 * time.Second, KeepCnt: 3, UserTimeout: 4 * time.Second},
		LeaderWait: 3 * time.Second, LoginTimeout: 4 * time.Second, MaxClients: 5, MaxPreparedStatements: 6, Replication: replicationConfig{MaxConnections: 9},
		Engine: engineConfig{Loops: 7}, Log: logConfig{Level: -4, Format: "json"},
		ShutdownGrace: 8 * time.Second, Test: testConfig{IgnorePositions: true},
		Console: consoleConfig{Database: "g"},
		Cluster: clusterConfig{
			ID: "p1", Bind: "127.0.0.1:7", Advertise: "h:8", Key: "MDEyMzQ1Njc4OWFiY2RlZg==", KeyFile: key, Label: "x", Data: "d",
			Expect: 3, Heartbeat: time.Millisecond, Election: 5 * time.Millisecond, Lease: 18 * time.Millisecond,
		},
		Failover: failoverConfig{
			Mode: failover.Promote, Timeout: 4 * time.Second, Durability: "sync", MaxLost: 2 << 20, RequireAll: true, Drain: 5 * time.Second,
			User: "f", Password: "geheim", PasswordFile: password, Database: "e", Hooks: hooksConfig{Timeout: 6 * time.Second},
		},
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestKeysAreDistinct: --set and viper look keys up without regard to case.
func TestKeysAreDistinct(t *testing.T) {
	all := slices.Sorted(maps.Keys(keys))
	for _, key := range all {
		if key != strings.ToLower(key) || key == "" {
			t.Errorf("key %q", key)
		}
	}
	if len(all) < 30 {
		t.Errorf("only %d keys: %v", len(all), all)
	}
}

func TestSuggestion(t *testing.T) {
	for key, want := range map[string]string{
		"pool.siz": "pool.size", "listn": "listen", "max_lag": "reads.max_lag", "monitoring.interval": "monitor.interval",
		"pool_size": "pool.size", "user": "users", "loops": "engine.loops", "zzz": "", "x": "",
	} {
		got := suggestion(key)
		if want != "" {
			want = "; did you mean " + want + "?"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]size{
		"0": 0, "512": 512, "1B": 1, "8kB": 8192, "16MB": 16 << 20, "16 MB": 16 << 20, "1GB": 1 << 30, "2TB": 2 << 40,
	} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s: %d, %v, want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "MB", "-1", "1.5GB", "16mb", "16MiB", "16777216TB", "18446744073709551616", "1 2"} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: no error but %d", text, s)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		want := size(rapid.Uint64().Draw(t, "size"))
		var s size
		if err := s.UnmarshalText([]byte(want.String())); err != nil || s != want {
			t.Fatalf("%d is printed as %s and read as %d, %v", uint64(want), want, uint64(s), err)
		}
	})
}

func TestWarnings(t *testing.T) {
	for listen, want := range map[string]int{
		"127.0.0.1:1": 0, "localhost:1": 0, "[::1]:1": 0, "127.9.9.9:1": 0,
		":1": 1, "0.0.0.0:1": 1, "[::]:1": 1, "10.0.0.1:1": 1, "db.example:1": 1,
	} {
		c := defaults()
		c.Listen = listen
		if got := c.warnings(); len(got) != want {
			t.Errorf("%s: %q", listen, got)
		}
	}
	c := defaults()
	c.Test.IgnorePositions = true
	if len(c.warnings()) != 1 {
		t.Error("no warning of test.ignore_positions")
	}
}

func TestLogFormats(t *testing.T) {
	for format, want := range map[string]string{
		"text": `level=WARN msg="two words" a=1`,
		"json": `"level":"WARN","msg":"two words","a":1}`,
	} {
		var out strings.Builder
		log := newLog(logConfig{Format: format}, slog.LevelWarn, &out)
		log.Info("not this")
		log.Warn("two words", "a", 1)
		if got := out.String(); !strings.HasSuffix(got, want+"\n") || strings.Contains(got, "not this") {
			t.Errorf("%s: %s", format, got)
		}
	}
}

// TestWrongCluster: every error of the section is told with its key, and what
// leaves no safety a warning.
func TestWrongCluster(t *testing.T) {
	for text, want := range map[string]string{
		`{bind: here}`:                                   `cluster.bind: want host:port, not "here"`,
		`{bind: "127.0.0.1:1"}`:                          "cluster: votes must survive a restart: name a directory for them",
		`{bind: "h:1", data: d, key: MTIz}`:              "cluster: the key must have 16, 24 or 32 bytes, not 3",
		`{bind: "h:1", data: d, key: "?"}`:               "cluster.key: want 16, 24 or 32 bytes in base64, as from: openssl rand -base64 32",
		`{bind: "h:1", data: d, join: [x]}`:              `cluster.join[0]: want host:port, not "x"`,
		`{bind: "h:1", data: d, voters: [a, a]}`:         "cluster.voters[1]: a is there twice",
		`{join: ["h:1"]}`:                                "cluster: others are named, but there is no address to bind for them",
		`{lease: 3s}`:                                    "cluster: the lease must be at least 3 election times and 3 heartbeats, that is 3.3s, not 3s",
		`{heartbeat: 300ms}`:                             "cluster: the election time must be at least 5 heartbeats, that is 1.5s, not 1s",
		`{bind: "h:1", data: d, voters: [a], expect: 1}`: "cluster: name the voters or expect a number of them, not both",
	} {
		_, err := load(source{nodes: []string{"a:1"}, file: write(t, "cluster: "+text)})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	for text, want := range map[string]int{
		`{bind: "127.0.0.1:1", data: d, expect: 3}`: 0, `{bind: "10.0.0.1:1", data: d, expect: 3}`: 1,
		`{bind: "10.0.0.1:1", data: d, expect: 2}`: 2, `{bind: "127.0.0.1:1", data: d, voters: [a, b]}`: 1,
	} {
		c := mustLoad(t, source{nodes: []string{"a:1"}, file: write(t, "cluster: "+text)})
		if got := c.warnings(); len(got) != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}
