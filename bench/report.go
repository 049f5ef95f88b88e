package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Markdown tells the report as tables, one for each workload and mode.
func (r *Report) Markdown() string {
	var b strings.Builder
	o := r.Options
	fmt.Fprintf(&b, "%v. pgbench at scale %d, %d s a run, %d rounds in which the systems take turns; a leader and %d followers.\n",
		r.Environment, o.Scale, o.Seconds, o.Rounds, max(o.Followers, 1))
	b.WriteString("Numbers are medians with (lowest to highest); ratios are taken within a round; CPU is of the proxy's whole process.\n")
	for _, workload := range o.Workloads {
		for _, mode := range o.Modes {
			if r.Options.Vary.Setting != "" {
				r.varied(&b, workload, mode)
			} else {
				r.table(&b, workload, mode)
			}
		}
	}
	return b.String()
}

func (r *Report) table(b *strings.Builder, workload, mode string) {
	fmt.Fprintf(b, "\n### %s, %s protocol\n\n", workload, mode)
	b.WriteString("| clients | system | tps | to direct | to PgBouncer | latency, ms | CPU, us per transaction | CPU to PgBouncer | RSS, MB |\n")
	b.WriteString("|--:|---|---|---|---|---|---|---|---|\n")
	var notes []string
	for _, clients := range r.Options.Clients {
		cell := Cell{Workload: workload, Mode: mode, Clients: clients}
		for _, name := range r.systems(cell) {
			s, direct, peer := r.of(cell, name), r.of(cell, DirectLeader), r.of(cell, PgBouncerLeader)
			label := strings.TrimSuffix(name+", "+s.variant, ", ")
			fmt.Fprintf(b, "| %d | %s | %s | %s | %s | %s | %s | %s | %s |\n", clients, label,
				format("%.0f", values(s.tps)),
				format("%.2f", ratios(s.tps, direct.tps)),
				format("%.2f", ratios(s.tps, peer.tps)),
				format("%.3f", values(s.latency)),
				format("%.1f", values(s.cpu)),
				format("%.2f", ratios(s.cpu, peer.cpu)),
				format("%.1f", values(s.rss)))
			if note := label + ": " + s.note; s.note != "" && !slices.Contains(notes, note) {
				notes = append(notes, note)
			}
		}
	}
	if len(notes) > 0 {
		b.WriteString("\n" + strings.Join(notes, "; ") + ".\n")
	}
}

// systems are those measured in a cell, in the order of the report.
func (r *Report) systems(c Cell) []string {
	var names []string
	for _, name := range []string{Proxy, PgBouncerLeader, PgBouncerFollower, DirectLeader, DirectFollower} {
		if slices.ContainsFunc(r.Runs, func(run Run) bool { return run.Cell == c && run.System == name }) {
			names = append(names, name)
		}
	}
	return names
}

// series is one system's runs in one cell: each measure by round.
type series struct {
	tps, latency, cpu, rss   map[int]float64
	servers, sum, onFollower map[int]float64 // CPU of the servers, and theirs and the proxy's; percent
	variant, note            string
}

func (r *Report) of(c Cell, name string) series {
	s := series{
		tps: make(map[int]float64), latency: make(map[int]float64),
		cpu: make(map[int]float64), rss: make(map[int]float64),
		servers: make(map[int]float64), sum: make(map[int]float64), onFollower: make(map[int]float64),
	}
	for _, run := range r.Runs {
		if run.Cell != c || run.System != name {
			continue
		}
		s.variant, s.note = run.Variant, run.Note
		s.tps[run.Round] = run.TPS
		s.latency[run.Round] = float64(run.Latency) / float64(time.Millisecond)
		if run.Server() {
			s.cpu[run.Round] = run.perTransaction()
			s.rss[run.Round] = float64(run.RSS) / 1e6
		}
		if run.Servers > 0 {
			s.servers[run.Round] = micros(run.Servers, run.Transactions)
			s.sum[run.Round] = micros(run.CPU+run.Servers, run.Transactions)
			s.onFollower[run.Round] = 100 * run.OnFollower / max(1, run.Reads)
		}
	}
	return s
}

func values(byRound map[int]float64) []float64 {
	var v []float64
	for _, x := range byRound {
		v = append(v, x)
	}
	return v
}

// format prints a spread, as one number if its ends look alike, and nothing
// where nothing was measured.
func format(verb string, v []float64) string {
	if len(v) == 0 {
		return ""
	}
	s := spread(v)
	median, low, high := fmt.Sprintf(verb, s.Median), fmt.Sprintf(verb, s.Min), fmt.Sprintf(verb, s.Max)
	if low == high {
		return median
	}
	return fmt.Sprintf("%s (%s to %s)", median, low, high)
}

// Save writes the report with every raw run as JSON into dir, under the time of
// the first run, and returns the file's path. Durations are in nanoseconds.
func (r *Report) Save(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return "", err
	}
	at := time.Now()
	if len(r.Runs) > 0 {
		at = r.Runs[0].Began
	}
	path := filepath.Join(dir, at.UTC().Format("20060102T150405Z")+".json")
	return path, os.WriteFile(path, append(text, '\n'), 0o644)
}
