package route

import (
	"bytes"
	"encoding/csv"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "write what is found into testdata instead of comparing")

// A script is a list of statements, each with its class in lines that begin
// with =>, separated by empty lines. Lines that begin with # before a statement
// are comments. A comment "# no catalog" or "# strings with backslashes" at the
// head of the file says how the statements of the file are classified.
type example struct {
	comment, sql, want string
}

func readScript(t testing.TB, file string) []example {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var examples []example
	for block := range strings.SplitSeq(string(content), "\n\n") {
		var e example
		for line := range strings.Lines(strings.Trim(block, "\n") + "\n") {
			switch {
			case strings.HasPrefix(line, "#") && e.sql == "":
				e.comment += line
			case strings.HasPrefix(line, "=>"):
				e.want += line
			default:
				e.sql += line
			}
		}
		e.sql = strings.TrimSuffix(e.sql, "\n")
		examples = append(examples, e)
	}
	return examples
}

func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			examples := readScript(t, file)
			c, conforming := setting(t, examples)
			var out strings.Builder
			for i, e := range examples {
				if i > 0 {
					out.WriteString("\n")
				}
				out.WriteString(e.comment)
				if e.sql == "" && e.want == "" {
					continue
				}
				got := describe([]byte(e.sql), Classify([]byte(e.sql), conforming, c))
				fmt.Fprintf(&out, "%s\n%s", e.sql, got)
				if !*rewrite && got != e.want {
					t.Errorf("%s\n%s", e.sql, cmp.Diff(e.want, got))
				}
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(out.String()), 0o666); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// setting returns what the examples of a script are classified with.
func setting(t testing.TB, examples []example) (c *Catalog, conforming bool) {
	c, conforming = scriptCatalog(t), true
	switch head := examples[0].comment; {
	case strings.Contains(head, "# no catalog"):
		c = nil
	case strings.Contains(head, "# strings with backslashes"):
		conforming = false
	}
	return c, conforming
}

// describe prints a class as scripts have it.
func describe(sql []byte, c Class) string {
	var b strings.Builder
	fmt.Fprintf(&b, "=> %s: %s", c.Kind, c.Reason)
	if c.Kind == Write {
		end := len(sql)
		if n := bytes.IndexAny(sql[c.At:], " \t\n"); n >= 0 {
			end = c.At + n
		}
		fmt.Fprintf(&b, " at %s", sql[c.At:end])
	}
	for _, f := range []struct {
		set  bool
		name string
	}{
		{c.Pin != PinNone, "pin=" + c.Pin.String()},
		{c.Frees == ^PinNone, "frees=all"},
		{c.Frees != PinNone && c.Frees != ^PinNone, "frees=" + c.Frees.String()},
		{c.Prepared != PreparedNone, "prepared=" + c.Prepared.String()},
		{c.Currval, "currval"},
		{c.Nextval, "nextval"},
		{c.Bare, "bare"},
		{c.CopyIn, "copy-in"},
		{c.Chain, "chain"},
		{c.Multi, "multi"},
		{c.Schema, "schema"},
		{c.Drop, "drop"},
		{c.Native, "native"},
		{c.Local, "local"},
		{c.Sets != "", fmt.Sprintf("sets=%q", c.Sets)},
		{c.Reads != "", fmt.Sprintf("reads=%q", c.Reads)},
		{c.Empties != "", fmt.Sprintf("empties=%q", c.Empties)},
		{c.Defaults, "defaults"},
		{c.Reset != ResetNone, "reset=" + strings.ReplaceAll(c.Reset.String(), " ", "-")},
		{c.Name != "", fmt.Sprintf("name=%q", c.Name)},
		{c.Value != "", fmt.Sprintf("value=%q", c.Value)},
	} {
		if f.set {
			b.WriteString("\n=> " + f.name)
		}
	}
	return b.String() + "\n"
}

// catalogFile holds the answer to CatalogQuery of a PostgreSQL 15 in which
// testdata/schema.sql has been run; the server test compares and rewrites it.
const catalogFile = "testdata/catalog15.csv"

var loadCatalog = sync.OnceValues(func() (*Catalog, error) {
	rows, err := readCatalogFile()
	if err != nil {
		return nil, err
	}
	return NewCatalog(rows)
})

func readCatalogFile() ([][]string, error) {
	f, err := os.Open(catalogFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return csv.NewReader(f).ReadAll()
}

func scriptCatalog(t testing.TB) *Catalog {
	t.Helper()
	c, err := loadCatalog()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
