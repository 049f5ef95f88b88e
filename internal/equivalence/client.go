package equivalence

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/lsnproxy/lsnproxy/wire"
)

// patience is how long a client waits for an answer. It is no measure: whoever
// waits that long waits for something that does not come.
const patience = 30 * time.Second

// client is one session's connection.
type client struct {
	addr string
	me   int
	conn net.Conn // nil while there is none
	in   *bufio.Reader
	due  due
	veil veil
}

// say takes a step and returns what is heard until all has been answered, a line
// for each message.
func (c *client) say(step Step) (lines []string, err error) {
	messages := step.messages
	if messages[0].typ == 0 {
		if lines, err = c.open(messages[0]); err != nil || c.conn == nil {
			return lines, err
		}
		messages = messages[1:]
	} else if c.conn == nil {
		if lines, err = c.open(startup(nil)); err != nil || c.conn == nil {
			return lines, err
		}
	}
	c.due.send(messages)
	heard, err := c.converse(messages)
	return append(lines, forward(heard, c.me)...), err
}

// startup makes the packet that begins a session, of postgres in its own database.
func startup(params []string) message {
	body := "\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00"
	for _, p := range params {
		body += p + "\x00"
	}
	return message{0, body + "\x00"}
}

// acquaint is what every session says first. It is a write, so that a session
// which reads what the one before it in its place has written has a position to
// wait for: without one, a new session may see an older state.
var acquaint = message{wire.Query, "do $$begin end$$\x00"}

// open begins a session; one that there is ends.
func (c *client) open(start message) ([]string, error) {
	if c.conn != nil {
		if _, err := c.converse([]message{{wire.Terminate, ""}}); err != nil {
			return nil, err
		}
	}
	conn, err := net.DialTimeout("tcp", c.addr, patience)
	if err != nil {
		return nil, err
	}
	c.conn, c.in, c.veil = conn, bufio.NewReaderSize(conn, 64<<10), veil{login: true}
	c.due = due{messages: []message{{wire.Sync, ""}}} // its ReadyForQuery ends the login
	lines, err := c.converse([]message{start})
	if err != nil {
		return lines, err
	}
	if c.conn == nil { // refused
		return slices.DeleteFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "E ") }), nil
	}
	// In which order a server reports its parameters at login is nowhere said.
	first := slices.IndexFunc(lines, isParameter)
	after := first + slices.IndexFunc(lines[first:], func(l string) bool { return !isParameter(l) })
	slices.Sort(lines[first:after])
	c.veil.login = false
	c.due.send([]message{acquaint})
	more, err := c.converse([]message{acquaint})
	return append(lines, more...), err
}

func isParameter(line string) bool { return strings.HasPrefix(line, "S ") }

// converse sends messages and reads until nothing is due, or the connection ends.
func (c *client) converse(messages []message) (lines []string, err error) {
	var out []byte
	last := false
	for _, m := range messages {
		out = m.append(out)
		last = last || m.typ == wire.Terminate
	}
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	written := make(chan struct{})
	go func() { // the other end may have to be read meanwhile; the deadline ends it, and it is waited for
		defer close(written)
		_, _ = c.conn.Write(out)
	}()
	for last || !c.due.settled() {
		line, err := c.hear()
		if line != "" {
			lines = append(lines, line)
		}
		if err != nil {
			_ = c.conn.Close()
			<-written
			c.conn = nil
			if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
				return lines, fmt.Errorf("nothing comes after %q", lines)
			}
			return append(lines, "the end"), nil
		}
	}
	<-written
	return lines, nil
}

// hear reads one message and tells it in a line, an empty one if it does not count.
func (c *client) hear() (string, error) {
	var head [wire.HeaderLen]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return "", err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size < 4 || size > wire.MaxMessage {
		return "", fmt.Errorf("a message of type %q and length %d", head[0], size)
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(c.in, body); err != nil {
		return "", err
	}
	c.due.hear(head[0])
	return c.veil.line(head[0], body), nil
}

// forward puts the notifications of other sessions first. A server tells of them
// while it waits for a request or else at its end, whichever comes first, and
// that is a race on every server; those of the session itself have their place.
// A payload begins with the number of its sender.
func forward(lines []string, me int) []string {
	foreign := func(line string) bool {
		return strings.HasPrefix(line, "A ") && !strings.Contains(line, fmt.Sprintf(`\x00from %d`, me))
	}
	slices.SortStableFunc(lines, func(a, b string) int {
		switch {
		case foreign(a) == foreign(b):
			return 0
		case foreign(a):
			return -1
		}
		return 1
	})
	return lines
}
