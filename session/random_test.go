package session_test

import (
	"cmp"
	"fmt"
	"testing"

	"github.com/lsnproxy/lsnproxy/internal/equivalence"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// stage is where scenes are played: a server that nobody stands in front of, and
// a cluster behind proxies.
type stage struct {
	oracle  *pgcluster.Node
	cluster *pgcluster.Cluster
	change  func(*settings) // of the proxy; may be nil
}

func newStage(t *testing.T) stage {
	return stage{
		oracle:  pgtest.Start(t, pgcluster.Options{Settings: equivalence.Settings}).Nodes()[0],
		cluster: pgtest.Start(t, pgcluster.Options{Settings: equivalence.Settings, Followers: 2}),
	}
}

// act is how a scene is played.
type act struct {
	pool     int
	together bool
}

// play plays a scene before both and returns the first difference. The proxy is a
// new one, so that the scene alone decides what its connections have been
// through. A scene that the server itself leaves unanswered shows nothing.
func (st stage) play(t *testing.T, scene equivalence.Scene, a act) (diff *equivalence.Difference, unplayable error) {
	t.Helper()
	for _, n := range []*pgcluster.Node{st.oracle, st.cluster.Nodes()[0]} {
		if err := equivalence.Reset(t.Context(), n.URL("postgres")); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("scene", func(t *testing.T) {
		p := startProxy(t, st.cluster, func(s *settings) {
			s.pool.Size = a.pool
			s.session.Statements = 5 // so that statements are evicted all the time
			if st.change != nil {
				st.change(s)
			}
		})
		p.awaitFollowers(t, 2)
		p.awaitDefinitions(t)
		// Before somebody has asked for what nextval left, or for a custom setting that
		// was not made, no connection is kept or closed for that.
		p.dialRaw(t, nil).say(query("select lastval(), current_setting('eq.mine', true)"))
		want, err := scene.Play(st.oracle.Addr(), a.together)
		if unplayable = err; err != nil {
			return
		}
		got, err := scene.Play(p.addr, a.together)
		if diff = scene.Compare(want, got); diff == nil && err != nil {
			t.Fatalf("%v\n%v", err, scene)
		}
		if n := p.server.Stat().Panics; n > 0 {
			t.Errorf("%d panics", n)
		}
	})
	return diff, unplayable
}

// demandSame plays a scene; if it differs, the shortest that does is printed.
func (st stage) demandSame(t *testing.T, scene equivalence.Scene, a act) {
	t.Helper()
	diff, err := st.play(t, scene, a)
	if err != nil {
		t.Fatalf("the scene cannot be played: %v\n%v", err, scene)
	}
	if diff == nil {
		return
	}
	t.Logf("%+v: %v", a, diff)
	if !a.together {
		scene = scene[:diff.Step+1]
	}
	differs := func(s equivalence.Scene) bool {
		d, _ := st.play(t, s, a)
		diff = cmp.Or(d, diff)
		return d != nil
	}
	if differs(scene) {
		scene = equivalence.Shrink(scene, differs)
	}
	t.Errorf("%+v: %v\n%v", a, diff, scene)
}

// playScenes makes and plays scenes of so many steps until they have so many
// statements, and returns how many they had.
func playScenes(t *testing.T, seed uint64, steps, statements int) (played int) {
	st := newStage(t)
	acts := []act{{20, false}, {1, true}, {2, true}, {20, true}}
	for n := 0; played < statements && !t.Failed(); n++ {
		a := acts[n%len(acts)]
		scene := equivalence.Generate(equivalence.Options{
			Seed: seed + uint64(n), Sessions: 1 + n%5, Steps: steps, Notify: !a.together,
		})
		played += scene.Statements()
		t.Run(fmt.Sprintf("%d", seed+uint64(n)), func(t *testing.T) { st.demandSame(t, scene, a) })
	}
	return played
}

// TestRandomSessions plays the same scenes at every run.
func TestRandomSessions(t *testing.T) { playScenes(t, 1, 400, 3000) }
