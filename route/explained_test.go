package route_test

import (
	"testing"

	"github.com/lsnproxy/lsnproxy/route"
)

func TestExplained(t *testing.T) {
	for sql, want := range map[string]string{
		"EXPLAIN (LSNPROXY) SELECT 1":                     "(LSNPROXY)",
		" /* a */ explain\n( lsnproxy ) insert into t; ;": "( lsnproxy )",
		"-- x\nExplain(LsnProxy)(select 1)":               "(LsnProxy)",
		"EXPLAIN (LSNPROXY) ANALYZE SELECT 1":             "(LSNPROXY)", // which the server then refuses
		"EXPLAIN (LSNPROXY":                               "",
		"EXPLAIN (LSNPROXY, ANALYZE) SELECT 1":            "",
		"EXPLAIN (ANALYZE, LSNPROXY) SELECT 1":            "",
		"EXPLAIN (LSNPROXY true) SELECT 1":                "",
		"EXPLAIN (\"LSNPROXY\") SELECT 1":                 "",
		"EXPLAIN (LSNPROXY) SELECT 1; SELECT 2":           "",
		"SELECT 1; EXPLAIN (LSNPROXY) SELECT 1":           "",
		"EXPLAIN (LSNPROXY) SELECT 'x":                    "",
		"EXPLAIN SELECT lsnproxy":                         "",
		"select 'explain (lsnproxy)'":                     "",
		"":                                                "",
	} {
		from, to, ok := route.Explained([]byte(sql), true)
		if ok != (want != "") || sql[from:to] != want {
			t.Errorf("%q: %q, %v", sql, sql[from:to], ok)
		}
	}
}
