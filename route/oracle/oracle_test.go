package oracle

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/route/internal/lex"
)

// The same texts at each run, so that a failure is the change's that caused it;
// make torture looks at others.
var (
	seed  = flag.Uint64("seed", 1, "of what is generated; 0: another each time")
	count = flag.Int("each", 20_000, "how many each test generates")
)

// tally counts what became of texts.
type tally struct {
	mu      sync.Mutex
	texts   int // all
	valid   int // that the parser takes
	reads   int // that the judge calls reads
	lost    map[route.Reason]int
	example map[route.Reason]string
}

func newTally() *tally {
	return &tally{lost: map[route.Reason]int{}, example: map[route.Reason]string{}}
}

// report prints the tally and fails if more than a share of reads is lost.
func (y *tally) report(t *testing.T, floor float64) {
	lost := 0
	for reason, n := range y.lost {
		lost += n
		t.Logf("lost %6d: %v, such as %.250q", n, reason, y.example[reason])
	}
	found := 1 - float64(lost)/float64(max(1, y.reads))
	t.Logf("%d texts, %d valid, %d reads, of which %.2f%% found", y.texts, y.valid, y.reads, 100*found)
	if found < floor {
		t.Errorf("%.4f of reads found, want %.4f", found, floor)
	}
}

// check holds the class of a text against its parse tree.
func (b *bench) check(t testing.TB, y *tally, sql string) {
	if len(sql) > maxText || strings.Count(sql, "(")+strings.Count(sql, "[") > 300 || strings.IndexByte(sql, 0) >= 0 {
		return
	}
	class := route.Classify([]byte(sql), true, b.catalog)
	tree, err := pg.Parse(sql)
	y.mu.Lock()
	defer y.mu.Unlock()
	y.texts++
	if err != nil {
		return
	}
	y.valid++
	f := factsOf(tree)
	if strings.Contains(strings.ToUpper(sql), `U&"`) { // names that are not read
		f.name = class.Name
	}
	if strings.Contains(sql, "pg_temp") { // where anything may be temporary
		f.schema = false
	}
	if class.Multi && strings.Contains(strings.ToUpper(sql), "ATOMIC") { // END may be a name in a function's body
		f.multi = true
	}
	if got := classFacts(class, f); got != f && class.Reason != route.ReasonUnreadable && class.Pin != route.PinUnread {
		t.Errorf("%q\nclass %+v\n  got %+v\n want %+v", sql, class, got, f)
	}
	if f.kind != route.Write {
		return
	}
	why := b.objection(tree)
	switch {
	case why != "" && class.Kind == route.Read:
		t.Errorf("%q\nis a read to Classify; the parse tree %s", sql, why)
	case why == "":
		y.reads++
		if class.Kind != route.Read {
			y.lost[class.Reason]++
			y.example[class.Reason] = sql[max(0, class.At-100):]
		}
	}
}

// classFacts puts a class in the form of facts. Where it is free to say more
// than it must (pins, definitions), what it says counts only if it is too little.
func classFacts(c route.Class, want facts) facts {
	got := facts{
		multi: c.Multi, copyIn: c.CopyIn, chain: c.Chain, kind: c.Kind, reset: c.Reset, name: c.Name,
		pins: (c.Pin != route.PinNone || c.Sets != "") && want.pins, schema: c.Schema && want.schema,
	}
	if got.kind == route.Read {
		got.kind = route.Write
	}
	if kept := route.Union(c.Sets, c.Name); want.name != "" && route.Union(kept, want.name) == kept {
		got.name = want.name // taken to be set for longer, perhaps
	}
	if want.kind == route.OwnSet && c.Kind == route.Write && c.Name == "lsnproxy."+want.name { // a string in parts
		got.kind, got.name = want.kind, want.name
	}
	return got
}

// checkTokens compares the tokens of a text with those of the parser's scanner.
func checkTokens(t testing.TB, sql string) {
	if len(sql) > maxText || strings.IndexByte(sql, 0) >= 0 {
		return
	}
	result, err := pg.Scan(sql)
	if err != nil {
		return
	}
	l := lex.Lexer{Src: []byte(sql), Conforming: true}
	for _, want := range result.Tokens {
		if want.Token == pg.Token_C_COMMENT || want.Token == pg.Token_SQL_COMMENT {
			continue
		}
		got := l.Next()
		if got.Kind == lex.TBad {
			if _, err := pg.Parse(sql); err == nil && !l.Junk {
				t.Errorf("%q: bad at %d", sql, got.From)
			}
			return
		}
		if text := sql[got.From:got.To]; got.From == want.Start && strings.Contains(text, "--") && strings.HasSuffix(text, "'") {
			return // the parser's scanner reports comments, and so does not continue strings behind them
		}
		if got.From != want.Start || got.To != want.End {
			t.Errorf("%q: token %q, want %q (%v)", sql, sql[got.From:got.To], sql[want.Start:want.End], want.Token)
			return
		}
	}
	if end := l.Next(); end.Kind != lex.TEnd {
		t.Errorf("%q: token %q, want the end", sql, sql[end.From:end.To])
	}
}

// TestCorpus checks what people wrote.
func TestCorpus(t *testing.T) {
	all := corpus(t)
	b := newBench(t, withRelations(catalogRows(t), all))
	y := newTally()
	for _, sql := range all {
		b.check(t, y, sql)
		checkTokens(t, sql)
	}
	y.report(t, 0.90)
	if y.valid < 1000 {
		t.Errorf("%d valid statements in the corpus, want 1000 or more", y.valid)
	}
}

// TestGenerated checks statements of a grammar, in many spellings.
func TestGenerated(t *testing.T) {
	b := newBench(t, catalogRows(t))
	y := newTally()
	random(t, func(r *rand.Rand) {
		sql := generate(r)
		b.check(t, y, sql)
		if r.IntN(4) == 0 {
			checkTokens(t, sql)
		}
	})
	y.report(t, 0.97)
	if y.valid*2 < y.texts || y.valid < 5000 {
		t.Errorf("%d of %d texts are valid", y.valid, y.texts)
	}
}

// TestMutated checks statements of the corpus and of the grammar with tokens
// removed, doubled, exchanged and put in.
func TestMutated(t *testing.T) {
	all := corpus(t)
	all = slices.DeleteFunc(all, func(sql string) bool { return len(sql) > 1000 })
	b := newBench(t, withRelations(catalogRows(t), all))
	y := newTally()
	random(t, func(r *rand.Rand) {
		sql := all[r.IntN(len(all))]
		if r.IntN(3) == 0 {
			sql = generate(r)
		}
		for range 1 + r.IntN(3) {
			sql = mutate(r, sql)
		}
		b.check(t, y, sql)
		if r.IntN(4) == 0 {
			checkTokens(t, sql)
		}
	})
	y.report(t, 0.85)
}

// random runs f, as often as there are texts to generate, with random sources.
func random(t *testing.T, f func(r *rand.Rand)) {
	start := *seed
	if start == 0 {
		start = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d", start)
	const sources = 4
	var workers sync.WaitGroup
	for source := range uint64(sources) {
		workers.Go(func() { // ends when its share is done; the test waits for it
			r := rand.New(rand.NewPCG(start, source))
			for range *count / sources {
				if t.Failed() {
					return
				}
				f(r)
			}
		})
	}
	workers.Wait()
}

// spare are tokens that mutations put in.
var spare = strings.Fields(`SELECT FROM WHERE AS DISTINCT ON IS NOT FOR UPDATE INTO WITH RECURSIVE MATERIALIZED VALUES TABLE
	UNION ALL JOIN LATERAL USING GROUP BY ORDER LIMIT FETCH FIRST ROWS ONLY OVER FILTER WITHIN ROLLUP CUBE SETS
	INSERT DELETE UPDATE MERGE TABLESAMPLE REPEATABLE OPERATOR ORDINALITY AT TIME ZONE CAST COLLATE SHARE KEY NO
	( ) ( ) , , ; . :: * + - = <> || [ ] t s1 ul v_wf wf nextval('s1') wf() lower f x "x" U&"x" 'a' $$a$$ E'\'' 1 $1 NULL
	EXPLAIN ANALYZE COPY TO STDOUT BEGIN COMMIT SET LOCAL TEMP CREATE SHOW --x /*x*/ ON COMMIT DROP`)

// mutate changes one token of a text.
func mutate(r *rand.Rand, sql string) string {
	result, err := pg.Scan(sql)
	if err != nil || len(result.Tokens) == 0 || len(sql) > maxText {
		return sql
	}
	tokens := make([]string, len(result.Tokens))
	for i, token := range result.Tokens {
		tokens[i] = sql[token.Start:token.End]
		if token.Token == pg.Token_SQL_COMMENT {
			tokens[i] += "\n"
		}
	}
	i, j := r.IntN(len(tokens)), r.IntN(len(tokens))
	other := spare[r.IntN(len(spare))]
	if strings.HasPrefix(other, "--") {
		other += "\n"
	}
	switch r.IntN(12) {
	case 0:
		tokens = slices.Delete(tokens, i, i+1)
	case 1:
		tokens = slices.Insert(tokens, j, tokens[i])
	case 2:
		tokens[i], tokens[j] = tokens[j], tokens[i]
	case 3:
		tokens[i] = other
	case 4, 5:
		tokens = slices.Insert(tokens, i, other)
	default: // another name, or another kind of call
		for ; i < len(tokens)-1 && result.Tokens[i].Token != pg.Token_IDENT; i++ {
		}
		pool := [][]string{relations, reserved, functions, writers, columns, labels, {"x", "f(x)", "wf()", "(SELECT 1)", "t.v", "lower(v)"}}
		names := pool[r.IntN(len(pool))]
		tokens[i] = names[r.IntN(len(names))]
	}
	return strings.Join(tokens, " ")
}

// TestRelations: every relation of a query counts wherever it stands. The same
// text is classified twice, with each of its relations in turn reserved for the
// leader.
func TestRelations(t *testing.T) {
	rows := catalogRows(t)
	plain := newBench(t, rows)
	reservedFor := map[string]*bench{}
	for _, name := range []string{"t", "t2", "v_ro", "mv", "pg_class", "Mixed Case"} {
		changed := slices.Clone(rows)
		changed = append(changed, []string{"relation", name, "unlogged", "", ""})
		reservedFor[name] = newBench(t, changed)
	}
	y := newTally()
	random(t, func(r *rand.Rand) {
		sql := generate(r)
		if route.Classify([]byte(sql), true, plain.catalog).Kind != route.Read {
			return
		}
		for _, b := range reservedFor {
			b.check(t, y, sql)
		}
	})
	fmt.Fprintln(t.Output(), y.texts, "texts")
}
