package lsn

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Switch says where an ancestor timeline ended: its successor inherited
// everything up to End and nothing after it.
type Switch struct {
	Timeline uint32
	End      LSN
}

// History is the descent of one timeline, oldest ancestor first.
type History struct {
	Timeline  uint32   // the timeline whose history this is
	Ancestors []Switch // must not be changed once published
}

// ParseHistory reads a timeline history file, as TIMELINE_HISTORY returns it
// ("Streaming Replication Protocol" in the manual): lines of parent timeline,
// switch point and reason, with # comments.
func ParseHistory(timeline uint32, file []byte) (History, error) {
	h := History{Timeline: timeline}
	lines := bufio.NewScanner(bytes.NewReader(file))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return History{}, fmt.Errorf("history of timeline %d: line %q", timeline, line)
		}
		parent, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil {
			return History{}, fmt.Errorf("history of timeline %d: line %q: %w", timeline, line, err)
		}
		end, err := Parse(fields[1])
		if err != nil {
			return History{}, fmt.Errorf("history of timeline %d: line %q: %w", timeline, line, err)
		}
		h.Ancestors = append(h.Ancestors, Switch{Timeline: uint32(parent), End: end})
	}
	if err := lines.Err(); err != nil {
		return History{}, fmt.Errorf("history of timeline %d: %w", timeline, err)
	}
	return h, nil
}

// Contains reports whether position p lies on this history: on the timeline
// itself, or on an ancestor at or before the point where that one ended. A
// position it does not contain stands for log that this timeline never had.
func (h History) Contains(p Position) bool {
	if p.Timeline == h.Timeline {
		return true
	}
	for _, s := range h.Ancestors {
		if s.Timeline == p.Timeline {
			return p.LSN <= s.End
		}
	}
	return false
}

// Covers reports whether a node that has applied everything up to at, which h
// must contain, has applied what need stands for. The zero need is covered by
// every node.
func (h History) Covers(at, need Position) bool {
	if need.IsZero() {
		return true
	}
	return h.Contains(at) && h.Contains(need) && at.LSN >= need.LSN
}
