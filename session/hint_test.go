package session

import (
	"reflect"
	"testing"
)

func TestHints(t *testing.T) {
	for _, c := range []struct {
		text string
		want []ownSet
	}{
		{"select 1", nil},
		{"select 'lsnproxy: consistency=strong'", nil},
		{"select lsnproxy_x /* a comment */", nil},
		{"/* lsnproxy: consistency=eventual */ select 1", []ownSet{{"consistency", "eventual"}}},
		{"  /*lsnproxy:Consistency=bounded,staleness=500ms, 16MB , wait=0*/select 1", []ownSet{{"consistency", "bounded"}, {"staleness", "500ms,16MB"}, {"wait", "0"}}},
		{"select 1 /* lsnproxy: wait='50ms' */;\n", []ownSet{{"wait", "50ms"}}},
		{
			"select 1 /*action='a%2Cb',lsnproxy_consistency='strong',lsnproxy_staleness='1s%2C%201MB'*/",
			[]ownSet{{"consistency", "strong"}, {"staleness", "1s, 1MB"}},
		},
		{"/* nothing */ select 1 /* lsnproxy: fallback=error */", []ownSet{{"fallback", "error"}}},
	} {
		comment := hintOf([]byte(c.text))
		got, err := hinted(comment)
		if comment == "" {
			got = nil
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %q, %v; want %q", c.text, got, err, c.want)
		}
	}
	for _, text := range []string{"/* lsnproxy: consistency */ select 1", "select 1 /*lsnproxy_wait='%zz'*/", "/* lsnproxy: */ select 1"} {
		if got, err := hinted(hintOf([]byte(text))); err == nil {
			t.Errorf("%q: %q", text, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { hintOf([]byte("select abalance from pgbench_accounts where aid = 12345;")) }); n != 0 {
		t.Errorf("%v allocations for a statement without a hint", n)
	}
}

func FuzzHint(f *testing.F) {
	f.Add("/* lsnproxy: consistency=eventual, wait=50ms */ select 1")
	f.Add("select 1 /*lsnproxy_consistency='strong'*/")
	f.Fuzz(func(t *testing.T, text string) {
		if comment := hintOf([]byte(text)); comment != "" {
			_, _ = hinted(comment)
		}
	})
}
