package route

import "testing"

func TestFirst(t *testing.T) {
	for sql, want := range map[string]string{
		"":                                   "",
		"rollback":                           "rollback",
		"; /* ; */ rollback to \"a;\" ; end": `rollback to "a;" `,
		"select ';'; select 2":               "select ';'",
		"rollback; select 'x":                "rollback",
	} {
		if got := string(First([]byte(sql), true)); got != want {
			t.Errorf("%q: %q, not %q", sql, got, want)
		}
	}
}
