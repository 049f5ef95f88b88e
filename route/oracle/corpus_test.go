package oracle

import (
	"encoding/csv"
	"encoding/json"
	"flag"
	"hash/fnv"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/lsnproxy/lsnproxy/route"
)

var corpusFlag = flag.String("corpus", "", "a folder with further SQL files; see corpus.sh")

// maxText bounds what the parser is given: it overflows its stack on texts that
// nest some thousand levels deep.
const maxText = 4096

// corpus returns statements that people wrote: those of package route's scripts,
// of the parser's own tests, of the SQL files that come with a server, and of
// the folder given by -corpus.
func corpus(t testing.TB) []string {
	var all []string
	scripts, err := filepath.Glob("../testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts of package route", err)
	}
	for _, file := range scripts {
		for block := range strings.SplitSeq(read(t, file), "\n\n") {
			var sql []string
			for line := range strings.SplitSeq(block, "\n") {
				if !strings.HasPrefix(line, "=>") {
					sql = append(sql, line)
				}
			}
			all = append(all, strings.Join(sql, "\n"))
		}
	}
	for _, row := range catalogRows(t) {
		if row[0] == "view" {
			all = append(all, row[4])
		}
	}
	all = append(all, parserExamples(t)...)
	for _, dir := range []string{"/usr/share/postgresql", *corpusFlag} {
		all = append(all, files(t, dir)...)
	}
	return all
}

func read(t testing.TB, file string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

var input = regexp.MustCompile(`"input": ("(?:[^"\\\\]|\\\\.)*")`)

// parserExamples are the texts that pg_query_go's tests parse.
func parserExamples(t testing.TB) []string {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/pganalyze/pg_query_go/v6").Output()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(strings.TrimSpace(string(dir)), "testdata", "fingerprint.json")
	var all []string
	for _, match := range input.FindAllStringSubmatch(read(t, file), -1) {
		var sql string
		if err := json.Unmarshal([]byte(match[1]), &sql); err != nil {
			t.Fatal(err)
		}
		all = append(all, sql)
	}
	return all
}

// files returns the statements of all SQL files below a folder that is there.
func files(t testing.TB, dir string) []string {
	if dir == "" {
		return nil
	}
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".sql") {
			all = append(all, split(read(t, path))...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// split cuts a psql script into what the parser takes for whole statements: it
// adds lines until one ends with a semicolon and all of them parse.
func split(script string) []string {
	var all []string
	var text strings.Builder
	lines := 0
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "\\") {
			continue
		}
		text.WriteString(line)
		if lines++; !strings.HasSuffix(strings.TrimSpace(line), ";") {
			continue
		}
		_, err := pg.Parse(text.String())
		open := err != nil && (strings.Contains(err.Error(), "unterminated") || strings.Contains(err.Error(), "end of input"))
		if err == nil {
			all = append(all, text.String())
		}
		if !open || lines > 100 {
			text.Reset()
			lines = 0
		}
	}
	return all
}

// catalogRows are the rows of the database that package route's scripts use.
func catalogRows(t testing.TB) [][]string {
	f, err := os.Open("../testdata/catalog15.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// withRelations adds the relations that texts name, every eighth of them one
// that has to be read on the leader.
func withRelations(rows [][]string, texts []string) [][]string {
	var known []string
	for _, row := range rows {
		if row[0] == "relation" {
			known = append(known, row[1])
		}
	}
	slices.Sort(known)
	var names []string
	for _, sql := range texts {
		tree, err := pg.Parse(sql)
		if err != nil {
			continue
		}
		every(reflect.ValueOf(tree.Stmts), func(n any) {
			if rel, ok := n.(*pg.RangeVar); ok {
				names = append(names, rel.Relname)
			}
		})
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if _, found := slices.BinarySearch(known, name); !found {
			h := fnv.New32a()
			h.Write([]byte(name))
			mark := ""
			if h.Sum32()%8 == 0 {
				mark = "unlogged"
			}
			rows = append(rows, []string{"relation", name, mark, "", ""})
		}
	}
	return rows
}

// bench is what a text is judged with.
type bench struct {
	*judge
	catalog *route.Catalog
}

func newBench(t testing.TB, rows [][]string) *bench {
	c, err := route.NewCatalog(rows)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{judge: newJudge(rows), catalog: c}
}
