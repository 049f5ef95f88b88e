package bench

import (
	"errors"
	"fmt"
	"slices"
	"strings"
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
	fmt.Fprintf(b, "| clients | %s | tps | to %s | latency, ms | CPU, us per transaction | CPU to %s |\n", v.Setting, base, base)
	b.WriteString("|--:|---|---|---|---|---|---|\n")
	for _, clients := range r.Options.Clients {
		cell := Cell{Workload: workload, Mode: mode, Clients: clients}
		first := r.of(cell, base)
		for _, value := range v.Values {
			s := r.of(cell, value)
			fmt.Fprintf(b, "| %d | %s | %s | %s | %s | %s | %s |\n", clients, value,
				format("%.0f", values(s.tps)), format("%.3f", ratios(s.tps, first.tps)),
				format("%.3f", values(s.latency)),
				format("%.1f", values(s.cpu)), format("%.2f", ratios(s.cpu, first.cpu)))
		}
	}
}
