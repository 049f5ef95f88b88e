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
	"pgregory.net/rapid"
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
	if len(c.Users) == 0 {
		c.Users = nil // written as an empty list
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("with its comments taken off (-want +got):\n%s", diff)
	}
	for key, kind := range keys {
		name := key[strings.LastIndexByte(key, '.')+1:]
		if scalar(kind) && !regexp.MustCompile(`(?m)^[# -]*`+name+`: `).Match(text) {
			t.Errorf("%s is not explained", key)
		}
	}
}

// TestSampleUsers: the example of users in the sample is one.
func TestSampleUsers(t *testing.T) {
	text, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile(`(?m)^#   (users:|  [ -] .*)$`).FindAllStringSubmatch(string(text), -1)
	var lines []string
	for _, m := range example {
		lines = append(lines, m[1])
	}
	password := write(t, "from the file\n")
	yaml := strings.ReplaceAll(strings.Join(lines, "\n"), "/etc/lsnproxy/report.password", password)
	c := mustLoad(t, source{file: write(t, yaml), nodes: []string{"a:1"}})
	want := []userConfig{{Name: "app", Password: "secret"}, {Name: "report", Password: "from the file", PasswordFile: password}}
	if diff := cmp.Diff(want, c.Users); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMinimalIsEnough(t *testing.T) {
	c := mustLoad(t, source{file: "../../configs/minimal.yaml"})
	if len(c.Nodes) != 3 || c.Pool.Size != defaults().Pool.Size {
		t.Errorf("%+v", c)
	}
}

func TestEveryKeyCanBeSet(t *testing.T) {
	password := write(t, "geheim\r\n")
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
			"pool.connect=1h30m", "reads.wait=0", "leader_wait=3s", "login_timeout=4s", "max_clients=5",
			"max_prepared_statements=6", "replication.max_connections=9", "engine.loops=7", "log.level=debug", "log.format=json", "shutdown_grace=8s",
			"test.ignore_positions=true",
		},
	})
	want := config{
		Listen: ":5", Nodes: []string{"b:3"},
		Monitor:    monitorConfig{User: "u", Password: "geheim", PasswordFile: password, Database: "d", Interval: time.Second, Timeout: 2 * time.Minute},
		Users:      []userConfig{{Name: "A", Password: "007"}},
		Pool:       poolConfig{Size: 1, Wait: 1, Connect: 90 * time.Minute},
		Reads:      readsConfig{MaxLagBytes: 4096},
		LeaderWait: 3 * time.Second, LoginTimeout: 4 * time.Second, MaxClients: 5, MaxPreparedStatements: 6, Replication: replicationConfig{MaxConnections: 9},
		Engine: engineConfig{Loops: 7}, Log: logConfig{Level: -4, Format: "json"},
		ShutdownGrace: 8 * time.Second, Test: testConfig{IgnorePositions: true},
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
