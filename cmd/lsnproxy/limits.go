package main

import (
	"fmt"
	"time"

	"github.com/lsnproxy/lsnproxy/pool"
	"github.com/lsnproxy/lsnproxy/session"
)

// poolOverride is what a database or a user has instead of what the section
// pool says.
type poolOverride struct {
	Mode        *session.Mode  `mapstructure:"mode"`
	Size        *int           `mapstructure:"size"`
	Min         *int           `mapstructure:"min"`
	Reserve     *int           `mapstructure:"reserve"`
	ReserveWait *time.Duration `mapstructure:"reserve_wait"`
	Wait        *time.Duration `mapstructure:"wait"`
	Idle        *time.Duration `mapstructure:"idle"`
	Lifetime    *time.Duration `mapstructure:"lifetime"`
}

// over returns p with what o says in the place of what p says.
func (o poolOverride) over(p poolConfig) poolConfig {
	replace(&p.Mode, o.Mode)
	replace(&p.Size, o.Size)
	replace(&p.Min, o.Min)
	replace(&p.Reserve, o.Reserve)
	replace(&p.ReserveWait, o.ReserveWait)
	replace(&p.Wait, o.Wait)
	replace(&p.Idle, o.Idle)
	replace(&p.Lifetime, o.Lifetime)
	return p
}

func replace[T any](value, by *T) {
	if by != nil {
		*value = *by
	}
}

// poolOf is what holds for a user in a database: what is said of the user over
// what is said of the database over what is said of all. So are maxima counted
// for the database and for the user.
func (c *config) poolOf(database, user string) (p poolConfig, clientsOfDatabase, clientsOfUser int) {
	p, clientsOfDatabase, clientsOfUser = c.Pool, c.MaxDatabaseClients, c.MaxUserClients
	for _, d := range c.Databases {
		if d.Name == database {
			p = d.Pool.over(p)
			replace(&p.MaxDatabaseConnections, d.MaxConnections)
			replace(&clientsOfDatabase, d.MaxClients)
		}
	}
	for _, u := range c.Users {
		if u.Name == user {
			p = u.Pool.over(p)
			replace(&p.MaxUserConnections, u.MaxConnections)
			replace(&clientsOfUser, u.MaxClients)
		}
	}
	return p, clientsOfDatabase, clientsOfUser
}

// limitsOf is poolOf as the pool wants it.
func (c *config) limitsOf(database, user string) pool.Limits {
	p, _, _ := c.poolOf(database, user)
	return pool.Limits{
		Size: p.Size, Min: p.Min, Reserve: p.Reserve, Pressed: p.ReserveWait,
		Wait: p.Wait, Idle: p.Idle, Lifetime: p.Lifetime,
		OfDatabase: p.MaxDatabaseConnections, OfUser: p.MaxUserConnections,
	}
}

// policyOf is poolOf and readsOf as the sessions want them.
func (c *config) policyOf(database, user string) session.Policy {
	p, ofDatabase, ofUser := c.poolOf(database, user)
	all := session.Policy{Mode: p.Mode, OfDatabase: ofDatabase, OfUser: ofUser}
	of := c.readsOf(database, user)
	if reads := of.policy(); reads != c.Reads.policy() {
		all.Reads = &reads
	}
	return all
}

// checkPools finds the limits that make no sense, each where it is written.
func (c *config) checkPools(found *problems) {
	p := &c.Pool
	all := poolOverride{
		Size: &p.Size, Min: &p.Min, Reserve: &p.Reserve, ReserveWait: &p.ReserveWait, Wait: &p.Wait, Idle: &p.Idle, Lifetime: &p.Lifetime,
	}
	all.check("pool", *p, found)
	atLeast(found, "pool.max_database_connections", 0, &p.MaxDatabaseConnections)
	atLeast(found, "pool.max_user_connections", 0, &p.MaxUserConnections)
	atLeast(found, "max_database_clients", 0, &c.MaxDatabaseClients)
	atLeast(found, "max_user_clients", 0, &c.MaxUserClients)
	for i, d := range c.Databases {
		at := fmt.Sprintf("databases[%d]", i)
		d.Pool.check(at+".pool", *p, found)
		atLeast(found, at+".max_connections", 0, d.MaxConnections)
		atLeast(found, at+".max_clients", 0, d.MaxClients)
	}
	for i, u := range c.Users {
		at := fmt.Sprintf("users[%d]", i)
		u.Pool.check(at+".pool", *p, found)
		atLeast(found, at+".max_connections", 0, u.MaxConnections)
		atLeast(found, at+".max_clients", 0, u.MaxClients)
	}
}

// check finds what makes no sense of the values that stand in one section, over p.
func (o poolOverride) check(at string, p poolConfig, found *problems) {
	atLeast(found, at+".size", 1, o.Size)
	atLeast(found, at+".min", 0, o.Min)
	atLeast(found, at+".reserve", 0, o.Reserve)
	notNegative(found, at+".reserve_wait", o.ReserveWait)
	notNegative(found, at+".idle", o.Idle)
	notNegative(found, at+".lifetime", o.Lifetime)
	if o.Wait != nil && *o.Wait <= 0 {
		found.add(at+".wait", "must be more than 0, not %v", *o.Wait)
	}
	key := at + ".min"
	switch p = o.over(p); {
	case p.Min <= p.Size || o.Min == nil && o.Size == nil:
		return
	case o.Min == nil:
		key = at + ".size"
	}
	found.add(key, "%d connections are to be kept open, but at most %d may be", p.Min, p.Size)
}

// atLeast finds a number that is too small; nil is none.
func atLeast(found *problems, key string, least int, n *int) {
	if n != nil && *n < least {
		found.add(key, "must be at least %d, not %d", least, *n)
	}
}

// notNegative finds a time below 0; nil is none.
func notNegative(found *problems, key string, d *time.Duration) {
	if d != nil && *d < 0 {
		found.add(key, "must not be negative: %v", *d)
	}
}
