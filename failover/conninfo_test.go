package failover

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"pgregory.net/rapid"
)

func TestConninfo(t *testing.T) {
	for _, c := range []struct{ text, address, pointed string }{
		{"host=a port=5433 user=u", "a:5433", "host='n' port='6432' user='u'"},
		{"user=u host=a", "a:5432", "host='n' port='6432' user='u'"},
		{`  host = 'a'  password='it\'s \\ here' `, "a:5432", `host='n' port='6432' password='it\'s \\ here'`},
		{"hostaddr=10.0.0.1 port=1 sslmode=verify-full", "10.0.0.1:1", "host='n' port='6432' sslmode='verify-full'"},
		{"host=a,b port=1,2 target_session_attrs=read-write user=u", "", "host='n' port='6432' user='u'"},
		{"host=" + nowhere + " user=u", "", "host='n' port='6432' user='u'"},
		{"host=::1 port=1", "[::1]:1", "host='n' port='6432'"},
		{"postgres://u:p%20w@a:5433/db?sslmode=require", "a:5433", "host='n' port='6432' user='u' password='p w' dbname='db' sslmode='require'"},
		{"", "", "host='n' port='6432'"},
	} {
		info, err := parseConninfo(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		pointed, err := info.to("n:6432")
		if info.address() != c.address || err != nil || pointed.String() != c.pointed {
			t.Errorf("%s leads to %q and becomes %s, %v; want %q and %s", c.text, info.address(), pointed, err, c.address, c.pointed)
		}
		if again, err := parseConninfo(pointed.String()); err != nil || !slices.Equal(again, pointed) || again.address() != "n:6432" {
			t.Errorf("%s is read as %v, %v", pointed, again, err)
		}
	}
	for _, bad := range []string{"host", "host='a", "a b=c", "postgres://%zz"} {
		if info, err := parseConninfo(bad); err == nil {
			t.Errorf("%s is read as %v", bad, info)
		}
	}
}

// What is written is read back, by us and by another reader of libpq's syntax.
func TestConninfoRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.StringMatching(`[ -~]{0,12}`)
		c := conninfo{{"host", "h"}, {"port", "1"}, {"user", value.Draw(t, "user")}, {"password", value.Draw(t, "password")}, {"sslmode", "disable"}}
		again, err := parseConninfo(c.String())
		if err != nil || !slices.Equal(again, c) {
			t.Fatalf("%s is read as %v, %v", c, again, err)
		}
		theirs, err := pgconn.ParseConfig(c.String())
		if err != nil {
			t.Fatalf("%s: %v", c, err)
		}
		if password := c.get("password"); password != "" && theirs.Password != password {
			t.Fatalf("%s: their password is %q", c, theirs.Password)
		}
	})
}

func TestRule(t *testing.T) {
	for _, c := range []struct {
		text    string
		any     bool
		count   int
		names   []string
		without string // for node b, in place of the old leader a
	}{
		{"b", false, 1, []string{"b"}, `FIRST 1 ("a")`},
		{"b, C", false, 1, []string{"b", "c"}, `FIRST 1 ("a", "c")`},
		{"2 (b, c)", false, 2, []string{"b", "c"}, `FIRST 2 ("a", "c")`},
		{"FIRST 2 (b, c, d)", false, 2, []string{"b", "c", "d"}, `FIRST 2 ("a", "c", "d")`},
		{`any 1 ("B", "x ""y"", (z)")`, true, 1, []string{"b", `x "y", (z)`}, `ANY 1 ("a", "x ""y"", (z)")`},
		{"ANY 2 (a, b, c)", true, 2, []string{"a", "b", "c"}, `ANY 2 ("a", "c")`},
		{"ANY 1 (*)", true, 1, []string{"*"}, "ANY 1 (*)"},
		{"*", false, 1, []string{"*"}, "FIRST 1 (*)"},
	} {
		r, ok := parseRule(c.text)
		if !ok || r.any != c.any || r.count != c.count || !slices.Equal(r.names, c.names) {
			t.Errorf("%s is read as %+v, %v", c.text, r, ok)
		}
		if got := r.without("B", "A"); got != c.without {
			t.Errorf("%s without b is %s, want %s", c.text, got, c.without)
		}
		if again, ok := parseRule(c.without); !ok || again.any != r.any {
			t.Errorf("%s is read as %+v", c.without, again)
		}
	}
	for _, none := range []string{"", "  ", "ANY x (a)", "ANY 0 (a)", "()", "2 ()"} {
		if r, ok := parseRule(none); ok {
			t.Errorf("%q is read as %+v", none, r)
		}
	}
}
