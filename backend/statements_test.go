package backend_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/lsnproxy/lsnproxy/backend"
)

// TestStatements holds the set against a plain list, most recently used last.
func TestStatements(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s backend.Statements
		var want []uint64
		id := rapid.Uint64Range(1, 12)
		use := func(n uint64) bool {
			i := slices.Index(want, n)
			if i >= 0 {
				want = append(slices.Delete(want, i, i+1), n)
			}
			return i >= 0
		}
		t.Repeat(map[string]func(*rapid.T){
			"has": func(t *rapid.T) {
				n := id.Draw(t, "id")
				if got := s.Has(n); got != use(n) {
					t.Fatalf("Has(%d) = %v, the list is %v", n, got, want)
				}
			},
			"add": func(t *rapid.T) {
				n := id.Draw(t, "id")
				s.Add(n)
				if !slices.Contains(want, n) {
					want = append(want, n)
				}
			},
			"remove": func(t *rapid.T) {
				n := id.Draw(t, "id")
				s.Remove(n)
				want = slices.DeleteFunc(want, func(x uint64) bool { return x == n })
			},
			"clear": func(t *rapid.T) {
				n := id.Draw(t, "unnamed")
				s.Unnamed = n
				s.Clear()
				want = nil
				if s.Unnamed != n {
					t.Fatal("Clear has ended the unnamed statement")
				}
			},
			"": func(t *rapid.T) {
				for most := range 13 {
					got, ok := s.Oldest(most)
					if ok != (len(want) > most) || ok && got != want[0] {
						t.Fatalf("Oldest(%d) = %d, %v; the list is %v", most, got, ok, want)
					}
				}
			},
		})
	})
}
