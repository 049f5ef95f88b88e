package admin

import (
	"errors"
	"flag"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// numbered is a Snapshot in which every number is another one, so that none can
// be mistaken for another or left out.
func numbered() Snapshot {
	s := Snapshot{
		Sessions: Sessions{
			Reads: []Reads{
				{Node: "10.0.0.1:5432", Role: "leader", Level: "leader", Reason: "level leader"},
				{Node: "10.0.0.2:5432", Role: "follower", Level: "session", Reason: "stays on its follower"},
			},
			Fallbacks: []Fallbacks{{To: "stale", Reason: "no usable follower"}},
			Replays:   map[string]uint64{"25006": 701, "40001": 702},
			Waits:     Histogram{Bounds: make([]time.Duration, 2), Counts: make([]uint64, 3)},
			Pins:      map[string]uint64{"listen": 703, "temporary object": 704},
		},
		Nodes: []Node{
			{Address: "10.0.0.1:5432", Role: "leader", State: "usable", Leader: true, AgeKnown: true},
			{Address: "10.0.0.2:5432", Role: "follower", State: "usable", Follows: true, LagKnown: true, AgeKnown: true},
		},
		Watch: Watch{Replicas: []Replica{{Application: "15/main", Address: "10.0.0.2"}, {Application: "15/main", Address: "10.0.0.3"}}},
		Pools: []Pool{
			{Node: "10.0.0.1:5432", Database: "shop", User: "app"},
			{Node: "10.0.0.2:5432", Database: "shop\xff", User: `a"b\c` + "\n"},
		},
		Loops: make([]Loop, 2),
	}
	next := 1
	number(reflect.ValueOf(&s).Elem(), &next)
	return s
}

func number(v reflect.Value, next *int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			number(v.Field(i), next)
		}
	case reflect.Slice:
		for i := range v.Len() {
			number(v.Index(i), next)
		}
	case reflect.Int, reflect.Int64:
		if v.Type() == reflect.TypeFor[time.Duration]() {
			v.SetInt(int64(*next) * int64(time.Second))
		} else {
			v.SetInt(int64(*next))
		}
		*next++
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*next))
		*next++
	}
}

func registry(s Snapshot) *prometheus.Registry {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(&collector{snapshot: func() Snapshot { return s }, version: "v1"})
	return r
}

var rewrite = flag.Bool("rewrite", false, "write what is shown into testdata")

const golden = "testdata/metrics.txt"

// TestMetrics compares all that is shown of the numbered snapshot with a file.
func TestMetrics(t *testing.T) {
	recorder := httptest.NewRecorder()
	promhttp.HandlerFor(registry(numbered()), promhttp.HandlerOpts{}).
		ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	var shown strings.Builder
	for line := range strings.Lines(recorder.Body.String()) {
		if !strings.Contains(line, "lsnproxy_build_info") { // it tells Go's version
			shown.WriteString(line)
		}
	}
	if *rewrite {
		if err := os.WriteFile(golden, []byte(shown.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), shown.String()); diff != "" {
		t.Errorf("run with -rewrite if it is right (-want +got):\n%s", diff)
	}
}

// TestEveryNumberIsShown: no field of a Snapshot is forgotten.
func TestEveryNumberIsShown(t *testing.T) {
	shown := make(map[float64]bool)
	got, err := registry(numbered()).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range got {
		for _, m := range family.GetMetric() {
			shown[m.GetGauge().GetValue()] = true
			shown[m.GetCounter().GetValue()] = true
			h, below := m.GetHistogram(), uint64(0)
			for _, b := range h.GetBucket() {
				shown[b.GetUpperBound()] = true
				shown[float64(b.GetCumulativeCount()-below)] = true
				below = b.GetCumulativeCount()
			}
			shown[float64(h.GetSampleCount()-below)] = true
			shown[h.GetSampleSum()] = true
		}
	}
	next := 1
	s := numbered()
	number(reflect.ValueOf(&s).Elem(), &next)
	// A leader's lag is not: it follows nobody.
	leader := s.Nodes[0]
	for n := 1; n < next; n++ {
		if f := float64(n); !shown[f] && uint64(n) != leader.LagBytes && f != leader.Lag.Seconds() {
			t.Errorf("%d is not shown: %+v", n, s)
		}
	}
}

func TestLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(registry(numbered()))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestUnknown: what is not known of a node is infinite where it is a lag, and
// else not there. The zero snapshot is that of a proxy that has just begun.
func TestUnknown(t *testing.T) {
	if _, err := registry(Snapshot{}).Gather(); err != nil {
		t.Error(err)
	}
	s := Snapshot{Nodes: []Node{{Address: "a:1", Role: "follower", State: "down", Follows: true, LagBytes: math.MaxUint64}}}
	err := testutil.GatherAndCompare(registry(s), strings.NewReader(`
# HELP lsnproxy_node_lag_bytes Log that the leader has flushed and a follower has not applied; +Inf if not known.
# TYPE lsnproxy_node_lag_bytes gauge
lsnproxy_node_lag_bytes{node="a:1"} +Inf
# HELP lsnproxy_node_lag_seconds How long ago the leader was where a follower is; +Inf if not known.
# TYPE lsnproxy_node_lag_seconds gauge
lsnproxy_node_lag_seconds{node="a:1"} +Inf
`), "lsnproxy_node_lag_bytes", "lsnproxy_node_lag_seconds", "lsnproxy_node_position_bytes", "lsnproxy_node_timeline",
		"lsnproxy_node_sample_age_seconds")
	if err != nil {
		t.Error(err)
	}
}

func TestServer(t *testing.T) {
	var notReady error
	source := Source{
		Snapshot: numbered,
		Ready:    func() (string, error) { return "leader a:1", notReady },
	}
	s, err := Listen("127.0.0.1:0", Handler(source, "v1", quiet), quiet)
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + s.Addr().String()
	want := func(path string, status int, body string) {
		t.Helper()
		answer, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != status || !strings.Contains(string(text), body) {
			t.Errorf("%s: %d %s, want %d %s", path, answer.StatusCode, text, status, body)
		}
	}
	want("/healthz", 200, "alive\n")
	want("/readyz", 200, "ready: leader a:1\n")
	notReady = errors.New("no leader")
	want("/readyz", 503, "not ready: no leader\n")
	want("/healthz", 200, "alive\n")
	want("/nothing", 404, "")
	for _, line := range []string{
		`lsnproxy_build_info{goversion="go`, "\nlsnproxy_clients 1\n", "\ngo_goroutines ", "\nprocess_open_fds ",
	} {
		want("/metrics", 200, line)
	}
	// The answer parses, and all of it is what was gathered.
	text, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == "TYPE" {
			names = append(names, f[2])
		}
	}
	if err := testutil.ScrapeAndCompare(base+"/metrics", strings.NewReader(string(text)), names...); err != nil {
		t.Error(err)
	}

	if second, err := Listen(s.Addr().String(), http.NotFoundHandler(), quiet); err == nil {
		second.Close()
		t.Error("two listen on one address")
	}
	http.DefaultClient.CloseIdleConnections()
	s.Close()
	if _, err := http.Get(base + "/healthz"); err == nil {
		t.Error("it still answers")
	}
}

// TestCloseDoesNotWait for a client that does not read its answer.
func TestCloseDoesNotWait(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	s, err := Listen("127.0.0.1:0", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(release)
	}), quiet)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := http.Get("http://" + s.Addr().String())
		failed <- err
	}()
	<-began
	begun := time.Now()
	s.Close()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
	<-release
}
