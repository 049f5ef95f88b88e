package route

import "github.com/lsnproxy/lsnproxy/route/internal/lex"

// First returns the first statement of a text, if it is one that holds no semicolon itself.
func First(sql []byte, conforming bool) []byte {
	l := lex.Lexer{Src: sql, Conforming: conforming}
	from := -1
	for {
		switch t := l.Next(); {
		case t.Kind == lex.TEnd || t.Kind == lex.TBad:
			return sql[max(from, 0):]
		case t.Kind != lex.TSemicolon && from < 0:
			from = int(t.From)
		case t.Kind == lex.TSemicolon && from >= 0:
			return sql[from:t.From]
		}
	}
}
