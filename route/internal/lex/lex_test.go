package lex

import (
	"bytes"
	"strings"
	"testing"
)

// tokens returns the tokens of a text with | between, ! for what is bad.
func tokens(sql string, conforming bool) string {
	l := Lexer{Src: []byte(sql), Conforming: conforming}
	var all []string
	for {
		switch t := l.Next(); t.Kind {
		case TEnd:
			return strings.Join(all, "|")
		case TBad:
			return strings.Join(append(all, "!"), "|")
		default:
			all = append(all, sql[t.From:t.To])
		}
	}
}

func TestTokens(t *testing.T) {
	for _, c := range []struct{ sql, want string }{
		{"", ""},
		{" \t\n\r\f ", ""},
		{"a.b$c_1 \u00e4\u00f6", "a|.|b$c_1|\u00e4\u00f6"},
		{"'a''b' 'c'", "'a''b'|'c'"},
		{"'a'\n 'b'", "'a'\n 'b'"},
		{"'a' -- x\n -- y\n'b' 'c'", "'a' -- x\n -- y\n'b'|'c'"},
		{"'a' /* */\n 'b'", "'a'|'b'"},
		{`'a\' c'`, `'a\'|c|!`},
		{`E'a\'b\\' e''`, `E'a\'b\\'|e''`},
		{"E'a'\n'b\\''", "E'a'\n'b\\''"},
		{"b'0''1' X'f'\n'0' N'n'", "b'0'|'1'|X'f'\n'0'|N|'n'"},
		{`U&'\0041' uescape '!' U&"a""b" "x""y" u & v`, `U&'\0041'|uescape|'!'|U&"a""b"|"x""y"|u|&|v`},
		{"$$a$b$$ $x$ $$ $y$ $x$ $1 a$$b", "$$a$b$$|$x$ $$ $y$ $x$|$1|a$$b"},
		{"$é$ ' $é$", "$é$ ' $é$"},
		{"$a", "!"},
		{"1 1.5 .5 5. 1e10 1.e-3 1..2 1_000 0xfF 0o17 0b01", "1|1.5|.5|5.|1e10|1.e-3|1|..|2|1_000|0xfF|0o17|0b01"},
		{"1a", "!"},
		{"$1a", "!"},
		{"1e", "!"},
		{"a--b\nc", "a|c"},
		{"a-- b\rc", "a|c"},
		{"a/* b /* c */ d */e", "a|e"},
		{"a/* /* */", "a|!"},
		{"a+-b", "a|+|-|b"},
		{"a@+-b", "a|@+-|b"},
		{"a<-1", "a|<|-|1"},
		{"1*/**/-2", "1|*|-|2"},
		{"a<=b>=c<>d!=e=>f:=g::h:i", "a|<=|b|>=|c|<>|d|!=|e|=>|f|:=|g|::|h|:|i"},
		{"a->>'b'#>>'{c}' ?| x", "a|->>|'b'|#>>|'{c}'|?||x"},
		{"a+--b\n1", "a|+|1"},
		{"f(a[1],*);", "f|(|a|[|1|]|,|*|)|;"},
		{"a {", "a|!"},
		{`a \ b`, "a|!"},
		{strings.Repeat("+-", 100), "!"},
		{strings.Repeat("<", 64), "!"},
		{`"a`, "!"},
	} {
		if got := tokens(c.sql, true); got != c.want {
			t.Errorf("%q: %s, want %s", c.sql, got, c.want)
		}
	}
}

func TestTokensWithBackslashes(t *testing.T) {
	for _, c := range []struct{ sql, want string }{
		{`'a\' b' c`, `'a\' b'|c`},
		{`"a\" b`, `"a\"|b`},
		{`B'\' b`, `B'\'|b`},
		{`$$\$$ b`, `$$\$$|b`},
		{`U&'a'`, "!"},
		{`U&"a"`, `U&"a"`},
	} {
		if got := tokens(c.sql, false); got != c.want {
			t.Errorf("%q: %s, want %s", c.sql, got, c.want)
		}
	}
}

func TestFold(t *testing.T) {
	long := strings.Repeat("x", MaxName)
	for _, c := range []struct{ written, want string }{
		{"AbC\u00c4", "abc\u00c4"},
		{`"AbC"`, "AbC"},
		{`"a""b"`, `a"b`},
		{long, long},
		{long + "x", ""},
		{`"` + long + `"`, long},
		{`"` + long + `x"`, ""},
	} {
		if got := string(Fold(nil, []byte(c.written))); got != c.want {
			t.Errorf("%s: %s, want %s", c.written, got, c.want)
		}
	}
}

func TestKeyword(t *testing.T) {
	for text, want := range map[string]Word{
		"select": WSelect, "system_user": WNone, "any": WReserved, "tablesample": WTablesample,
		"current_timestamp": WReserved, "selects": WNone, "xml": WXML, "": WNone,
	} {
		if got := keyword([]byte(text)); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
	if !WFrom.Reserved() || !WReserved.Reserved() || WNone.Reserved() || WJoin.Reserved() {
		t.Error("reserved words")
	}
}

// FuzzNext: tokens follow one another, none is empty, and the last is the end.
func FuzzNext(f *testing.F) {
	f.Add([]byte("SELECT 'a''b', $$x$$ FROM \"t\" /* c */ WHERE a <> 1.5 -- d"), true)
	f.Fuzz(func(t *testing.T, sql []byte, conforming bool) {
		if bytes.IndexByte(sql, 0) >= 0 {
			return
		}
		l := Lexer{Src: sql, Conforming: conforming}
		for end := int32(0); ; {
			token := l.Next()
			if token.From < end || token.To < token.From || int(token.To) > len(sql) {
				t.Fatalf("token %v behind %d", token, end)
			}
			switch token.Kind {
			case TEnd:
				return
			case TBad:
				if next := l.Next(); next.Kind != TEnd {
					t.Fatalf("%v behind what is bad", next)
				}
				return
			}
			if token.To == token.From {
				t.Fatalf("empty token %v", token)
			}
			end = token.To
		}
	})
}
