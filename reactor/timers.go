//go:build linux

package reactor

// timers is a binary heap of parked tasks by the instant at which they are to
// be resumed. The place of each task is kept in the task, so cancelling is
// O(log n) and nothing is allocated but the heap's own array.
type timers []timer

type timer struct {
	at   int64 // instant
	task *Task
}

// next returns the earliest instant, or 0 if there is none.
func (h timers) next() int64 {
	if len(h) == 0 {
		return 0
	}
	return h[0].at
}

func (h *timers) add(t *Task, at int64) {
	*h = append(*h, timer{})
	h.up(len(*h)-1, timer{at, t})
}

// remove cancels t's timer, if it has one.
func (h *timers) remove(t *Task) {
	if t.timed == 0 {
		return
	}
	i, last := t.timed-1, len(*h)-1
	moved := (*h)[last]
	(*h)[last] = timer{}
	*h = (*h)[:last]
	t.timed = 0
	if i == last {
		return
	}
	if i > 0 && moved.at < (*h)[(i-1)/2].at {
		h.up(i, moved)
	} else {
		h.down(i, moved)
	}
}

func (h timers) put(i int, x timer) {
	h[i] = x
	x.task.timed = i + 1
}

// up puts x at i or above it.
func (h timers) up(i int, x timer) {
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].at <= x.at {
			break
		}
		h.put(i, h[parent])
		i = parent
	}
	h.put(i, x)
}

// down puts x at i or below it.
func (h timers) down(i int, x timer) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1].at < h[child].at {
			child++
		}
		if x.at <= h[child].at {
			break
		}
		h.put(i, h[child])
		i = child
	}
	h.put(i, x)
}
