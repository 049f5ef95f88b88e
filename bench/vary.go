package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Vary is a setting of the session and the values to compare. Ratios are to the
// first.
type Vary struct {
	Setting string
	Values  []string
}

// ParseVary reads setting=value,value; the empty text is no setting.
func ParseVary(text string) (Vary, error) {
	if text == "" {
		return Vary{}, nil
	}
	setting, values, found := strings.Cut(text, "=")
	v := Vary{Setting: setting, Values: strings.Split(values, ",")}
	if !found || setting == "" || slices.Contains(v.Values, "") || strings.Contains(text, " ") {
		return Vary{}, errors.New("want a setting and its values, such as lsnproxy.consistency=eventual,session")
	}
	return v, nil
}

// systems are one system, for each value.
func (v Vary) systems(one *system) []*system {
	var all []*system
	for _, value := range v.Values {
		s := *one
		s.name, s.options = value, "-c "+v.Setting+"="+value
		all = append(all, &s)
	}
	return all
}

// varied is the table of a comparison by Vary.
func (r *Report) varied(b *strings.Builder, workload, mode string) {
	v := r.Options.Vary
	base := v.Values[0]
	fmt.Fprintf(b, "\n### %s, %s protocol\n\n", workload, mode)
	fmt.Fprintf(b, "| clients | %s | tps | to %s | latency, ms | CPU, us per transaction | of all servers | sum to %s | reads on followers |\n", v.Setting, base, base)
	b.WriteString("|--:|---|---|---|---|---|---|---|---|\n")
	for _, clients := range r.Options.Clients {
		cell := Cell{Workload: workload, Mode: mode, Clients: clients}
		first := r.of(cell, base)
		for _, value := range v.Values {
			s := r.of(cell, value)
			fmt.Fprintf(b, "| %d | %s | %s | %s | %s | %s | %s | %s | %s |\n", clients, value,
				format("%.0f", values(s.tps)), format("%.3f", ratios(s.tps, first.tps)),
				format("%.3f", values(s.latency)),
				format("%.1f", values(s.cpu)), format("%.1f", values(s.servers)),
				format("%.2f", ratios(s.sum, first.sum)), format("%.0f%%", values(s.onFollower)))
		}
	}
}

// aside notes beside a run what only a comparison by Vary tells. What it returns
// ends that.
func (s *system) aside(ctx context.Context, run *Run) (end func() error, err error) {
	if s.data == nil {
		return func() error { return nil }, nil
	}
	before, err := serversUsage(s.data)
	if err != nil {
		return nil, err
	}
	reads, onFollower, err := s.reads(ctx)
	return func() error {
		after, err := serversUsage(s.data)
		if err != nil {
			return err
		}
		for pid, used := range after {
			run.Servers += used - before[pid]
		}
		run.Reads, run.OnFollower, err = s.reads(ctx)
		run.Reads -= reads
		run.OnFollower -= onFollower
		return err
	}, err
}

// serversUsage is the processor time of every process of some servers.
func serversUsage(data []string) (map[int]time.Duration, error) {
	postmasters := make(map[int]bool)
	for _, dir := range data {
		text, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
		if err != nil {
			return nil, err
		}
		first, _, _ := strings.Cut(string(text), "\n")
		pid, err := strconv.Atoi(first)
		if err != nil {
			return nil, fmt.Errorf("postmaster.pid: %w", err)
		}
		postmasters[pid] = true
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	used := make(map[int]time.Duration)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil || !postmasters[pid] && !postmasters[parentOf(string(stat))] {
			continue // it has ended, or is somebody else's
		}
		if u, err := usageOf(pid); err == nil {
			used[pid] = u.exact
		}
	}
	return used, nil
}

// parentOf returns the fourth field of /proc/PID/stat.
func parentOf(stat string) int {
	_, rest, _ := cutLast(stat, ") ")
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return 0
	}
	pid, _ := strconv.Atoi(fields[1]) // 0 is nobody's number
	return pid
}

// reads asks the proxy how many reads it has served, and how many of them on
// followers.
func (s *system) reads(ctx context.Context) (all, onFollower float64, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.status+"/metrics", nil)
	if err != nil {
		return 0, 0, err
	}
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, 0, err
	}
	return countReads(string(text))
}

// countReads adds up the counters of reads among metrics.
func countReads(metrics string) (all, onFollower float64, err error) {
	for line := range strings.Lines(metrics) {
		if !strings.HasPrefix(line, "lsnproxy_reads_total{") {
			continue
		}
		_, number, _ := cutLast(strings.TrimSpace(line), " ")
		n, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("metrics: %q: %w", line, err)
		}
		all += n
		if strings.Contains(line, `role="follower"`) {
			onFollower += n
		}
	}
	return all, onFollower, nil
}
