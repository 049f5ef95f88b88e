package equivalence_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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

// TestFunctionNames shows on a server alone what veil says of the functions in contexts:
// two sessions with the same search_path are told otherwise.
func TestFunctionNames(t *testing.T) {
	leader := pgtest.Start(t, pgcluster.Options{Settings: equivalence.Settings}).Nodes()[0]
	if err := equivalence.Reset(t.Context(), leader.URL("postgres")); err != nil {
		t.Fatal(err)
	}
	for called, want := range map[bool]string{false: "function fails(integer)", true: "function eq.fails(integer)"} {
		conn, err := pgx.Connect(t.Context(), leader.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		if called {
			_, _ = conn.Exec(t.Context(), "select eq.fails(1)")
		}
		_, err = conn.Exec(t.Context(), "set search_path = eq; select fails(1)")
		var e *pgconn.PgError
		if !errors.As(err, &e) || !strings.Contains(e.Where, want) {
			t.Errorf("called before: %v: %+v, want %s", called, e, want)
		}
		_ = conn.Close(t.Context())
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
