package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzConfig: whatever a file and a setting say, they are taken or refused, for
// reasons that name a key there is, and the same way each time.
func FuzzConfig(f *testing.F) {
	for _, file := range []string{"minimal", "lsnproxy"} {
		text, err := os.ReadFile("../../configs/" + file + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		var said []string
		for line := range strings.Lines(string(text)) {
			if !strings.Contains(line, "_file") {
				said = append(said, line)
			}
		}
		sample := strings.Join(said, "")
		f.Add(sample, "pool.size=3")
		f.Add(strings.ReplaceAll(sample, "  #", "  "), "listen=x") // all of it said, examples too
	}
	file := filepath.Join(f.TempDir(), "config.yaml")
	f.Fuzz(func(t *testing.T, text, setting string) {
		if strings.Contains(strings.ToLower(text+setting), "_file") {
			t.Skip("it may name any file of this machine")
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := load(source{file: file, set: []string{setting}})
		_, again := load(source{file: file, set: []string{setting}})
		if (err == nil) != (again == nil) || err != nil && err.Error() != again.Error() {
			t.Errorf("first %v, then %v", err, again)
		}
		if wrong := (*problems)(nil); errors.As(err, &wrong) && slices.ContainsFunc(wrong.all, func(p problem) bool { return p.key == "" || p.what == "" }) {
			t.Errorf("a problem without a name: %v", err)
		}
	})
}
