package session

import (
	"maps"
	"strings"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/route"
)

// A custom setting is missing until somebody sets it ("Customized Options" in the
// manual); from then on it is there until the end of the server's session, if only
// as an empty string: PostgreSQL cannot unmake it. A session that has made one takes it
// along. One that has not must not find it: whoever asks for one has shown that this
// counts, and from then on a connection on which it was made is closed rather than lent
// to a session that has not made it. Where nobody asks, nothing is closed.

// misses takes note of custom settings that are asked for and that the session has not
// made.
func (s *session) misses(names string) {
	for name := range strings.FieldsSeq(names) {
		if s.has(name) {
			continue
		}
		for { // other loops do the same
			before := s.db.missed.Load()
			if before != nil && (*before)[name] {
				break
			}
			after := map[string]bool{name: true}
			if before != nil {
				maps.Copy(after, *before)
			}
			if s.db.missed.CompareAndSwap(before, &after) {
				break
			}
		}
	}
}

// has reports whether the session has made a custom setting, or is about to.
func (s *session) has(name string) bool {
	if _, ok := s.settings.Values[name]; ok {
		return true
	}
	return strings.Contains(" "+s.touched+" ", " "+name+" ")
}

// minds reports whether the session would find a custom setting on a connection that it
// has not made, where that counts.
func (s *session) minds(c *backend.Conn) bool {
	if s.db == nil { // logging in
		return false
	}
	missed := s.db.missed.Load()
	if missed == nil {
		return false
	}
	for name := range c.Made {
		if (*missed)[name] && !s.has(name) {
			return true
		}
	}
	return false
}

// made takes note of the custom settings that a connection has.
func made(c *backend.Conn) {
	for name := range c.Set {
		if !strings.Contains(name, ".") || c.Made[name] {
			continue
		}
		if c.Made == nil {
			c.Made = make(map[string]bool)
		}
		c.Made[name] = true
	}
}

// madeLocally notes that the session has set custom settings for a transaction. What
// they are afterwards, empty strings unless they belong to a library, is asked once.
func (s *session) madeLocally(names string) {
	for name := range strings.FieldsSeq(names) {
		if !s.has(name) {
			s.touched = route.Union(s.touched, name)
		}
	}
}
