// Package lex cuts SQL into tokens as PostgreSQL does, without allocation.
package lex

import (
	"bytes"
	"strings"
)

// Kind is the kind of a Token.
type Kind uint8

const (
	TEnd      Kind = iota // the end of the text
	TBad                  // the rest of the text cannot be read
	TWord                 // an identifier or keyword without quotes
	TQuoted               // "identifier"
	TUnicode              // U&"identifier": its escapes are not read here, so its name is not known
	TString               // a string, bit string or dollar-quoted literal
	TNumber               //
	TParam                // $1
	TOperator             // an operator, * included
	TCast                 // ::
	TMark                 // := => .. and a single colon
	TOpen                 // (
	TClose                // )
	TOpenBracket
	TCloseBracket
	TComma
	TSemicolon
	TDot
)

// Token is Src[From:To] of its Lexer. Word is set for a TWord that is a keyword.
type Token struct {
	Kind     Kind
	Word     Word
	From, To int32
}

// Lexer cuts a text into the tokens PostgreSQL's src/backend/parser/scan.l
// would. Where servers 14 to 18 differ (14 lets an identifier start right
// behind a number) the text is TBad, which sends it to the leader.
type Lexer struct {
	Src        []byte // without a zero byte
	Conforming bool   // standard_conforming_strings
	Junk       bool   // set with a TBad for text that some server may accept
	pos        int
}

// Classes of bytes, as sets.
const (
	cStart    = 1 << iota // may begin an identifier
	cContinue             // may continue one
	cSpace
	cNewline
	cOperator // op_chars of scan.l
	cForeign  // those of them that SQL's operators do not have
	cDigit
)

var classes [256]uint8

// Lower is every byte with ASCII upper case folded to lower.
var Lower [256]byte

func init() {
	for i := range classes {
		c := byte(i)
		Lower[i] = c
		switch {
		case c >= 'A' && c <= 'Z':
			Lower[i] = c + 'a' - 'A'
			fallthrough
		case c >= 'a' && c <= 'z', c == '_', c >= 0x80:
			classes[i] = cStart | cContinue
		case c >= '0' && c <= '9':
			classes[i] = cDigit | cContinue
		case c == '$':
			classes[i] = cContinue
		case c == '\n', c == '\r':
			classes[i] = cSpace | cNewline
		case c == ' ', c == '\t', c == '\f', c == '\v': // \v since 16, an error before
			classes[i] = cSpace
		case strings.IndexByte("~!@#^&|`?%", c) >= 0:
			classes[i] = cOperator | cForeign
		case strings.IndexByte("+-*/<>=", c) >= 0:
			classes[i] = cOperator
		}
	}
}

// at returns the byte at i, or 0 beyond the end; the text has no 0.
func (l *Lexer) at(i int) byte {
	if i < len(l.Src) {
		return l.Src[i]
	}
	return 0
}

func (l *Lexer) make(k Kind, to int) Token {
	t := Token{Kind: k, From: int32(l.pos), To: int32(to)}
	l.pos = to
	return t
}

// bad gives up on the rest of the text.
func (l *Lexer) bad() Token { return l.make(TBad, len(l.Src)) }

// Next returns the next token; at the end, and behind a TBad, TEnd.
func (l *Lexer) Next() Token {
	if !l.skip() {
		return l.bad()
	}
	if l.pos == len(l.Src) {
		return l.make(TEnd, l.pos)
	}
	c := l.Src[l.pos]
	switch class := classes[c]; {
	case class&cStart != 0:
		return l.word()
	case class&cDigit != 0, c == '.' && classes[l.at(l.pos+1)]&cDigit != 0:
		return l.number()
	case class&cOperator != 0:
		return l.operator()
	}
	switch c {
	case '\'':
		return l.quoted(TString, l.pos+1, '\'', !l.Conforming, true)
	case '"':
		return l.quoted(TQuoted, l.pos+1, '"', false, true)
	case '$':
		return l.dollar()
	case '(':
		return l.make(TOpen, l.pos+1)
	case ')':
		return l.make(TClose, l.pos+1)
	case '[':
		return l.make(TOpenBracket, l.pos+1)
	case ']':
		return l.make(TCloseBracket, l.pos+1)
	case ',':
		return l.make(TComma, l.pos+1)
	case ';':
		return l.make(TSemicolon, l.pos+1)
	case '.':
		if l.at(l.pos+1) == '.' {
			return l.make(TMark, l.pos+2)
		}
		return l.make(TDot, l.pos+1)
	case ':':
		switch l.at(l.pos + 1) {
		case ':':
			return l.make(TCast, l.pos+2)
		case '=':
			return l.make(TMark, l.pos+2)
		}
		return l.make(TMark, l.pos+1)
	}
	return l.bad()
}

// skip passes over white space and comments. It reports false for a comment
// that does not end.
func (l *Lexer) skip() bool {
	for l.pos < len(l.Src) {
		c := l.Src[l.pos]
		switch {
		case classes[c]&cSpace != 0:
			l.pos++
		case c == '-' && l.at(l.pos+1) == '-':
			l.pos = l.lineEnd(l.pos)
		case c == '/' && l.at(l.pos+1) == '*':
			if !l.comment() {
				return false
			}
		default:
			return true
		}
	}
	return true
}

// lineEnd returns where the line that i is on ends.
func (l *Lexer) lineEnd(i int) int {
	for i < len(l.Src) && classes[l.Src[i]]&cNewline == 0 {
		i++
	}
	return i
}

// comment passes over a C-style comment, which may hold others.
func (l *Lexer) comment() bool {
	depth := 0
	for i := l.pos; i < len(l.Src); {
		switch {
		case l.Src[i] == '/' && l.at(i+1) == '*':
			depth++
			i += 2
		case l.Src[i] == '*' && l.at(i+1) == '/':
			depth--
			i += 2
			if depth == 0 {
				l.pos = i
				return true
			}
		default:
			i++
		}
	}
	return false
}

// word reads an identifier, a keyword, or a literal with a letter before its
// quote.
func (l *Lexer) word() Token {
	c, quote := Lower[l.Src[l.pos]], l.at(l.pos+1)
	switch {
	case quote == '\'' && c == 'e':
		return l.quoted(TString, l.pos+2, '\'', true, true)
	case quote == '\'' && (c == 'b' || c == 'x'):
		return l.quoted(TString, l.pos+2, '\'', false, false)
	case quote == '\'' && c == 'n': // N'...' is the keyword NCHAR and a string
		return l.make(TWord, l.pos+1)
	case quote == '&' && c == 'u' && l.at(l.pos+2) == '\'':
		if !l.Conforming { // scan.l refuses it
			return l.bad()
		}
		return l.quoted(TString, l.pos+3, '\'', false, true)
	case quote == '&' && c == 'u' && l.at(l.pos+2) == '"':
		return l.quoted(TUnicode, l.pos+3, '"', false, true)
	}
	var buf [maxKeyword]byte
	i := l.pos
	for ; i < len(l.Src) && classes[l.Src[i]]&cContinue != 0; i++ {
		if n := i - l.pos; n < len(buf) {
			buf[n] = Lower[l.Src[i]]
		}
	}
	n := i - l.pos
	t := l.make(TWord, i)
	if n <= maxKeyword {
		t.Word = keyword(buf[:n])
	}
	return t
}

// quoted reads a literal or identifier whose text begins at i. A doubled quote
// stands for one if doubled is set (not so in bit strings), and a backslash
// takes the next byte with it if escapes is set.
func (l *Lexer) quoted(k Kind, i int, quote byte, escapes, doubled bool) Token {
	for i < len(l.Src) {
		switch c := l.Src[i]; {
		case c == quote && doubled && l.at(i+1) == quote:
			i += 2
		case c == quote:
			next := 0
			if k == TString {
				next = l.continued(i + 1)
			}
			if next == 0 {
				return l.make(k, i+1)
			}
			i = next
		case c == '\\' && escapes:
			i += 2
		default:
			i++
		}
	}
	return l.bad()
}

// continued returns where a string literal closed before i goes on: behind a
// quote that only white space, -- comments and at least one newline separate
// from it. It returns 0 if it does not go on.
func (l *Lexer) continued(i int) int {
	newline := false
	for i < len(l.Src) {
		switch c := l.Src[i]; {
		case classes[c]&cNewline != 0:
			newline = true
			i++
		case classes[c]&cSpace != 0 && c != '\v':
			i++
		case c == '-' && l.at(i+1) == '-':
			i = l.lineEnd(i)
		case c == '\'' && newline:
			return i + 1
		default:
			return 0
		}
	}
	return 0
}

// dollar reads a parameter or a dollar-quoted string.
func (l *Lexer) dollar() Token {
	i := l.pos + 1
	if classes[l.at(i)]&cDigit != 0 {
		for classes[l.at(i)]&cDigit != 0 {
			i++
		}
		return l.endNumber(TParam, i)
	}
	for i < len(l.Src) && classes[l.Src[i]]&cContinue != 0 && l.Src[i] != '$' {
		i++
	}
	if l.at(i) != '$' {
		return l.bad()
	}
	tag := l.Src[l.pos : i+1]
	n := bytes.Index(l.Src[i+1:], tag)
	if n < 0 {
		return l.bad()
	}
	return l.make(TString, i+1+n+len(tag))
}

// number reads an integer (with the prefixes and underscores of 16) or a
// decimal, with or without an exponent.
func (l *Lexer) number() Token {
	i := l.pos
	if l.Src[i] == '0' {
		if digits := radix(Lower[l.at(i+1)]); digits != "" {
			for i += 2; strings.IndexByte(digits, Lower[l.at(i)]) >= 0; i++ {
			}
			return l.endNumber(TNumber, i)
		}
	}
	i = l.digits(i)
	if l.at(i) == '.' && l.at(i+1) != '.' {
		i = l.digits(i + 1)
	}
	if Lower[l.at(i)] == 'e' {
		j := i + 1
		if c := l.at(j); c == '+' || c == '-' {
			j++
		}
		if classes[l.at(j)]&cDigit != 0 {
			i = l.digits(j)
		}
	}
	return l.endNumber(TNumber, i)
}

// radix returns the digits of an integer whose second byte is c, or nothing if
// c announces no base.
func radix(c byte) string {
	switch c {
	case 'x':
		return "0123456789abcdef_"
	case 'o':
		return "01234567_"
	case 'b':
		return "01_"
	}
	return ""
}

func (l *Lexer) digits(i int) int {
	for classes[l.at(i)]&cDigit != 0 || l.at(i) == '_' && classes[l.at(i+1)]&cDigit != 0 {
		i++
	}
	return i
}

// endNumber ends a number or parameter at i, unless an identifier begins there:
// "trailing junk" since 15, two tokens in 14.
func (l *Lexer) endNumber(k Kind, i int) Token {
	if classes[l.at(i)]&cStart != 0 {
		l.Junk = true
		return l.bad()
	}
	return l.make(k, i)
}

// operator reads the longest run of operator characters, less what the rules
// behind "{operator}" in scan.l take away: a comment that begins in it, and
// trailing + and - of an operator made of SQL's own characters.
func (l *Lexer) operator() Token {
	i, foreign := l.pos, false
	for i < len(l.Src) {
		c, next := l.Src[i], l.at(i+1)
		class := classes[c]
		if class&cOperator == 0 {
			break
		}
		if c == '/' && next == '*' || c == '-' && next == '-' {
			break
		}
		foreign = foreign || class&cForeign != 0
		i++
	}
	if i-l.pos > 2*MaxName { // in no good text, and slow to take apart
		l.Junk = true
		return l.bad()
	}
	for i > l.pos+1 && !foreign && (l.Src[i-1] == '+' || l.Src[i-1] == '-') {
		i--
	}
	if string(l.Src[l.pos:i]) == "=>" {
		return l.make(TMark, i)
	}
	if i-l.pos > MaxName {
		return l.bad()
	}
	return l.make(TOperator, i)
}

// MaxName is the longest name in bytes: NAMEDATALEN less its terminator.
const MaxName = 63

// Fold appends to dst the name that an identifier, as it is written, stands for:
// without its double quotes, or with ASCII in lower case. A name too long for a
// server, which would cut it, becomes the empty name, which nothing has.
func Fold(dst, written []byte) []byte {
	quoted := written[0] == '"'
	if quoted {
		written = written[1 : len(written)-1]
	}
	if len(written) > MaxName {
		return dst
	}
	if !quoted {
		for _, c := range written {
			dst = append(dst, Lower[c])
		}
		return dst
	}
	for i := 0; i < len(written); i++ {
		dst = append(dst, written[i])
		if written[i] == '"' {
			i++ // its double
		}
	}
	return dst
}
