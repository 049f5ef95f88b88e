package bench

import "slices"

// Spread is a handful of repeated measurements in short.
type Spread struct{ Median, Min, Max float64 }

// spread needs at least one value.
func spread(values []float64) Spread {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return Spread{Median: (v[(n-1)/2] + v[n/2]) / 2, Min: v[0], Max: v[n-1]}
}

// ratios divides a by b round by round. Rounds lie minutes apart on a machine
// whose speed wanders; the runs of one round lie side by side.
func ratios(a, b map[int]float64) []float64 {
	var r []float64
	for round, v := range a {
		if w, measured := b[round]; measured && w != 0 {
			r = append(r, v/w)
		}
	}
	return r
}
