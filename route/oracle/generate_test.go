package oracle

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// generator writes random statements, most of them valid, in random spelling.
type generator struct {
	*rand.Rand
	text  strings.Builder
	depth int
	names []string // of WITH, in scope or not
}

// Names of testdata/schema.sql and of pg_catalog. One of several is taken each
// time; most are harmless.
var (
	relations = []string{"t", "t2", "t", "t2", "pgbench_accounts", "Mixed Case", "v_ro", "mv", "parent_ok", "pg_class", "guarded_ok"}
	reserved  = []string{"s1", "ul", "v_wf", "v_nested", "v_seq", "pg_stat_activity", "pg_locks", "parent", "guarded", "nowhere", "pg_settings"}
	functions = []string{"lower", "upper", "abs", "length", "now", "random", "concat", "wf_ro", "to_char", "greatest", "coalesce", "generate_series", "date_trunc", "left", "right", "overlaps"}
	writers   = []string{"wf", "nextval", "setval", "pg_advisory_lock", "set_config", "txid_current", "wf_swallow", "no_such", "pg_notify", "Lower", "calls_stat", "pg_stat_get_numscans", "version", "over", "filter", "values_", "pg_sleep_for"}
	columns   = []string{"id", "v", "created", "aid", "value", "name", "key", "Id", "label_ok", "type", "share", "first", "filter"}
	types     = []string{"int", "text", "numeric(10, 2)", "varchar(3)", "double precision", "timestamp(0) with time zone", "pg_catalog.int4", "interval", "char", "bit varying(3)", "text[]", "checked_ok"}
	operators = []string{"+", "-", "*", "/", "||", "=", "<>", "!=", "<=", "~*", "->>", "@>", "%", "^", "#>>", "&&", "=~="}
	labels    = []string{"a", "b", "x", "y", "n", "within", "repeatable", "first", "over", "filter", "key", "materialized", "recursive", "rows", "sets"}
	anyLabels = []string{"select", "from", "where", "for", "update", "into", "as", "distinct", "with", "union", "insert", "x"} // behind AS
	bare      = []string{"x", "y", "value", "n", "x", "y", "select", "distinct", "table", "values", "is", "end", "all", "when", "lateral"}
	texts     = []string{"x", "it''s", "; DROP TABLE t", "--", "/*", "FOR UPDATE", "$$", "1", "2000-01-01", "a b"}
	gaps      = []string{" ", " ", " ", " ", " ", "\n", "\t", "  ", "/**/", "/* ; ' */", "/*/* \" */*/", "-- $$ '\n", "\r\n"}
)

func generate(r *rand.Rand) string {
	g := &generator{Rand: r}
	g.statement()
	return g.text.String()
}

// one in n
func (g *generator) chance(n int) bool { return g.IntN(n) == 0 }

func (g *generator) pick(from []string) string { return from[g.IntN(len(from))] }

// emit writes a token behind a gap.
func (g *generator) emit(token string) {
	const tight = "(),;[]"
	so := g.text.String()
	switch {
	case so == "":
	case (strings.ContainsAny(token[:1], tight) || strings.Contains(tight, so[len(so)-1:])) && g.IntN(3) > 0:
	default:
		g.text.WriteString(g.pick(gaps))
	}
	g.text.WriteString(token)
}

// words writes keywords and punctuation in any case. For ~ it writes a space:
// the parser looks from NOT to the next token, and its comments are tokens.
func (g *generator) words(words string) {
	for word := range strings.FieldsSeq(words) {
		switch g.IntN(4) {
		case 0:
			word = strings.ToLower(word)
		case 1:
			word = strings.ToUpper(word[:1]) + strings.ToLower(word[1:])
		}
		g.emit(strings.ReplaceAll(word, "~", " "))
	}
}

// name writes an identifier in one of its spellings.
func (g *generator) name(name string) {
	folds := strings.ToLower(name) == name && !strings.Contains(name, " ")
	switch n := g.IntN(2000); {
	case n == 0:
		g.emit(fmt.Sprintf(`U&"\%04x%s"`, name[0], name[1:]))
	case !folds || n < 300:
		g.emit(`"` + name + `"`)
	case n < 600:
		g.emit(strings.ToUpper(name))
	default:
		g.emit(name)
	}
}

// qualified writes a name, perhaps behind its schema.
func (g *generator) qualified(name, schema string) {
	if g.chance(6) {
		g.name(schema)
		g.emit(".")
	}
	g.name(name)
}

func (g *generator) literal() {
	s := g.pick(texts)
	switch g.IntN(10) {
	case 0:
		g.emit("E'" + s + `\'\\'`)
	case 1:
		g.emit("$q$" + s + "$q$")
	case 2:
		g.emit("U&'" + s + "'")
	case 3:
		g.emit("'" + s + "'\n'y'")
	case 4, 5:
		g.emit("'" + s + "'")
	default:
		g.emit(g.pick([]string{"1", "2.5", "1e3", ".5", "0x1f", "1_0", "$1", "NULL", "true"}))
	}
}

// list writes one or more things with commas between.
func (g *generator) list(thing func()) {
	thing()
	for g.chance(3) {
		g.emit(",")
		thing()
	}
}

func (g *generator) parens(thing func()) {
	g.emit("(")
	thing()
	g.emit(")")
}

// deeper runs thing unless it is deep enough, then what ends the recursion.
func (g *generator) deeper(thing, end func()) {
	if g.depth >= 5 {
		end()
		return
	}
	g.depth++
	thing()
	g.depth--
}

func (g *generator) statement() {
	switch g.IntN(40) {
	case 0:
		g.words("EXPLAIN")
		if g.chance(2) {
			g.words("( ANALYZE , COSTS OFF )")
		} else if g.chance(2) {
			g.words("ANALYZE VERBOSE")
		}
		g.query()
	case 1:
		g.words("COPY")
		g.parens(g.query)
		g.words(g.pick([]string{"TO STDOUT", "TO STDIN WITH ( FORMAT csv , FORCE_QUOTE ( a ) )", "TO PROGRAM 'x'"}))
	case 2:
		g.words("COPY")
		g.relation()
		if g.chance(2) {
			g.parens(func() { g.list(g.column) })
		}
		g.words(g.pick([]string{"TO STDOUT", "FROM STDIN", "FROM STDOUT", "TO 'x'", "FROM 'x'"}))
	case 3:
		g.modify()
	case 4:
		g.query()
		g.emit(";")
		g.statement()
	case 5:
		g.command()
	default:
		g.query()
	}
	for g.chance(4) {
		g.emit(";")
	}
	if g.chance(8) {
		g.text.WriteString(" -- '")
	}
}

// command writes statements of transactions and sessions.
func (g *generator) command() {
	g.words(g.pick([]string{
		"BEGIN", "BEGIN READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE , READ ONLY", "START TRANSACTION READ ONLY , DEFERRABLE",
		"BEGIN READ WRITE READ ONLY", "COMMIT", "COMMIT AND CHAIN", "END", "ROLLBACK AND NO CHAIN", "ROLLBACK TO x", "ABORT",
		"COMMIT PREPARED 'x'", "PREPARE TRANSACTION 'x'", "SAVEPOINT x", "RELEASE x", "SET TRANSACTION READ ONLY",
		"SET work_mem = '1MB'", "SET LOCAL work_mem TO DEFAULT", "SET SESSION search_path TO a , b", "SET TIME ZONE 'UTC'",
		"SET SESSION AUTHORIZATION x", "SET LOCAL ROLE x", "SET NAMES 'x'", "SET SCHEMA 'x'", "SET CONSTRAINTS ALL DEFERRED",
		"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "RESET ALL", "RESET work_mem", "RESET SESSION AUTHORIZATION",
		`SHOW lsnproxy . token`, `SHOW "lsnproxy" . "TOKEN"`, "SET lsnproxy . token = 'x'", "RESET lsnproxy . token",
		"SHOW port", "SHOW timezone", "SHOW TRANSACTION ISOLATION LEVEL", "SHOW ALL", "DEALLOCATE ALL", `DEALLOCATE "X"`,
		"DEALLOCATE PREPARE x", "DISCARD ALL", "DISCARD TEMP", "LISTEN x", "UNLISTEN *", "NOTIFY x", "LOAD 'x'",
		"PREPARE x AS SELECT 1", "PREPARE x ( int ) AS INSERT INTO t VALUES ( $1 )", "EXECUTE x ( 1 )", "DECLARE x CURSOR FOR SELECT 1",
		"DECLARE x CURSOR WITH HOLD FOR SELECT 1", "FETCH x", "CLOSE ALL", "CREATE TEMP TABLE x ( i int )",
		"CREATE TEMP TABLE x ( i int ) ON COMMIT DROP", "CREATE OR REPLACE TEMPORARY VIEW x AS SELECT 1", "CREATE INDEX ON t ( v )",
		"CREATE TABLE x AS SELECT 1", "DROP FUNCTION f", "ALTER TABLE t SET UNLOGGED", "SELECT 1 INTO x", "SELECT 1 INTO TEMP x",
		"CREATE FUNCTION f ( ) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 ; SELECT CASE WHEN true THEN 2 END ; END",
		"CREATE RULE r AS ON INSERT TO t DO ALSO ( INSERT INTO t2 VALUES ( 1 ) ; DELETE FROM t2 )", "LOCK TABLE t", "VACUUM", "CALL wp ( )",
		"DO $$ BEGIN PERFORM 1; END $$", "REFRESH MATERIALIZED VIEW mv", "GRANT SELECT ON t TO x", "TRUNCATE t",
	}))
}

func (g *generator) modify() {
	switch g.IntN(4) {
	case 0:
		g.words("INSERT INTO t")
		g.query()
		if g.chance(2) {
			g.words("RETURNING")
			g.list(g.expr)
		}
	case 1:
		g.words("UPDATE t SET v =")
		g.expr()
	case 2:
		g.words("DELETE FROM t USING")
		g.item()
		g.words("WHERE")
		g.expr()
	default:
		g.words("MERGE INTO t USING t2 ON")
		g.expr()
		g.words("WHEN MATCHED THEN DELETE")
	}
}

func (g *generator) query() {
	g.deeper(func() {
		if g.chance(5) {
			g.with()
		}
		g.body()
		if g.chance(4) {
			g.words("ORDER BY")
			g.list(func() {
				g.expr()
				g.words(g.pick([]string{"", "ASC", "DESC NULLS~LAST", "USING <"}))
			})
		}
		if g.chance(6) {
			g.words("LIMIT")
			g.expr()
		} else if g.chance(12) {
			g.words("FETCH")
			g.words(g.pick([]string{"FIRST", "NEXT"}))
			g.parens(g.expr)
			g.words("ROWS ONLY")
		}
		if g.chance(60) {
			g.words(g.pick([]string{"FOR UPDATE", "FOR NO KEY UPDATE NOWAIT", "FOR SHARE OF t", "FOR KEY SHARE SKIP LOCKED", "FOR READ ONLY"}))
		}
	}, func() { g.words("SELECT 1") })
}

func (g *generator) with() {
	g.words("WITH")
	if g.chance(4) {
		g.words("RECURSIVE")
	}
	g.list(func() {
		name := g.pick([]string{"c1", "c2", "t", "s1", "nowhere", "ul", "materialized", "recursive"})
		g.name(name)
		if g.chance(4) {
			g.parens(func() { g.list(func() { g.name(g.pick(labels)) }) })
		}
		g.words("AS")
		g.words(g.pick([]string{"", "", "MATERIALIZED", "NOT MATERIALIZED"}))
		g.parens(func() {
			if g.chance(30) {
				g.modify()
			} else {
				g.query()
			}
		})
		if g.chance(20) {
			g.words("SEARCH DEPTH FIRST BY a , b SET ord")
		}
		if g.chance(20) {
			g.words("CYCLE a , b SET cyc TO true DEFAULT false USING path")
		}
		g.names = append(g.names, name)
	})
}

func (g *generator) body() {
	switch g.IntN(12) {
	case 0:
		g.words("VALUES")
		g.list(func() { g.parens(func() { g.list(g.expr) }) })
	case 1:
		g.words("TABLE")
		g.relation()
	case 2:
		g.parens(g.query)
	case 3, 4:
		g.parens(g.query)
		g.words(g.pick([]string{"UNION", "UNION ALL", "INTERSECT", "EXCEPT DISTINCT"}))
		g.body()
	default:
		g.selection()
	}
}

func (g *generator) selection() {
	g.words("SELECT")
	switch g.IntN(10) {
	case 0:
		g.words("DISTINCT ON")
		g.parens(func() { g.list(g.expr) })
	case 1:
		g.words("DISTINCT")
	}
	g.list(g.target)
	if g.chance(150) {
		g.words(g.pick([]string{"INTO x", "INTO TEMP x", "INTO UNLOGGED TABLE x"}))
	}
	if g.IntN(5) > 0 {
		g.words("FROM")
		g.list(g.item)
	}
	if g.chance(2) {
		g.words("WHERE")
		g.expr()
	}
	if g.chance(6) {
		g.words("GROUP BY")
		g.list(g.grouping)
		if g.chance(3) {
			g.words("HAVING")
			g.expr()
		}
	}
	if g.chance(12) {
		g.words("WINDOW w AS")
		g.parens(g.window)
	}
}

func (g *generator) target() {
	switch g.IntN(8) {
	case 0:
		g.emit("*")
	case 1:
		g.name(g.pick(labels))
		g.words(". *")
	case 2:
		g.expr()
		g.words("AS")
		g.words(g.pick(anyLabels))
	case 3:
		g.expr()
		g.words(g.pick(bare))
	default:
		g.expr()
	}
}

func (g *generator) grouping() {
	switch g.IntN(6) {
	case 0:
		g.words("CUBE")
		g.parens(func() { g.list(g.expr) })
	case 1:
		g.words("GROUPING SETS")
		g.parens(func() {
			g.words("( ) , ROLLUP")
			g.parens(func() { g.list(g.expr) })
		})
	default:
		g.expr()
	}
}

func (g *generator) window() {
	if g.chance(2) {
		g.words("PARTITION BY")
		g.list(g.expr)
	}
	g.words("ORDER BY")
	g.expr()
	g.words(g.pick([]string{"", "ROWS BETWEEN 1 PRECEDING AND CURRENT ROW", "RANGE UNBOUNDED PRECEDING EXCLUDE TIES"}))
}

func (g *generator) relation() {
	switch {
	case len(g.names) > 0 && g.chance(3):
		g.name(g.pick(g.names))
	case g.chance(40):
		g.qualified(g.pick(reserved), "public")
	default:
		g.qualified(g.pick(relations), "public")
	}
}

func (g *generator) alias() {
	switch g.IntN(4) {
	case 0:
		g.name(g.pick(labels))
	case 1:
		g.words("AS")
		g.name(g.pick(labels))
	case 2:
		g.words("AS")
		g.name(g.pick(labels))
		g.parens(func() { g.list(func() { g.name(g.pick(labels)) }) })
	default:
		g.name(g.pick(labels))
		g.parens(func() { g.list(func() { g.name(g.pick(labels)) }) })
	}
}

// item writes one item of a FROM list.
func (g *generator) item() {
	g.deeper(func() {
		switch g.IntN(14) {
		case 0, 1:
			g.words(g.pick([]string{"", "LATERAL"}))
			g.parens(g.query)
			g.alias()
		case 2, 3:
			g.words(g.pick([]string{"", "LATERAL"}))
			g.call()
			g.words(g.pick([]string{"", "WITH~ORDINALITY"}))
			g.alias()
		case 4, 5:
			g.item()
			g.words(g.pick([]string{"JOIN", "LEFT JOIN", "FULL OUTER JOIN", "INNER JOIN", "RIGHT JOIN"}))
			g.item()
			if g.chance(3) {
				g.words("USING")
				g.parens(func() { g.list(func() { g.name(g.pick(labels)) }) })
			} else {
				g.words("ON")
				g.expr()
			}
		case 6:
			g.item()
			g.words(g.pick([]string{"CROSS JOIN", "NATURAL JOIN", "NATURAL LEFT JOIN"}))
			g.item()
		case 7:
			g.parens(func() {
				g.item()
				g.words("CROSS JOIN")
				g.item()
			})
			g.words(g.pick([]string{"", "AS j", "AS j ( a , b )"}))
		case 8:
			g.words("ROWS FROM")
			g.parens(func() { g.list(g.call) })
			g.alias()
		case 9:
			g.words("json_to_recordset ( '[]' ) AS r ( a int , b numeric ( 10 , 2 ) , c varchar ( 3 ) )")
		case 10:
			g.words("ONLY")
			g.parens(g.relation)
		case 11:
			g.relation()
			g.alias()
			g.words("TABLESAMPLE")
			g.words(g.pick([]string{"system", "bernoulli", "system", "wf"}))
			g.parens(g.expr)
			if g.chance(2) {
				g.words("REPEATABLE")
				g.parens(g.expr)
			}
		default:
			g.relation()
			if g.chance(2) {
				g.alias()
			}
		}
	}, g.relation)
}
