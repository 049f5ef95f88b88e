package equivalence

import "github.com/lsnproxy/lsnproxy/wire"

// due is what a client waits for: the messages it has sent whose answers are
// still to come. It knows of the protocol only what is needed to tell when all
// has been answered ("Message Flow" in the manual); whether the answers are right
// is for the comparison to say.
type due struct {
	messages []message
	copying  bool // the server reads a copy's data
	skipping bool // the server drops everything up to the next Sync
}

// send takes what is about to be sent.
func (d *due) send(messages []message) {
	d.messages = append(d.messages, messages...)
	d.drop()
}

// settled reports whether nothing more is to come.
func (d *due) settled() bool { return len(d.messages) == 0 || d.copying && len(d.messages) == 1 }

// drop removes what the server does not answer.
func (d *due) drop() {
	for d.copying && len(d.messages) > 1 {
		switch d.messages[1].typ {
		case wire.CopyDone, wire.CopyFail:
			d.copying = false // the answer to the copy itself is next
		case wire.CopyData, wire.Flush, wire.Sync:
		default:
			return // this ends the copy, and the session
		}
		d.messages = append(d.messages[:1:1], d.messages[2:]...)
	}
	for !d.copying && len(d.messages) > 0 {
		typ := d.messages[0].typ
		switch {
		case typ == wire.CopyData, typ == wire.CopyDone, typ == wire.CopyFail, typ == wire.Flush:
		case d.skipping && typ != wire.Sync:
		default:
			return
		}
		d.messages = d.messages[1:]
	}
}

// hear takes a message of the server's.
func (d *due) hear(typ byte) {
	if len(d.messages) == 0 {
		return
	}
	head := d.messages[0].typ
	simple := head == wire.Query || head == wire.FunctionCall
	switch typ {
	case wire.ReadyForQuery:
		d.copying, d.skipping = false, false
		d.pop()
	case wire.ErrorResponse:
		d.copying = false
		if !simple {
			d.skipping = true
		}
	case wire.CopyInResponse:
		d.copying = true
	case wire.ParseComplete, wire.BindComplete, wire.CloseComplete, wire.NoData, wire.PortalSuspended:
		d.pop()
	case wire.RowDescription:
		if head == wire.Describe {
			d.pop()
		}
	case wire.CommandComplete, wire.EmptyQueryResponse:
		if head == wire.Execute {
			d.pop()
		}
	}
	d.drop()
}

func (d *due) pop() { d.messages = d.messages[1:] }
