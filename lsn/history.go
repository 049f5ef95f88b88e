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
// switch point and reason, with # comments. Like readTimeLineHistory in
// access/transam/timeline.c it refuses timelines that do not increase.
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
		if n := len(h.Ancestors); parent == 0 || parent >= uint64(timeline) ||
			n > 0 && parent <= uint64(h.Ancestors[n-1].Timeline) {
			return History{}, fmt.Errorf("history of timeline %d: line %q: timelines must increase", timeline, line)
		}
		h.Ancestors = append(h.Ancestors, Switch{Timeline: uint32(parent), End: end})
	}
	if err := lines.Err(); err != nil {
		return History{}, fmt.Errorf("history of timeline %d: %w", timeline, err)
	}
	return h, nil
}

// Known reports whether the ancestors are known. Only timeline 1 has none; for
// any other an empty list means that its history file could not be read, and
// then nothing can be said about positions on older timelines.
func (h History) Known() bool {
	return h.Timeline == 1 || len(h.Ancestors) > 0
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
