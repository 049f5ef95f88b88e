package pgcluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// programs makes an executable file for each program a cluster needs.
func programs(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range needed {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFindBinaries(t *testing.T) {
	root := t.TempDir()
	onPath := programs(t, filepath.Join(root, "bin"))
	programs(t, filepath.Join(root, "lib/9.6/bin"))
	programs(t, filepath.Join(root, "lib/14/bin"))
	newest := programs(t, filepath.Join(root, "lib/15/bin"))
	clients := filepath.Join(root, "lib/16/bin") // of which only the clients are installed
	if err := os.MkdirAll(clients, 0o755); err != nil {
		t.Fatal(err)
	}
	usual := []string{filepath.Join(root, "none*"), filepath.Join(root, "lib/*/bin"), filepath.Join(root, "bi*")}

	for name, test := range map[string]struct {
		path string
		want string
	}{
		"PATH first":        {clients + ":" + onPath, onPath},
		"then the newest":   {clients + "::bin", newest},
		"with no PATH even": {"", newest},
	} {
		if got, err := findBinaries(test.path, usual); err != nil || got != test.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, test.want)
		}
	}
	links := filepath.Join(root, "links")
	if err := os.MkdirAll(links, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range needed {
		if err := os.Symlink(filepath.Join(newest, name), filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := findBinaries(links, nil); err != nil || got != newest {
		t.Errorf("links on PATH: %q, %v; want %q", got, err, newest)
	}
	_, err := findBinaries(clients, usual[:1])
	if err == nil || !strings.Contains(err.Error(), "apt-get install postgresql") || !strings.Contains(err.Error(), "dnf install") {
		t.Errorf("nothing installed: %v", err)
	}
	if err := os.Chmod(filepath.Join(onPath, "initdb"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := FindBinaries(onPath); err == nil || !strings.Contains(err.Error(), "no initdb in") {
		t.Errorf("initdb that may not be run: %v", err)
	}
	if got, err := FindBinaries(newest); err != nil || got != newest {
		t.Errorf("given: %q, %v", got, err)
	}
}
