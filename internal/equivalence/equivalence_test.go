package equivalence_test

import (
	"strings"
	"testing"

	"github.com/lsnproxy/lsnproxy/internal/equivalence"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// TestServerIsLikeItself plays scenes twice on one server: whatever differs then
// would be blamed on others.
func TestServerIsLikeItself(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Settings: equivalence.Settings})
	leader := c.Nodes()[0]
	for seed := range uint64(16) {
		together := seed%2 == 1
		scene := equivalence.Generate(equivalence.Options{Seed: seed, Sessions: 1 + int(seed)%5, Steps: 200, Notify: !together})
		if again, err := equivalence.ReadScene(scene.String()); err != nil || again.String() != scene.String() {
			t.Fatalf("printed and read: %v", err)
		}
		var answers [2]equivalence.Answers
		for i := range answers {
			if err := equivalence.Reset(t.Context(), leader.URL("postgres")); err != nil {
				t.Fatal(err)
			}
			var err error
			if answers[i], err = scene.Play(leader.Addr(), together); err != nil {
				t.Fatalf("seed %d: %v\n%v", seed, err, scene)
			}
		}
		if diff := scene.Compare(answers[0], answers[1]); diff != nil {
			t.Errorf("seed %d: %v\n%v", seed, diff, scene[:diff.Step+1])
		}
	}
}

// TestShrink looks for two steps among many.
func TestShrink(t *testing.T) {
	scene := equivalence.Generate(equivalence.Options{Seed: 1, Sessions: 2, Steps: 100})
	calls := 0
	short := equivalence.Shrink(scene, func(s equivalence.Scene) bool {
		calls++
		text := s.String()
		return strings.Contains(text, "begin") && strings.Contains(text, "eq.noisy")
	})
	if len(short) > 2 || calls > 500 {
		t.Errorf("after %d calls:\n%v", calls, short)
	}
}
