package route

import (
	"bytes"

	"github.com/lsnproxy/lsnproxy/route/internal/lex"
)

// Explained finds the option LSNPROXY of EXPLAIN, which is the proxy's own. It
// returns where its parentheses stand. They must hold nothing else, and the string
// no other statement: a server refuses what is written in another way.
func Explained(sql []byte, conforming bool) (from, to int, ok bool) {
	if !mayExplain(sql) {
		return 0, 0, false
	}
	l := lex.Lexer{Src: sql, Conforming: conforming}
	reads := func(t lex.Token, word string) bool {
		return t.Kind == lex.TWord && bytes.EqualFold(sql[t.From:t.To], []byte(word))
	}
	explain, open, option, end := l.Next(), l.Next(), l.Next(), l.Next()
	if !reads(explain, "explain") || open.Kind != lex.TOpen || !reads(option, "lsnproxy") || end.Kind != lex.TClose {
		return 0, 0, false
	}
	for over := false; ; {
		switch t := l.Next(); {
		case t.Kind == lex.TEnd:
			return int(open.From), int(end.To), true
		case t.Kind == lex.TSemicolon:
			over = true
		case over || t.Kind == lex.TBad:
			return 0, 0, false
		}
	}
}

// mayExplain reports whether sql may begin with EXPLAIN, perhaps behind a comment.
// Of almost all statements the first letter says that it does not.
func mayExplain(sql []byte) bool {
	for _, c := range sql {
		switch c {
		case ' ', '\t', '\n', '\r', '\f', '\v':
		case 'e', 'E', '/', '-':
			return true
		default:
			return false
		}
	}
	return false
}
