package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/lsnproxy/lsnproxy/route"
)

type readsConfig struct {
	Consistency    route.Level     `mapstructure:"consistency"`
	Staleness      time.Duration   `mapstructure:"staleness"`       // 0: no bound
	StalenessBytes size            `mapstructure:"staleness_bytes"` // 0: no bound
	Wait           time.Duration   `mapstructure:"wait"`
	LevelWait      levelWait       `mapstructure:"level_wait"`
	Fallback       route.Fallback  `mapstructure:"fallback"`
	NoFollower     route.Fallback  `mapstructure:"no_follower"`
	Delivery       route.Delivery  `mapstructure:"delivery"`
	LostWrite      route.LostWrite `mapstructure:"lost_write"`
	Optimistic     bool            `mapstructure:"optimistic"`

	MaxLag      time.Duration  `mapstructure:"max_lag"`       // 0: no limit
	MaxLagBytes size           `mapstructure:"max_lag_bytes"` // 0: no limit
	Prefer      string         `mapstructure:"prefer"`        // weight or nearest
	Weights     []weightConfig `mapstructure:"weights"`
	SlowStart   time.Duration  `mapstructure:"slow_start"`
	ReturnAfter time.Duration  `mapstructure:"return_after"` // 0: never
	Silence     time.Duration  `mapstructure:"silence"`      // 0: no limit
}

type weightConfig struct {
	Node   string `mapstructure:"node"`
	Weight int    `mapstructure:"weight"`
}

// levelWait is what levels have in the place of wait.
type levelWait struct {
	Strong   *time.Duration `mapstructure:"strong"`
	Service  *time.Duration `mapstructure:"service"`
	Session  *time.Duration `mapstructure:"session"`
	Bounded  *time.Duration `mapstructure:"bounded"`
	Eventual *time.Duration `mapstructure:"eventual"`
}

// over returns w with what o says in the place of what w says.
func (o levelWait) over(w levelWait) levelWait {
	all := w.all()
	for level, wait := range o.all() {
		if *wait != nil {
			*all[level] = *wait
		}
	}
	return w
}

func (w *levelWait) all() map[route.Level]**time.Duration {
	return map[route.Level]**time.Duration{
		route.LevelStrong: &w.Strong, route.LevelService: &w.Service, route.LevelSession: &w.Session,
		route.LevelBounded: &w.Bounded, route.LevelEventual: &w.Eventual,
	}
}

// policy is what the sessions begin with.
func (r *readsConfig) policy() route.Policy {
	var waits [route.LevelCount]route.LevelWait
	for level, wait := range r.LevelWait.all() {
		if *wait != nil {
			waits[level] = route.LevelWait{Set: true, Time: **wait}
		}
	}
	return route.Policy{
		Level: r.Consistency, MaxAge: r.Staleness, MaxBytes: uint64(r.StalenessBytes),
		Wait: r.Wait, Waits: waits, Spent: r.Fallback, NoFollower: r.NoFollower,
		Delivery: r.Delivery, Lost: r.LostWrite, Optimistic: r.Optimistic,
	}
}

// readsOverride is what a database or a user has instead of what the section
// reads says.
type readsOverride struct {
	Consistency    *route.Level     `mapstructure:"consistency"`
	Staleness      *time.Duration   `mapstructure:"staleness"`
	StalenessBytes *size            `mapstructure:"staleness_bytes"`
	Wait           *time.Duration   `mapstructure:"wait"`
	LevelWait      levelWait        `mapstructure:"level_wait"`
	Fallback       *route.Fallback  `mapstructure:"fallback"`
	NoFollower     *route.Fallback  `mapstructure:"no_follower"`
	Delivery       *route.Delivery  `mapstructure:"delivery"`
	LostWrite      *route.LostWrite `mapstructure:"lost_write"`
	Optimistic     *bool            `mapstructure:"optimistic"`
}

// over returns r with what o says in the place of what r says.
func (o readsOverride) over(r readsConfig) readsConfig {
	replace(&r.Consistency, o.Consistency)
	replace(&r.Staleness, o.Staleness)
	replace(&r.StalenessBytes, o.StalenessBytes)
	if o.Wait != nil { // at every level
		r.Wait, r.LevelWait = *o.Wait, levelWait{}
	}
	r.LevelWait = o.LevelWait.over(r.LevelWait)
	replace(&r.Fallback, o.Fallback)
	replace(&r.NoFollower, o.NoFollower)
	replace(&r.Delivery, o.Delivery)
	replace(&r.LostWrite, o.LostWrite)
	replace(&r.Optimistic, o.Optimistic)
	return r
}

// readsOf is what holds for a user in a database, as with poolOf.
func (c *config) readsOf(database, user string) readsConfig {
	r := c.Reads
	for _, d := range c.Databases {
		if d.Name == database {
			r = d.Reads.over(r)
		}
	}
	for _, u := range c.Users {
		if u.Name == user {
			r = u.Reads.over(r)
		}
	}
	return r
}

// unbounded reports whether the level is bounded, and there is no bound.
func (r readsConfig) unbounded() bool {
	return r.Consistency == route.LevelBounded && r.Staleness == 0 && r.StalenessBytes == 0
}

// weights are the nodes' weights, in their order; nil if none is given.
func (c *config) weights() []uint {
	if len(c.Reads.Weights) == 0 {
		return nil
	}
	all := make([]uint, len(c.Nodes))
	for i, node := range c.Nodes {
		all[i] = 1
		for _, w := range c.Reads.Weights {
			if w.Node == node {
				all[i] = uint(w.Weight)
			}
		}
	}
	return all
}

func (c *config) checkReads(found *problems) {
	r := &c.Reads
	all := readsOverride{Consistency: &r.Consistency, Staleness: &r.Staleness, Wait: &r.Wait, LevelWait: r.LevelWait}
	all.check("reads", *r, found)
	for i, d := range c.Databases {
		d.Reads.check(fmt.Sprintf("databases[%d].reads", i), *r, found)
	}
	for i, u := range c.Users {
		u.Reads.check(fmt.Sprintf("users[%d].reads", i), *r, found)
	}
	for _, d := range c.Databases {
		for i, u := range c.Users {
			if c.readsOf(d.Name, u.Name).unbounded() {
				found.add(fmt.Sprintf("users[%d].reads", i), "in database %s the level is bounded, and there is no bound", d.Name)
			}
		}
	}
	notNegative(found, "reads.max_lag", &r.MaxLag)
	notNegative(found, "reads.slow_start", &r.SlowStart)
	notNegative(found, "reads.return_after", &r.ReturnAfter)
	notNegative(found, "reads.silence", &r.Silence)
	if p := r.Prefer; p != "weight" && p != "nearest" {
		found.add("reads.prefer", "want weight or nearest, not %q", p)
	}
	for i, w := range r.Weights {
		key := fmt.Sprintf("reads.weights[%d]", i)
		if len(c.Nodes) > 0 && !slices.Contains(c.Nodes, w.Node) {
			found.add(key+".node", "%q is not one of nodes", w.Node)
		}
		if slices.ContainsFunc(r.Weights[:i], func(o weightConfig) bool { return o.Node == w.Node }) {
			found.add(key+".node", "%s is there twice", w.Node)
		}
		if w.Weight < 0 || w.Weight > 1000 {
			found.add(key+".weight", "must be from 0 to 1000, not %d", w.Weight)
		}
	}
}

// check finds what makes no sense of the values that stand in one section, over r.
func (o readsOverride) check(at string, r readsConfig, found *problems) {
	notNegative(found, at+".staleness", o.Staleness)
	notNegative(found, at+".wait", o.Wait)
	for level, wait := range o.LevelWait.all() {
		notNegative(found, at+".level_wait."+level.String(), *wait)
	}
	if !o.over(r).unbounded() {
		return
	}
	switch {
	case o.Consistency != nil:
		found.add(at+".consistency", "bounded needs a bound: staleness or staleness_bytes")
	case o.Staleness != nil:
		found.add(at+".staleness", "there is no bound left, and the level is bounded")
	case o.StalenessBytes != nil:
		found.add(at+".staleness_bytes", "there is no bound left, and the level is bounded")
	}
}
