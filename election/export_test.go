package election

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"
)

// World and Proxy open the simulation to the tests of the package that is built on
// this one, whose plan it then drives.
type (
	World = world
	Proxy = proxy
)

// RaceEnabled says that everything takes ten times as long.
const RaceEnabled = raceEnabled

// NewWorld makes a world whose coordinators do as plan says, at each of their
// heartbeats. begin is called at the start of each process.
func NewWorld(t testing.TB, seed uint64, plan func(*World, *Proxy)) *World {
	w := newWorld(t, seed)
	w.plan = func(*world, *proxy) {}
	w.each = plan
	return w
}

func (w *world) Run(steps int)                    { w.run(steps) }
func (w *world) Heal()                            { w.heal() }
func (w *world) Calm() bool                       { return w.calm }
func (w *world) Broken() []string                 { return w.broken }
func (w *world) Fail(format string, args ...any)  { w.fail(format, args...) }
func (w *world) Steps() int                       { return w.steps }
func (w *world) Now() time.Duration               { return w.now }
func (w *world) After(d time.Duration, do func()) { w.after(d, do) }
func (w *world) Clock(p *proxy) time.Duration     { return w.clock(p) }
func (w *world) Proxies() []*proxy                { return w.proxies }
func (w *world) Random() *rand.Rand               { return w.Rand }

// Live gives what a proxy may still write, and where.
func (w *world) Live(p *proxy) (epoch uint64, leader string) { return w.live(p) }

// Latest is the latest decree that stands anywhere.
func (w *world) Latest() (d Decree) {
	for epoch, o := range w.decrees {
		if epoch >= d.Epoch {
			d = o
		}
	}
	return d
}

func (p *proxy) ID() string             { return p.id }
func (p *proxy) Process() int           { return p.born }
func (p *proxy) Up() bool               { return p.core != nil && !p.frozen }
func (p *proxy) Coordinates() bool      { return p.core.coordinates() }
func (p *proxy) Decree() Decree         { return p.core.writer.decree }
func (p *proxy) Voters() int            { return len(p.core.record.Voters) }
func (p *proxy) Fenced(e uint64) bool   { return p.core.fenced(e) }
func (p *proxy) Busy() bool             { return len(p.core.waiting) > 0 }
func (p *proxy) Decide(from, to Decree) { p.core.request(command{Decide: &decision{from, to}}) }

func (p *proxy) Report(body json.RawMessage) { p.core.tellReport(body) }

// Reports gives what the voters have reported, and how old each is.
func (p *proxy) Reports() (bodies []json.RawMessage, ages []time.Duration) {
	c := p.core
	for _, o := range sorted(c.members) {
		h := c.coordinator.holders[holderID{o.id, o.incarnation}]
		if _, votes := c.record.Voters[o.number]; h != nil && votes && len(h.report) > 0 {
			bodies, ages = append(bodies, h.report), append(ages, c.now-h.reported)
		}
	}
	return bodies, ages
}
