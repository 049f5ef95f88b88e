package route

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/lsnproxy/lsnproxy/route/internal/lex"
)

// statements are the texts that properties, fuzzing and benchmarks start from.
func statements(t testing.TB) []string {
	var all []string
	for _, file := range []string{"followers", "queries", "writes", "session"} {
		for _, e := range readScript(t, "testdata/"+file+".txt") {
			all = append(all, e.sql)
		}
	}
	return all
}

// same reports whether two classes say the same, apart from where.
func same(a, b Class) bool {
	a.At, b.At = 0, 0
	return a == b
}

// TestSpelling: neither case nor what stands between tokens matters.
func TestSpelling(t *testing.T) {
	c, all := scriptCatalog(t), statements(t)
	rapid.Check(t, func(t *rapid.T) {
		sql := rapid.SampledFrom(all).Draw(t, "sql")
		want := Classify([]byte(sql), true, c)
		spelt := respell(t, sql)
		if got := Classify([]byte(spelt), true, c); !same(got, want) {
			t.Fatalf("%q\n%+v\n%q\n%+v", sql, want, spelt, got)
		}
	})
}

// respell spells a text otherwise: other case outside quotes, other white space
// and comments between tokens, more of them at the ends.
func respell(t *rapid.T, sql string) string {
	inline := rapid.SampledFrom([]string{" ", "\t ", " /* ; FOR UPDATE */ ", " /*/* ' */*/"})
	space := rapid.OneOf(inline, rapid.SampledFrom([]string{"\n", " -- \" $$ ;\n", "\r\n"}))
	var b strings.Builder
	l := lex.Lexer{Src: []byte(sql), Conforming: true}
	from := 0
	for {
		token := l.Next()
		gap := sql[from:token.From]
		if token.Kind == lex.TBad {
			b.WriteString(gap + sql[token.From:])
			return b.String() // what stands behind may end what has not ended
		}
		switch {
		case gap == "" || strings.Contains(gap, "\n") || !rapid.Bool().Draw(t, "gap"):
		case strings.Contains(sql[:from], "'"): // a string is continued over a newline only
			gap = inline.Draw(t, "space")
		default:
			gap = space.Draw(t, "space")
		}
		b.WriteString(gap)
		text := sql[token.From:token.To]
		if token.Kind == lex.TWord && rapid.Bool().Draw(t, "upper") {
			text = strings.ToUpper(text)
		} else if token.Kind == lex.TWord {
			text = strings.ToLower(text)
		}
		b.WriteString(text)
		from = int(token.To)
		if token.Kind == lex.TEnd {
			return b.String() + rapid.SampledFrom([]string{"", " ", "\n-- x", "\n/* ' */", "\f"}).Draw(t, "end")
		}
	}
}

// TestWrapping: putting a query into another does not make a read of it, and
// does not lose one.
func TestWrapping(t *testing.T) {
	c := scriptCatalog(t)
	wrap := rapid.SampledFrom([]string{
		"(%)", "SELECT * FROM (%) AS x", "WITH x AS (%) SELECT * FROM x", "SELECT 1 WHERE EXISTS (%)",
		"SELECT ARRAY(%)", "SELECT 1 UNION ALL (%)", "EXPLAIN %", "EXPLAIN (COSTS off) %", "COPY (%) TO STDOUT",
		"SELECT (SELECT count(*) FROM (%) AS y) FROM t", "WITH RECURSIVE a AS (SELECT 1), x AS (%) SELECT * FROM t, x",
		"SELECT * FROM t JOIN LATERAL (%) AS l ON true", "/* x */ % -- y\n",
	})
	var queries []string
	for _, sql := range statements(t) {
		switch Classify([]byte(sql), true, c).Reason {
		case ReasonRead, ReasonLocking, ReasonRowLocking, ReasonVolatile, ReasonRelation, ReasonUnknownFunction,
			ReasonUnknownRelation, ReasonNodeSpecific, ReasonModifyingCTE, ReasonOperator, ReasonType:
			switch word := strings.ToUpper(strings.Fields(sql + " x")[0]); word {
			case "SELECT", "WITH", "TABLE", "VALUES":
				if !strings.Contains(sql, "--") && strings.Count(sql, "(") == strings.Count(sql, ")") {
					queries = append(queries, strings.TrimRight(sql, "; "))
				}
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		sql := rapid.SampledFrom(queries).Draw(t, "sql")
		read := Classify([]byte(sql), true, c).Kind == Read
		for range rapid.IntRange(1, 4).Draw(t, "depth") {
			by := wrap.Draw(t, "by")
			sql = strings.Replace(by, "%", sql, 1)
			if strings.HasPrefix(by, "EXPLAIN") || strings.HasPrefix(by, "COPY") {
				break // they wrap queries but are none
			}
		}
		if got := Classify([]byte(sql), true, c); (got.Kind == Read) != read {
			t.Fatalf("%s: %v", sql, got.Reason)
		}
	})
}

// TestSecondStatement: a read followed by anything is no read.
func TestSecondStatement(t *testing.T) {
	c, all := scriptCatalog(t), statements(t)
	for _, sql := range all {
		one := Classify([]byte(sql), true, c)
		if one.Kind != Read {
			continue
		}
		for _, second := range []string{"\n;SELECT 1", "\n;;x", "\n; BEGIN", "\n; ("} {
			if got := Classify([]byte(sql+second), true, c); got.Kind != Write || !got.Multi {
				t.Errorf("%s%s: %v", sql, second, got)
			}
		}
		if got := Classify([]byte(sql+"\n;"), true, c); !same(got, one) {
			t.Errorf("%s;: %v", sql, got)
		}
	}
}

func FuzzClassify(f *testing.F) {
	for _, sql := range statements(f) {
		f.Add([]byte(sql), true)
	}
	c := scriptCatalog(f)
	f.Fuzz(func(t *testing.T, sql []byte, conforming bool) {
		class := Classify(sql, conforming, c)
		if (class.Kind == Read) != (class.Reason == ReasonRead) {
			t.Errorf("%v for %v", class.Kind, class.Reason)
		}
		if class.Kind == Read && (class.Multi || class.CopyIn || class.Pin != PinNone || class.Schema) {
			t.Errorf("a read with %+v", class)
		}
		if class.At < 0 || class.At > len(sql) {
			t.Errorf("at %d of %d", class.At, len(sql))
		}
		for _, more := range []string{"\n", "\n-- x", "\n/* /* */ */"} {
			if got := Classify(append(sql[:len(sql):len(sql)], more...), conforming, c); !same(got, class) {
				t.Errorf("with %q: %+v, without: %+v", more, got, class)
			}
		}
	})
}

// TestLinear: texts made to be slow are not: twice the text takes the processor
// about twice as long, not four times, however busy the machine is. What is linear
// shows that at some try.
func TestLinear(t *testing.T) {
	c := scriptCatalog(t)
	for _, piece := range []string{
		"(", "[", "/*", "$a$", "'a'\n", "x.", "$$", "WITH a AS (", "-- \n", "f(", "1,", "\"\"", "E'\\'", "::a", "+-", "; ", "(SELECT * FROM a, ",
	} {
		once := []byte("SELECT " + strings.Repeat(piece, 1<<19/len(piece)))
		twice := []byte("SELECT " + strings.Repeat(piece, 1<<20/len(piece)))
		var ratio float64
		for try := range 20 {
			ratio = float64(processor(t, func() { Classify(twice, true, c) })) / float64(processor(t, func() { Classify(once, true, c) }))
			if ratio < 3 {
				break
			}
			if try == 19 {
				t.Errorf("twice as much of %q took %.1f times as long", piece, ratio)
			}
		}
	}
}

// processor returns how long the processor works on f.
func processor(t *testing.T, f func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now := func() time.Duration {
		var at unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &at); err != nil {
			t.Fatal(err)
		}
		return time.Duration(at.Nano())
	}
	begun := now()
	f()
	return now() - begun
}

// TestNul: a message ends at its first zero byte, so none can be in a text.
func TestNul(t *testing.T) {
	if got := Classify([]byte("SELECT 1 /* \x00 */"), true, nil); got != (Class{CopyIn: true}) {
		t.Errorf("%+v", got)
	}
}

// pgbench and the rest are what benchmarks classify.
var typical = []struct{ name, sql string }{
	{"pgbench", "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;"},
	{"orm", `SELECT "t"."id" AS "t_id", "t"."v" AS "t_v", count(*) AS "n" FROM "t" LEFT OUTER JOIN "t2" ON ("t"."id" = "t2"."t_id") WHERE ("t"."id" IN ($1, $2, $3) AND lower("t"."v") LIKE $4) GROUP BY "t"."id", "t"."v" ORDER BY "t"."id" ASC LIMIT 21`},
	{"cte", "WITH RECURSIVE tree(id, depth) AS (SELECT 1, 0 UNION ALL SELECT t.id, depth + 1 FROM t JOIN tree ON t.id = tree.id + 1 WHERE depth < 3) SELECT * FROM tree"},
	{"update", "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = 12345;"},
	{"insert", "INSERT INTO t (id, v) VALUES (1, 'x'), (2, 'y') ON CONFLICT DO NOTHING"},
	{"begin", "BEGIN"},
	{"own", "SHOW lsnproxy.token"},
}

func TestNoAllocation(t *testing.T) {
	c := scriptCatalog(t)
	for _, s := range typical {
		sql := []byte(s.sql)
		if s.name == "own" {
			continue // its name is a string
		}
		if n := testing.AllocsPerRun(100, func() { Classify(sql, true, c) }); n != 0 {
			t.Errorf("%s: %v allocations", s.name, n)
		}
	}
	for _, e := range readScript(t, "testdata/queries.txt") {
		sql := []byte(e.sql)
		if n := testing.AllocsPerRun(10, func() { Classify(sql, true, c) }); n != 0 {
			t.Errorf("%s: %v allocations", e.sql, n)
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	c := scriptCatalog(b)
	for _, s := range typical {
		b.Run(s.name, func(b *testing.B) {
			sql := []byte(s.sql)
			b.SetBytes(int64(len(sql)))
			b.ReportAllocs()
			for b.Loop() {
				Classify(sql, true, c)
			}
		})
	}
}

func BenchmarkNewCatalog(b *testing.B) {
	rows, err := readCatalogFile()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := NewCatalog(rows); err != nil {
			b.Fatal(err)
		}
	}
}
