// Package lsnproxy_test checks the repository as a whole: who imports whom.
package lsnproxy_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/lsnproxy/lsnproxy"

// row says what one package may import, tests aside. ours are folders of this
// module and theirs names of modules; the standard library and golang.org/x/sys
// are everybody's.
type row struct{ ours, theirs string }

// table is the drawing in docs/ARCHITECTURE.md. Imports run downward only, and a
// package or a module that is not named here is refused.
var table = map[string]row{
	".":                  {},
	"cmd/lsnproxy":       {"admin session failover election route pool lagwatch backend topology reactor wire lsn pgcluster", "cobra viper yaml prometheus"},
	"admin":              {"", "prometheus"},
	"session":            {"route pool lagwatch backend topology reactor wire lsn", ""},
	"failover":           {"election lagwatch topology backend lsn", "pgx"},
	"lagwatch":           {"topology reactor lsn", "pgx"},
	"pool":               {"backend reactor topology", ""},
	"backend":            {"topology reactor wire lsn", "pgx"},
	"route":              {"route/internal/lex topology lsn", ""},
	"route/internal/lex": {"", ""},
	"topology":           {"lsn", ""},
	"election":           {"lsn", "memberlist raft bbolt protobuf"},
	"lsn":                {},
	"wire":               {},
	"reactor":            {},

	// What demo, tests and benches run on. They see the proxy from outside.
	"pgcluster":            {"", "pgx"},
	"pgcluster/pgtest":     {"pgcluster", ""},
	"internal/history":     {"", "pgx porcupine"},
	"internal/equivalence": {"wire", "pgx"},
	"bench":                {"pgcluster", "pgx hdrhistogram"},
	"bench/cmd/bench":      {"bench pgcluster", ""},
	"bench/cmd/crowd":      {"bench", ""},
}

// forTests is what the tests of every package may import besides all that the
// package itself reaches.
var forTests = row{
	"pgcluster pgcluster/pgtest internal/history internal/equivalence",
	"pgx rapid goleak go-cmp go-internal x/sync",
}

// above are packages that the tests of lower ones may import besides, in a package
// of their own: the simulation of elections drives the plan that is built on them.
var above = map[string]string{"election": "failover topology"}

// oracle is the one module that only one package's tests may see: it must never
// be handed bytes from a socket (docs/ARCHITECTURE.md, dependencies).
const oracle = "pgproto3/v2"

// modules gives the names used above.
var modules = map[string]string{
	"bbolt":        "go.etcd.io/bbolt",
	"cobra":        "github.com/spf13/cobra",
	"go-cmp":       "github.com/google/go-cmp",
	"go-internal":  "github.com/rogpeppe/go-internal",
	"goleak":       "go.uber.org/goleak",
	"hdrhistogram": "github.com/HdrHistogram/hdrhistogram-go",
	"memberlist":   "github.com/hashicorp/memberlist",
	"pgproto3/v2":  "github.com/jackc/pgproto3/v2",
	"pgx":          "github.com/jackc/pgx/v5",
	"prometheus":   "github.com/prometheus/client_golang",
	"raft":         "go.etcd.io/raft/v3",
	"porcupine":    "github.com/anishathalye/porcupine",
	"protobuf":     "google.golang.org/protobuf",
	"rapid":        "pgregory.net/rapid",
	"viper":        "github.com/spf13/viper",
	"x/sync":       "golang.org/x/sync",
	"x/sys":        "golang.org/x/sys",
	"yaml":         "go.yaml.in/yaml/v3",
}

// permitted reports whether the package in folder from may import path, in its
// code or in its tests.
func permitted(from, path string, test bool) bool {
	if host, _, _ := strings.Cut(path, "/"); !strings.Contains(host, ".") {
		return true // the standard library
	}
	may := table[from]
	if to, ok := folder(path); ok {
		return listed(may.ours, to) ||
			test && (to == from || listed(forTests.ours, to) || reaches(from, to) || listed(above[from], to))
	}
	name := moduleName(path)
	return name == "x/sys" || listed(may.theirs, name) ||
		test && (listed(forTests.theirs, name) || name == oracle && from == "wire")
}

// reaches reports whether from imports to, directly or through others. The table
// has no cycle: Go would refuse one in the code.
func reaches(from, to string) bool {
	for _, next := range strings.Fields(table[from].ours) {
		if next == to || reaches(next, to) {
			return true
		}
	}
	return false
}

func listed(words, word string) bool { return slices.Contains(strings.Fields(words), word) }

// folder gives the folder of one of our own packages.
func folder(path string) (string, bool) {
	if path == module {
		return ".", true
	}
	return strings.CutPrefix(path, module+"/")
}

// moduleName gives the short name of the module that holds path.
func moduleName(path string) string {
	for name, m := range modules {
		if path == m || strings.HasPrefix(path, m+"/") {
			return name
		}
	}
	return ""
}

// listing is what go list says of one package.
type listing struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// list describes our packages and all they depend on, tests aside, by path.
func list(t *testing.T) map[string]listing {
	t.Helper()
	openFolders(t)
	cmd := exec.Command("go", "list", "-deps", "-tags", "torture",
		"-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	all := make(map[string]listing)
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var l listing
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all[l.ImportPath] = l
	}
}

// openFolders opens every folder of the repository, nothing more. go test answers
// from its cache unless a file or folder that the test itself opened has changed,
// and it cannot see what go list reads.
func openFolders(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != "." && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImports(t *testing.T) {
	seen := 0
	for path, l := range list(t) {
		from, ok := folder(path)
		if !ok {
			continue
		}
		seen++
		if _, ok := table[from]; !ok {
			t.Errorf("%s is not in the import table", from)
			continue
		}
		check := func(imports []string, test bool) {
			for _, to := range imports {
				if !permitted(from, to, test) {
					t.Errorf("%s may not import %s (in a test: %v)", from, to, test)
				}
			}
		}
		check(l.Imports, false)
		check(l.TestImports, true)
		check(l.XTestImports, true)
	}
	if seen < 3 {
		t.Errorf("go list named %d of our packages: the check is blind", seen)
	}
}

// TestBinary follows imports through other modules too: a helper of ours that is
// for tests only, or the oracle, must not come in by a side door.
func TestBinary(t *testing.T) {
	all := list(t)
	by := make(map[string]string) // who brought a package in
	var follow func(path string)
	follow = func(path string) {
		for _, next := range all[path].Imports {
			if _, known := by[next]; !known {
				by[next] = path
				follow(next)
			}
		}
	}
	follow(module + "/cmd/lsnproxy")
	for path, importer := range by {
		if path == "testing" || moduleName(path) == oracle {
			t.Errorf("the binary links %s, through %s", path, importer)
		}
	}
}

// TestPermitted feeds the judge made-up imports: a check that never fails shows
// nothing.
func TestPermitted(t *testing.T) {
	const ours = module + "/"
	for _, c := range []struct {
		from, path string
		test       bool
		ok         bool
	}{
		{"session", ours + "lagwatch", false, true},
		{"topology", ours + "lsn", false, true},
		{"lsn", "strings", false, true},
		{"reactor", "golang.org/x/sys/unix", false, true},
		{"election", "github.com/hashicorp/memberlist", false, true},
		{"cmd/lsnproxy", "github.com/spf13/viper", false, true},
		{"pool", ours + "lsn", true, true}, // through backend

		{"session", ours + "newcomer", false, false},
		{"lsn", ours + "topology", false, false},
		{"lagwatch", ours + "pool", false, false},
		{"route", ours + "lagwatch", true, false},
		{"wire", "github.com/jackc/pgx/v5/pgproto3", false, false},
		{"reactor", "golang.org/x/net/http2", false, false},
		{"failover", "github.com/hashicorp/memberlist", false, false},
		{"failover", "go.etcd.io/raft/v3/raftpb", true, false},
		{"session", "github.com/spf13/viper", false, false},
		{"admin", "go.yaml.in/yaml/v3", false, false},
		{"lagwatch", "github.com/prometheus/client_golang/prometheus", false, false},
		{"internal/history", ours + "session", false, false},

		{"wire", "github.com/jackc/pgproto3/v2", true, true},
		{"wire", "github.com/jackc/pgproto3/v2", false, false},
		{"backend", "github.com/jackc/pgproto3/v2", true, false},
		{"session", ours + "pgcluster/pgtest", true, true},
		{"session", ours + "pgcluster/pgtest", false, false},
		{"route", "pgregory.net/rapid", true, true},
		{"route", "pgregory.net/rapid", false, false},
	} {
		if got := permitted(c.from, c.path, c.test); got != c.ok {
			t.Errorf("%s importing %s (in a test: %v): %v, want %v", c.from, c.path, c.test, got, c.ok)
		}
	}
}
