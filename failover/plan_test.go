package failover

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lsnproxy/lsnproxy/lsn"
)

// kill ends the leader when the first follower has received less than the second.
func (w *world) kill(behind lsn.LSN) {
	w.write(5000)
	w.replicate()
	w.write(10)
	w.servers[1].received -= behind
	w.servers[1].replayed = w.servers[1].received
	w.servers[0].up = false
	w.look()
}

func TestFailoverPlan(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(w *world)
		leader  string
		blocked string // part of why; "" for none
	}{
		{"the furthest", func(w *world) { w.kill(400) }, "n3:5432", ""},
		{"of equals the first", func(w *world) { w.kill(0) }, "n2:5432", ""},
		{"received counts, not replayed", func(w *world) {
			w.kill(400)
			w.servers[2].replayed, w.servers[2].slow = 2000, true
		}, "n3:5432", ""},
		{"slow replay that may not be hastened", func(w *world) {
			w.kill(400)
			w.servers[2].replayed, w.servers[2].slow = 2000, true
			w.servers[2].refuses[Hasten] = "denied"
		}, "n3:5432", ""},
		{"an older timeline does not count", func(w *world) {
			w.kill(400)
			w.servers[2].timeline, w.decree.Timeline = 1, 2
			w.servers[0].timeline, w.servers[1].timeline = 2, 2
			w.servers[0].upstream, w.servers[2].upstream = "", "nowhere:1"
			w.restart()
			w.look()
		}, "n2:5432", ""},
		{"no rights to stop the receivers", func(w *world) {
			w.kill(400)
			w.servers[1].refuses[Quiet], w.servers[2].refuses[Quiet] = "denied", "denied"
		}, "n3:5432", ""},
		{"no rights to promote", func(w *world) {
			w.kill(400)
			for _, s := range w.servers {
				s.refuses[Open] = "permission denied for function pg_promote"
			}
		}, "", "permission denied for function pg_promote"},
		{"too much would be lost", func(w *world) {
			w.settings.MaxLost = 100
			w.write(5000)
			w.look()
			w.servers[0].up = false
		}, "", "failover.max_lost_bytes is 100"},
		{"a follower that is gone had more", func(w *world) {
			w.settings.MaxLost = 100
			w.kill(400)
			w.servers[2].up = false
		}, "", "lacks 400 bytes"},
		{"a proxy has acknowledged more than anybody has seen", func(w *world) {
			w.settings.MaxLost = 100
			w.kill(0)
			w.acked = []lsn.Position{{Timeline: 2, LSN: 1 << 30}, {Timeline: 1, LSN: w.servers[1].received + 101}}
		}, "", "lacks 101 bytes"},
		{"a follower that is gone, and enough is left", func(w *world) {
			w.kill(400)
			w.servers[2].up = false
		}, "n2:5432", ""},
		{"all are required", func(w *world) {
			w.settings.RequireAll = true
			w.kill(400)
			w.servers[2].up = false
		}, "", "failover.require_all_followers"},
		{"nobody is left", func(w *world) {
			w.kill(0)
			w.servers[1].up, w.servers[2].up = false, false
		}, "", "no follower on timeline 1"},
		{"sync, and nobody was synchronous", func(w *world) {
			w.settings.Sync = true
			w.kill(0)
		}, "", "had no synchronous standby"},
		{"sync", func(w *world) {
			w.settings.Sync = true
			w.servers[0].names = `ANY 1 ("n2", "n3")`
			w.look()
			w.kill(400)
		}, "n3:5432", ""},
		{"sync, and who may hold the last commit is gone", func(w *world) {
			w.settings.Sync = true
			w.servers[0].names = `ANY 1 ("n2", "n3")`
			w.look()
			w.kill(0)
			w.servers[2].up = false
		}, "", "only 1 can be measured; 2 are needed"},
		{"sync with both, one gone", func(w *world) {
			w.settings.Sync = true
			w.servers[0].names = `FIRST 2 (*)`
			w.look()
			w.kill(0)
			w.servers[2].up = false
		}, "n2:5432", ""},
		{"frozen", func(w *world) { w.servers[0].frozen = true }, "n2:5432", ""},
		{"back before the end of the timeout", func(w *world) {
			w.servers[0].up = false
			w.pass(2 * time.Second)
			w.servers[0].up = true
		}, "n1:5432", ""},
		{"promoted by somebody else", func(w *world) {
			w.servers[0].up = false
			w.servers[2].leader, w.servers[2].timeline = true, 2
		}, "n3:5432", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 3, 3)
			c.prepare(w)
			last := w.settle()
			switch {
			case c.blocked == "" && (last.Blocked || w.decree.Leader != c.leader):
				t.Errorf("leader %q, want %s; last %+v", w.decree.Leader, c.leader, last)
			case c.blocked != "" && (!last.Blocked || !strings.Contains(last.Why, c.blocked)):
				t.Errorf("leader %q, want blocked: %s; last %+v", w.decree.Leader, c.blocked, last)
			default:
				return
			}
			t.Log(strings.Join(w.log, "\n"))
		})
	}
}

// A leader that some proxies cannot reach is not lost, nor one that a follower hears
// from.
func TestNotLost(t *testing.T) {
	w := newWorld(t, 3, 3)
	w.servers[0].up = false
	w.pass(4 * time.Second)
	in := w.input()
	in.Sights[1].Silent, in.Sights[2].Silent = 0, 0
	if s := Next(in); s.Phase != Suspect || s.Do != Wait {
		t.Errorf("one of three: %+v", s)
	}
	in = w.input()
	n := &in.Nodes[2]
	n.Streaming, n.Receiving, n.Sender, n.Heard = true, true, "n1:5432", time.Second
	if s := Next(in); s.Phase != Agree || s.Do != Wait {
		t.Errorf("a follower hears from it: %+v", s)
	}
	n.Sender = "n2:5432"
	if s := Next(in); s.Do != Decide || s.Phase != Fence {
		t.Errorf("a follower hears from another follower: %+v", s)
	}
	n.Sender, n.Heard = "n1:5432", 4*time.Second
	if s := Next(in); s.Do != Decide || s.Phase != Fence {
		t.Errorf("a follower's last message is old: %+v", s)
	}
	in.Settings.Mode = Observe
	if s := Next(in); s.Do != Wait || s.Phase != Steady {
		t.Errorf("observing: %+v", s)
	}
}

// The old leader comes back while nobody can be promoted.
func TestReturn(t *testing.T) {
	w := newWorld(t, 3, 3)
	w.settings.RequireAll = true
	w.kill(0)
	w.servers[2].up = false
	if s := w.settle(); !s.Blocked {
		t.Fatalf("not blocked: %+v", s)
	}
	w.servers[0].up = true
	w.pass(0)
	if s := w.settle(); s.Blocked || w.decree.Leader != "n1:5432" || w.decree.Timeline != 1 {
		t.Fatalf("%+v, %+v\n%s", s, w.decree, strings.Join(w.log, "\n"))
	}
	if f := w.servers[1]; f.quieted || f.upstream != "n1:5432" {
		t.Errorf("a follower was left without a leader: %+v", f)
	}
	if len(w.notes) != 1 || w.notes[0].Trigger != Returned {
		t.Errorf("notes: %+v", w.notes)
	}
}

func TestSwitchoverPlan(t *testing.T) {
	for _, c := range []struct {
		name, to string
		prepare  func(w *world)
		leader   string
		refused  string
	}{
		{"the best", "", func(w *world) {}, "n2:5432", ""},
		{"wanted", "n3:5432", func(w *world) {}, "n3:5432", ""},
		{"the leader itself", "n1:5432", func(w *world) {}, "n1:5432", "leads already"},
		{"unknown", "n9:5432", func(w *world) {}, "n1:5432", "is not one of the nodes"},
		{"not there", "n3:5432", func(w *world) { w.servers[2].up = false }, "n1:5432", "no follower streams"},
		{"too far behind", "n3:5432", func(w *world) {
			w.servers[2].slow = true
			w.write(100 << 20)
		}, "n1:5432", "bytes behind"},
		{"replay stands", "n3:5432", func(w *world) {
			w.servers[2].slow = true
			w.write(5000)
		}, "n1:5432", ""},
		{"no rights but to promote", "n3:5432", func(w *world) {
			for _, s := range w.servers {
				s.refuses[Quiet], s.refuses[ReadOnly], s.refuses[Ready] = "denied", "denied", "denied"
			}
		}, "n3:5432", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 3, 3)
			c.prepare(w)
			w.pass(time.Millisecond)
			w.wish = &Wish{To: c.to}
			if s := w.settle(); s.Blocked || w.decree.Leader != c.leader {
				t.Errorf("leader %q, want %s; last %+v\n%s", w.decree.Leader, c.leader, s, strings.Join(w.log, "\n"))
			}
			if refused := strings.Join(w.refused, ""); !strings.Contains(refused, c.refused) || (refused != "") != (c.refused != "") {
				t.Errorf("refused: %q, want %q", refused, c.refused)
			}
			for _, s := range w.servers[1:] {
				if s.up && s.refuses[Quiet] == "" && s.quieted && !s.leader {
					t.Errorf("%s was left without a leader", s.address)
				}
			}
			if w.decree.Leader == "n1:5432" && w.servers[0].fenced {
				t.Error("the leader was left read-only")
			}
		})
	}
}

// Whatever fails, and however often the coordinator changes in the middle of it: nobody
// is promoted who should not be, and once all is well there is a leader.
func TestPlanHolds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) { play(rt, rt, nil) })
}

// play plays a random history; a bug may be put in.
func play(rt *rapid.T, j judge, seed func(*Input)) {
	w := newWorld(j, rapid.IntRange(2, 4).Draw(rt, "servers"), rapid.IntRange(1, 3).Draw(rt, "proxies"))
	w.seed = seed
	someone := rapid.IntRange(0, len(w.servers)-1)
	for range rapid.IntRange(5, 60).Draw(rt, "events") {
		switch rapid.IntRange(0, 11).Draw(rt, "event") {
		case 0:
			s := w.servers[someone.Draw(rt, "who")]
			s.up = !s.up
		case 1:
			s := w.servers[someone.Draw(rt, "who")]
			s.frozen = !s.frozen
		case 2:
			s := w.servers[someone.Draw(rt, "who")]
			s.slow = !s.slow
		case 3:
			w.restart()
		case 4:
			w.wish = &Wish{To: rapid.SampledFrom([]string{"", "n2:5432"}).Draw(rt, "to")}
		case 5, 6:
			w.write(lsn.LSN(rapid.IntRange(1, 5000).Draw(rt, "bytes")))
		case 7:
			s := w.servers[someone.Draw(rt, "who")] // receives a part of what there is
			if up := w.at(s.upstream); !s.leader && !s.quieted && s.answers() && up != nil && up.leader && up.answers() && up.received > s.received {
				s.received += (up.received - s.received) / 2
			}
		case 8:
			w.pass(time.Duration(rapid.IntRange(1, 4000).Draw(rt, "ms")) * time.Millisecond)
		case 9:
			if w.decree.Leader == "" {
				w.mayWrite[0], w.mayWrite[len(w.mayWrite)-1] = false, false
			}
		default:
			for range rapid.IntRange(1, 6).Draw(rt, "steps") {
				w.look()
				if w.step().Do == Wait {
					w.pass(500 * time.Millisecond)
				}
			}
		}
	}
	for _, s := range w.servers {
		s.up, s.frozen, s.slow = true, false, false
	}
	w.pass(0)
	if last := w.settle(); w.decree.Leader == "" && !last.Blocked {
		w.fail("all is well and there is no leader: %+v", last)
	} else if w.decree.Leader == "" {
		w.fail("all is well and it is blocked: %+v", last)
	}
}

// A bug that is put in on purpose is found: what never fails shows nothing.
func TestPlanFindsBugs(t *testing.T) {
	for name, seed := range map[string]func(*Input){
		"choice inverted": func(in *Input) {
			for i := range in.Nodes {
				in.Nodes[i].Received = 1<<40 - in.Nodes[i].Received
			}
			in.MaxLost = 1 << 62
		},
		"chosen by what is replayed": func(in *Input) {
			for i := range in.Nodes {
				in.Nodes[i].Received = in.Nodes[i].Replayed
			}
		},
		"replay not drained": func(in *Input) {
			for i := range in.Nodes {
				in.Nodes[i].Replayed = in.Nodes[i].Received
			}
		},
		"fence skipped": func(in *Input) { in.Fenced = true },
	} {
		t.Run(name, func(t *testing.T) {
			found := &finder{}
			for seedling := 0; seedling < 3000 && found.first == ""; seedling++ {
				rapid.Custom(func(rt *rapid.T) int {
					play(rt, found, seed)
					return 0
				}).Example(seedling)
			}
			if found.first == "" {
				t.Error("not found")
			}
		})
	}
}

// A frozen leader thaws when the target is chosen and not yet promoted. The follower
// that was not chosen must not get ahead of it, and does if its receiver goes on.
func TestThaw(t *testing.T) {
	notStopped := func(in *Input) {
		for i := range in.Nodes {
			in.Nodes[i].Quieted, in.Nodes[i].QuietedIn, in.Nodes[i].Receiving = true, in.Decree.Epoch, false
		}
	}
	for _, seed := range []func(*Input){nil, notStopped} {
		found := &finder{}
		w := newWorld(found, 3, 3)
		w.seed = seed
		w.write(5000)
		w.servers[0].frozen = true
		w.before = func(s Step) bool {
			if s.Do == Open {
				w.servers[0].frozen = false
				w.servers[1].quieted, w.servers[1].quietedIn = true, w.decree.Epoch
				w.pass(0)
			}
			return true
		}
		w.settle()
		if (found.first == "") != (seed == nil) {
			t.Errorf("a bug was put in: %v; found: %q\n%s", seed != nil, found.first, strings.Join(w.log, "\n"))
		}
	}
}

// finder notes the first thing that fails.
type finder struct{ first string }

func (f *finder) Helper() {}

func (f *finder) Errorf(format string, args ...any) {
	if f.first == "" {
		f.first = format
	}
}

// Wherever the coordinator is replaced, before or after what it did took effect, the
// same node is promoted and the same record is written.
func TestResume(t *testing.T) {
	for name, begin := range map[string]func(*world){
		"failover":   func(w *world) { w.kill(400) },
		"switchover": func(w *world) { w.wish = &Wish{To: "n3:5432"} },
	} {
		t.Run(name, func(t *testing.T) {
			steps := 1000
			for at := 0; at < steps; at++ {
				for _, done := range []bool{false, true} {
					w := newWorld(t, 3, 3)
					begin(w)
					count := 0
					w.before = func(s Step) bool {
						if s.Do == Wait {
							return true
						}
						count++
						if count-1 != at {
							return true
						}
						if done {
							w.apply(s)
						}
						wish := w.wish
						w.restart()
						w.wish = wish
						return false
					}
					w.settle()
					if at == 0 && !done {
						steps = count
					}
					if w.decree.Leader != "n3:5432" || w.decree.Timeline != 2 || len(w.notes) == 0 || w.servers[1].upstream != "n3:5432" {
						t.Errorf("replaced at step %d (done %v): %+v, notes %v\n%s", at, done, w.decree, w.notes, strings.Join(w.log, "\n"))
					}
				}
			}
			if steps < 6 {
				t.Errorf("only %d steps", steps)
			}
		})
	}
}
