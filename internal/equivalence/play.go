package equivalence

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Answers is what was heard, step by step.
type Answers [][]string

// Play holds a scene with the server at addr. Together, every session speaks as
// fast as it can, so that they contend for what there is; else one step follows
// the other. It fails only if something does not come that has to.
func (s Scene) Play(addr string, together bool) (Answers, error) {
	sessions := 0
	for _, step := range s {
		sessions = max(sessions, step.Session+1)
	}
	clients := make([]*client, sessions)
	for i := range clients {
		clients[i] = &client{addr: addr, me: i}
	}
	defer func() {
		for _, c := range clients {
			c.close()
		}
	}()
	answers := make(Answers, len(s))
	if !together {
		for i, step := range s {
			var err error
			if answers[i], err = clients[step.Session].say(step); err != nil {
				return answers, fmt.Errorf("step %d: %w", i, err)
			}
		}
		return answers, nil
	}
	errs := make([]error, sessions)
	var wg sync.WaitGroup
	for number, c := range clients {
		wg.Go(func() { // owned by Play, which waits
			defer c.close() // what it holds may be what another waits for
			for i, step := range s {
				if step.Session != number {
					continue
				}
				if answers[i], errs[number] = c.say(step); errs[number] != nil {
					errs[number] = fmt.Errorf("step %d: %w", i, errs[number])
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return answers, err
		}
	}
	return answers, nil
}

// close ends a session and waits until the server has closed the connection:
// what it held is free then.
func (c *client) close() {
	if c.conn == nil {
		return
	}
	_, _ = c.converse([]message{{'X', ""}})
}

// Difference is the first place at which two runs of a scene differ.
type Difference struct {
	Step, Line int
	Want, Got  string
}

func (d *Difference) String() string {
	return fmt.Sprintf("step %d, message %d:\n got %.600s\nwant %.600s", d.Step, d.Line, d.Got, d.Want)
}

// Compare returns the first difference between two runs, nil if there is none.
func (s Scene) Compare(want, got Answers) *Difference {
	lost := make(map[int]bool) // sessions of which an excuse was taken: what comes up to ReadyForQuery may differ
	for i := range want {
		a, b, session := want[i], got[i], s[i].Session
		for j := 0; j < max(len(a), len(b)); j++ {
			if lost[session] {
				a, b = a[min(j, len(a)):], b[min(j, len(b)):]
				x, y := slices.IndexFunc(a, isReady), slices.IndexFunc(b, isReady)
				if x < 0 && y < 0 {
					break
				}
				a, b, j, lost[session] = a[max(x, 0):], b[max(y, 0):], 0, false
			}
			if x, y := at(a, j), at(b, j); x != y {
				if lost[session] = excused(x, y); !lost[session] {
					return &Difference{i, j, x, y}
				}
			}
		}
	}
	return nil
}

// excused reports whether what was got stands for what was wanted. On a
// connection that does not have a prepared statement yet, none can be prepared
// once a transaction has failed; so all that concerns it is refused there. A
// server that has it refuses its Bind as well, but says first if the number of
// parameters is wrong, and it does describe one that returns no rows.
//
// And what DROP says of a table that is not in pg_temp: whether the schema is there, or
// only the table not, tells whether the server's process has ever had a temporary table,
// no matter whose.
func excused(want, got string) bool {
	const drop, none = "RDropErrorMsgNonExistent", `Mschema \"pg_temp\" does not exist`
	if strings.Contains(want, drop) && strings.Contains(got, drop) && strings.Contains(want+got, none) {
		return true
	}
	return strings.Contains(got, `\x00C25P02\x00`) &&
		(strings.Contains(want, `\x00C08P01\x00Mbind message supplies`) || strings.HasPrefix(want, "t "))
}

func isReady(line string) bool { return strings.HasPrefix(line, "Z ") }

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}
