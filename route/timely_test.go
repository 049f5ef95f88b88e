package route

import "testing"

// TestTimed: which statements may ask when their transaction began, in their own
// words or by what they name.
func TestTimed(t *testing.T) {
	c, err := NewCatalog([][]string{
		{"function", "f", "s", "", "BEGIN RETURN Current_Timestamp; END"},
		{"function", "g", "s", "", "SELECT f()"},
		{"function", "h", "s", "", "SELECT 'snow'"},
		{"relation", "r", "", "", ""},
		{"relation", "v", "", "", ""},
		{"view", "v", "", "", "SELECT g() FROM r"},
		{"relation", "w", "", "", ""},
		{"view", "w", "", "", "SELECT now() FROM r"},
		{"function", "reads", "s", "", "SELECT count(*) FROM w"},
		{"function", "now", "s", "b", ""},
		{"function", "count", "i", "b", ""},
	})
	if err != nil {
		t.Fatal(err)
	}
	for sql, want := range map[string]bool{
		"SELECT 1 FROM r": false, "SELECT h()": false, "SELECT count(*), known, page, current_user FROM r": false,
		"SELECT NOW()": true, "SELECT 'today'::date": true, "SELECT E'\\x6eow'::date": true, "SELECT LOCALTIME(0)": true,
		"SELECT f()": true, "SELECT g()": true, "SELECT 1 FROM v": true, "SELECT 1 FROM w": true, "SELECT reads()": true,
	} {
		class := Classify([]byte(sql), true, c)
		if got := class.Timed || Timely([]byte(sql)); got != want {
			t.Errorf("%s: %v, want %v", sql, got, want)
		}
		if class.Timed && class.Reason != ReasonRead {
			t.Errorf("%s: %v", sql, class.Reason)
		}
	}
}
