package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestCrowd has 600 clients in two processes ask over 8 connections: nobody is
// refused, nobody is left out.
func TestCrowd(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	proxy := filepath.Join(t.TempDir(), "lsnproxy")
	if out, err := exec.Command("go", "build", "-o", proxy, "../cmd/lsnproxy").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c := Crowd{Many: 600, Processes: 2, Program: program}
	c.Options = Options{Proxy: proxy, Systems: []string{"lsnproxy"}, Seconds: 2, Followers: 1, Pool: 8, Progress: func(line string) { t.Log(line) }}
	all, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || all[0].Errors > 0 || len(all[0].Queries) != c.Many {
		t.Fatalf("%+v", all)
	}
	for _, n := range all[0].Queries {
		if n == 0 {
			t.Fatalf("a client was not served: %v", all[0])
		}
	}
}
