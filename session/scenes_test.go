package session_test

import (
	"strings"
	"testing"

	"github.com/lsnproxy/lsnproxy/internal/equivalence"
)

// scenes are what random sessions have come upon, in the shortest form: a step a line, as
// equivalence.ReadScene reads it. Each begins with how it is played.
var scenes = map[string]struct {
	act
	text string
}{
	"a type of message that there is not, after an error": {act{20, false}, `
0 D"Pr\x00" Q"select 1\x00"
0 p"secret\x00"
0 S""
1 P"\x00selec 1\x00\x00\x00" H""
1 ?""
2 P"\x00select 1\x00\x00\x00" B"\x00\x00\x00\x00\x00\x00\x00\x00" E"\x00\x00\x00\x00\x00" ?"" S""
3 P"\x00select 1/0\x00\x00\x00" B"\x00\x00\x00\x00\x00\x00\x00\x00" E"\x00\x00\x00\x00\x00" ?"" S""
4 P"\x00select 1\x00\x00\x00" H""
4 B"\x00\x00\x00\x00\x00\x00\x00\x00" E"\x00\x00\x00\x00\x00" ?"" S""
`},
	"what may not follow a copy": {act{20, false}, `
0 P"\x00copy s0.u from stdin\x00\x00\x00" S""
0 B"\x00\x00\x00\x00\x00\x00\x00\x00" E"\x00\x00\x00\x00\x00" C"S\x00" S""
0 P"\x00copy s0.u from stdin\x00\x00\x00" B"\x00\x00\x00\x00\x00\x00\x00\x00" E"\x00\x00\x00\x00\x00" C"Sa\x00" D"Sa\x00" S""
0 P"a\x00select 1\x00\x00\x00" S""
0 Q"select 1\x00"
0 P"\x00copy s0.u from stdin\x00\x00\x00" B"\x00\x00\x00\x00\x00\x00\x00\x00" E"\x00\x00\x00\x00\x00" B"\x00a\x00\x00\x00\x00\x00\x00\x00" S""
0 Q"begin\x00"
0 P"c\x00copy s0.u from stdin\x00\x00\x00" B"p\x00c\x00\x00\x00\x00\x00\x00\x00" S""
0 E"p\x00\x00\x00\x00\x00" C"Sc\x00" S""
0 P"\x00copy s0.u from stdin\x00\x00\x00" B"\x00\x00\x00\x00\x00\x00\x00\x00" E"\x00\x00\x00\x00\x00" H"" E"\x00\x00\x00\x00\x00" S""
0 P"\x00copy s0.u from stdin\x00\x00\x00" B"\x00\x00\x00\x00\x00\x00\x00\x00" E"\x00\x00\x00\x00\x00" S"" P"a\x00select 2\x00\x00\x00" S""
`},
}

func TestScenes(t *testing.T) {
	st := newStage(t)
	for name, s := range scenes {
		t.Run(name, func(t *testing.T) {
			scene, err := equivalence.ReadScene(strings.TrimSpace(s.text))
			if err != nil {
				t.Fatal(err)
			}
			st.demandSame(t, scene, s.act)
		})
	}
}
