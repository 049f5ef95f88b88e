package session_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsnproxy/lsnproxy/internal/equivalence"
)

// TestScenes plays what random sessions have come upon, in short. The first line of each
// says how it is played.
func TestScenes(t *testing.T) {
	files, err := filepath.Glob("testdata/scenes/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenes: %v", err)
	}
	st := newStage(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var a act
			first, _, _ := strings.Cut(string(text), "\n")
			if _, err := fmt.Sscanf(first, "# pool %d", &a.pool); err != nil {
				t.Fatalf("%q: %v", first, err)
			}
			a.together = strings.HasSuffix(first, " together")
			scene, err := equivalence.ReadScene(string(text))
			if err != nil {
				t.Fatal(err)
			}
			st := st
			if strings.HasSuffix(first, " optimistic") {
				st.change = optimistic
			}
			st.demandSame(t, scene, a)
		})
	}
}
