// Package equivalence holds random conversations with two addresses, a server
// and whatever claims to be like it, and compares all that a client can see.
//
// A Scene is what several sessions say, in order. Generate makes one from a seed,
// Play holds it with an address, Compare names the first difference, Shrink finds
// the shortest scene that still differs. The server is the oracle: the generator
// needs not know what is right, only what is the same at every run.
package equivalence

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/lsnproxy/lsnproxy/wire"
)

// message is one message of the client's. Its type is 0 for a startup packet,
// which has none.
type message struct {
	typ  byte
	body string
}

// append adds the message as it is sent.
func (m message) append(b []byte) []byte {
	if m.typ != 0 {
		b = append(b, m.typ)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.body)+4))
	return append(b, m.body...)
}

// Step is what one session says in one write. The answer is awaited before the
// session's next step.
type Step struct {
	Session  int
	messages []message
}

// Scene is a conversation, of all its sessions.
type Scene []Step

// Statements counts what a server would execute: Query, Execute, FunctionCall.
func (s Scene) Statements() (n int) {
	for _, step := range s {
		for _, m := range step.messages {
			switch m.typ {
			case wire.Query, wire.Execute, wire.FunctionCall:
				n++
			}
		}
	}
	return n
}

// String prints the scene as ReadScene reads it: a line for each step, with the
// session's number and its messages, each a type and a quoted body.
func (s Scene) String() string {
	var b strings.Builder
	for _, step := range s {
		b.WriteString(strconv.Itoa(step.Session))
		for _, m := range step.messages {
			typ := m.typ
			if typ == 0 {
				typ = '^'
			}
			fmt.Fprintf(&b, " %c%s", typ, strconv.QuoteToASCII(m.body))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// ReadScene reads what String has printed. Empty lines and lines that begin with
// a number sign are left out.
func ReadScene(text string) (Scene, error) {
	var scene Scene
	for n, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		step, err := readStep(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		scene = append(scene, step)
	}
	return scene, nil
}

func readStep(line string) (Step, error) {
	var step Step
	number, rest, _ := strings.Cut(line, " ")
	var err error
	if step.Session, err = strconv.Atoi(number); err != nil {
		return step, err
	}
	for rest != "" {
		typ := rest[0]
		quoted, err := strconv.QuotedPrefix(rest[1:])
		if err != nil {
			return step, err
		}
		body, err := strconv.Unquote(quoted)
		if err != nil {
			return step, err
		}
		if typ == '^' {
			typ = 0
		}
		step.messages = append(step.messages, message{typ, body})
		rest = strings.TrimPrefix(rest[1+len(quoted):], " ")
	}
	return step, nil
}
