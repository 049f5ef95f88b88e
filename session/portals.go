package session

import (
	"slices"
	"strings"

	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// A portal lives as long as its transaction, so one that was made on a follower has
// to be there when the transaction goes on on the leader: the client may describe
// and execute it again. What was executed to its end is executed again there. What was
// not has a snapshot of the follower's, as an open cursor has, and keeps the transaction
// from moving.

// portal is one of the client's, in a transaction on a follower.
type portal struct {
	name  string
	stmt  *statement // nil: it cannot be made anew
	bind  []byte     // of the Bind message what follows the names
	note  string     // what is entered in the log when it is executed
	begun bool       // it has been
	done  bool       // to its end
}

// watchPortals takes down what the gathered batch does with portals, before it is sent.
func (s *session) watchPortals(b *batch) {
	if !b.complete { // the rest of it is not looked at
		s.opening.portals = nil
		return
	}
	for i := range s.cycle.steps {
		st := &s.cycle.steps[i]
		if st.raw {
			continue
		}
		body := s.bodyOf(st)
		switch {
		case st.typ == wire.Bind:
			st.portal = s.boundBy(st.stmt, body)
		case st.typ == wire.Close && st.wants == 'P':
			st.portal = s.portalAt(i, body[1:])
		case st.typ == wire.Execute:
			st.portal = s.portalAt(i, body)
		}
	}
}

// boundBy returns the portal that a Bind makes.
func (s *session) boundBy(stmt *statement, bind []byte) *portal {
	name, rest, _ := wire.CString(bind)
	_, rest, _ = wire.CString(rest)
	p := &portal{name: string(name)}
	if stmt == nil {
		return p
	}
	class := s.classOf(stmt)
	text, _, _ := wire.CString(stmt.body)
	p.note = noteOf(&class, string(text))
	if class.Reason != route.ReasonCursor { // that may be gone, or would be opened again
		p.stmt, p.bind = stmt, slices.Clone(rest)
	}
	return p
}

// portalAt returns the portal that the step with a number finds under the name at the
// beginning of body; nil if it is not known.
func (s *session) portalAt(number int, body []byte) *portal {
	name, _, _ := wire.CString(body)
	for i := number - 1; i >= 0; i-- {
		if st := &s.cycle.steps[i]; st.typ == wire.Bind && st.portal != nil && st.portal.name == string(name) {
			return st.portal
		}
	}
	return s.opening.portal(string(name))
}

func (o *opening) portal(name string) *portal {
	i := slices.IndexFunc(o.portals, func(p *portal) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	return o.portals[i]
}

// end takes note that there is no portal of a name any more.
func (o *opening) end(name string) {
	p := o.portal(name)
	if p == nil {
		return
	}
	o.portals = slices.DeleteFunc(o.portals, func(other *portal) bool { return other == p })
	if i := slices.IndexFunc(o.log, func(d deed) bool { return d.portal == p }); i >= 0 {
		if o.log[i].portal = nil; o.log[i].text == "" || o.log[i].text == haveRead && o.reads() > 1 {
			o.log = slices.Delete(o.log, i, i+1)
		}
	}
}

// enterPortals adds what was done by portals in a batch that was run without an error.
func (o *opening) enterPortals(s *session) {
	if s.cycle.class.Frees&route.PinCursor != 0 { // CLOSE is for portals, too
		for _, p := range o.portals {
			p.stmt = nil
		}
	}
	for i := range s.cycle.steps {
		st := &s.cycle.steps[i]
		switch p := st.portal; {
		case st.typ == wire.Query && st.act == relay:
			o.end("")
		case p == nil:
		case st.typ == wire.Bind:
			o.end(p.name)
			o.portals = append(o.portals, p)
		case st.typ == wire.Close:
			o.end(p.name)
		default:
			if !p.begun {
				o.add(deed{text: p.note, portal: p})
			}
			p.begun, p.done = true, !st.suspended
		}
	}
}

// again are the names of the portals that can be made anew, quoted and with a comma in
// front of each; lost reports whether one cannot that has no name, though the batch that
// is to come may go on with it.
func (o *opening) again(replaced bool) (names string, lost bool) {
	for _, p := range o.portals {
		switch {
		case p.name == "":
			lost = !replaced && p.stmt != nil && !p.done
		case p.stmt != nil && p.done && strings.Trim(p.name, plainName) == "":
			names += ",'" + p.name + "'"
		}
	}
	return names, lost
}

const plainName = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."

// replacesPortal reports whether the gathered batch ends the portal that has no name before
// it asks anything of it.
func (s *session) replacesPortal() bool {
	for i := range s.cycle.steps {
		st := &s.cycle.steps[i]
		body := s.bodyOf(st)
		if st.typ == wire.Describe && len(body) > 0 && st.wants == 'P' {
			body = body[1:]
		}
		switch portal, _, _ := wire.CString(body); {
		case st.typ == wire.Query, st.typ == wire.Bind && len(portal) == 0:
			return true
		case st.typ == wire.Execute && len(portal) == 0, st.typ == wire.Describe && st.wants == 'P' && len(portal) == 0:
			return false
		}
	}
	return false
}
