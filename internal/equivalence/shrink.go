package equivalence

import (
	"slices"

	"github.com/lsnproxy/lsnproxy/wire"
)

// Shrink returns the shortest scene it finds for which differs still holds: it
// leaves out ever smaller runs of steps, and then single messages, until nothing
// more can go. differs is asked some hundreds of times.
func Shrink(s Scene, differs func(Scene) bool) Scene {
	for {
		before := len(s)
		for size := len(s) / 2; size > 0; size /= 2 {
			for lo := 0; lo < len(s); {
				shorter := slices.Delete(slices.Clone(s), lo, min(lo+size, len(s)))
				if differs(shorter) {
					s = shorter
				} else {
					lo += size
				}
			}
		}
		if len(s) == before {
			break
		}
	}
	for i := 0; i < len(s); i++ {
		for j := 0; j < len(s[i].messages) && len(s[i].messages) > 1; {
			shorter := slices.Clone(s)
			shorter[i].messages = slices.Delete(slices.Clone(s[i].messages), j, j+1)
			if answered(shorter[i]) && differs(shorter) {
				s = shorter
			} else {
				j++
			}
		}
	}
	return s
}

// answered reports whether the end of a step makes the server answer.
func answered(step Step) bool {
	switch step.messages[len(step.messages)-1].typ {
	case wire.Parse, wire.Bind, wire.Describe, wire.Execute, wire.Close:
		return false
	}
	return true
}
