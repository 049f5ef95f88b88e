package route

import (
	"bytes"
	"strings"
)

// kind is the kind of a token.
type kind uint8

const (
	tEnd      kind = iota // the end of the text
	tBad                  // the rest of the text cannot be read
	tWord                 // an identifier or keyword without quotes
	tQuoted               // "identifier"
	tUnicode              // U&"identifier": its escapes are not read here, so its name is not known
	tString               // a string, bit string or dollar-quoted literal
	tNumber               //
	tParam                // $1
	tOperator             // an operator, * included
	tCast                 // ::
	tMark                 // := => .. and a single colon
	tOpen                 // (
	tClose                // )
	tOpenBracket
	tCloseBracket
	tComma
	tSemicolon
	tDot
)

// token is src[from:to]; word is set for a tWord that is a keyword.
type token struct {
	kind     kind
	word     word
	from, to int32
}

// lexer cuts a text into the tokens PostgreSQL's src/backend/parser/scan.l
// would. Where servers 14 to 18 differ (14 lets an identifier start right
// behind a number) the text is tBad, which sends it to the leader.
type lexer struct {
	src        []byte
	pos        int
	conforming bool // standard_conforming_strings
	junk       bool // tBad stands for text that some server may accept
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

var (
	classes [256]uint8
	lower   [256]byte // ASCII upper case folded, the rest as is
)

func init() {
	for i := range classes {
		c := byte(i)
		lower[i] = c
		switch {
		case c >= 'A' && c <= 'Z':
			lower[i] = c + 'a' - 'A'
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

// at returns the byte at i, or 0 beyond the end; Classify lets no 0 in.
func (l *lexer) at(i int) byte {
	if i < len(l.src) {
		return l.src[i]
	}
	return 0
}

func (l *lexer) make(k kind, to int) token {
	t := token{kind: k, from: int32(l.pos), to: int32(to)}
	l.pos = to
	return t
}

// bad gives up on the rest of the text.
func (l *lexer) bad() token { return l.make(tBad, len(l.src)) }

// next returns the next token; at the end, and behind a tBad, tEnd.
func (l *lexer) next() token {
	if !l.skip() {
		return l.bad()
	}
	if l.pos == len(l.src) {
		return l.make(tEnd, l.pos)
	}
	c := l.src[l.pos]
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
		return l.quoted(tString, l.pos+1, '\'', !l.conforming, true)
	case '"':
		return l.quoted(tQuoted, l.pos+1, '"', false, true)
	case '$':
		return l.dollar()
	case '(':
		return l.make(tOpen, l.pos+1)
	case ')':
		return l.make(tClose, l.pos+1)
	case '[':
		return l.make(tOpenBracket, l.pos+1)
	case ']':
		return l.make(tCloseBracket, l.pos+1)
	case ',':
		return l.make(tComma, l.pos+1)
	case ';':
		return l.make(tSemicolon, l.pos+1)
	case '.':
		if l.at(l.pos+1) == '.' {
			return l.make(tMark, l.pos+2)
		}
		return l.make(tDot, l.pos+1)
	case ':':
		switch l.at(l.pos + 1) {
		case ':':
			return l.make(tCast, l.pos+2)
		case '=':
			return l.make(tMark, l.pos+2)
		}
		return l.make(tMark, l.pos+1)
	}
	return l.bad()
}

// skip passes over white space and comments. It reports false for a comment
// that does not end.
func (l *lexer) skip() bool {
	for l.pos < len(l.src) {
		c := l.src[l.pos]
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
func (l *lexer) lineEnd(i int) int {
	for i < len(l.src) && classes[l.src[i]]&cNewline == 0 {
		i++
	}
	return i
}

// comment passes over a C-style comment, which may hold others.
func (l *lexer) comment() bool {
	depth := 0
	for i := l.pos; i < len(l.src); {
		switch {
		case l.src[i] == '/' && l.at(i+1) == '*':
			depth++
			i += 2
		case l.src[i] == '*' && l.at(i+1) == '/':
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
func (l *lexer) word() token {
	c, quote := lower[l.src[l.pos]], l.at(l.pos+1)
	switch {
	case quote == '\'' && c == 'e':
		return l.quoted(tString, l.pos+2, '\'', true, true)
	case quote == '\'' && (c == 'b' || c == 'x'):
		return l.quoted(tString, l.pos+2, '\'', false, false)
	case quote == '\'' && c == 'n': // N'...' is the keyword NCHAR and a string
		return l.make(tWord, l.pos+1)
	case quote == '&' && c == 'u' && l.at(l.pos+2) == '\'':
		if !l.conforming { // scan.l refuses it
			return l.bad()
		}
		return l.quoted(tString, l.pos+3, '\'', false, true)
	case quote == '&' && c == 'u' && l.at(l.pos+2) == '"':
		return l.quoted(tUnicode, l.pos+3, '"', false, true)
	}
	var buf [maxKeyword]byte
	i := l.pos
	for ; i < len(l.src) && classes[l.src[i]]&cContinue != 0; i++ {
		if n := i - l.pos; n < len(buf) {
			buf[n] = lower[l.src[i]]
		}
	}
	n := i - l.pos
	t := l.make(tWord, i)
	if n <= maxKeyword {
		t.word = keyword(buf[:n])
	}
	return t
}

// quoted reads a literal or identifier whose text begins at i. A doubled quote
// stands for one if doubled is set (not so in bit strings), and a backslash
// takes the next byte with it if escapes is set.
func (l *lexer) quoted(k kind, i int, quote byte, escapes, doubled bool) token {
	for i < len(l.src) {
		switch c := l.src[i]; {
		case c == quote && doubled && l.at(i+1) == quote:
			i += 2
		case c == quote:
			next := 0
			if k == tString {
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
func (l *lexer) continued(i int) int {
	newline := false
	for i < len(l.src) {
		switch c := l.src[i]; {
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
func (l *lexer) dollar() token {
	i := l.pos + 1
	if classes[l.at(i)]&cDigit != 0 {
		for classes[l.at(i)]&cDigit != 0 {
			i++
		}
		return l.endNumber(tParam, i)
	}
	for i < len(l.src) && classes[l.src[i]]&cContinue != 0 && l.src[i] != '$' {
		i++
	}
	if l.at(i) != '$' {
		return l.bad()
	}
	tag := l.src[l.pos : i+1]
	n := bytes.Index(l.src[i+1:], tag)
	if n < 0 {
		return l.bad()
	}
	return l.make(tString, i+1+n+len(tag))
}

// number reads an integer (with the prefixes and underscores of 16) or a
// decimal, with or without an exponent.
func (l *lexer) number() token {
	i := l.pos
	if l.src[i] == '0' {
		if digits := radix(lower[l.at(i+1)]); digits != "" {
			for i += 2; strings.IndexByte(digits, lower[l.at(i)]) >= 0; i++ {
			}
			return l.endNumber(tNumber, i)
		}
	}
	i = l.digits(i)
	if l.at(i) == '.' && l.at(i+1) != '.' {
		i = l.digits(i + 1)
	}
	if lower[l.at(i)] == 'e' {
		j := i + 1
		if c := l.at(j); c == '+' || c == '-' {
			j++
		}
		if classes[l.at(j)]&cDigit != 0 {
			i = l.digits(j)
		}
	}
	return l.endNumber(tNumber, i)
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

func (l *lexer) digits(i int) int {
	for classes[l.at(i)]&cDigit != 0 || l.at(i) == '_' && classes[l.at(i+1)]&cDigit != 0 {
		i++
	}
	return i
}

// endNumber ends a number or parameter at i, unless an identifier begins there:
// "trailing junk" since 15, two tokens in 14.
func (l *lexer) endNumber(k kind, i int) token {
	if classes[l.at(i)]&cStart != 0 {
		l.junk = true
		return l.bad()
	}
	return l.make(k, i)
}

// operator reads the longest run of operator characters, less what the rules
// behind "{operator}" in scan.l take away: a comment that begins in it, and
// trailing + and - of an operator made of SQL's own characters.
func (l *lexer) operator() token {
	i, foreign := l.pos, false
	for i < len(l.src) {
		c, next := l.src[i], l.at(i+1)
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
	if i-l.pos > 2*maxName { // in no good text, and slow to take apart
		l.junk = true
		return l.bad()
	}
	for i > l.pos+1 && !foreign && (l.src[i-1] == '+' || l.src[i-1] == '-') {
		i--
	}
	if string(l.src[l.pos:i]) == "=>" {
		return l.make(tMark, i)
	}
	if i-l.pos > maxName {
		return l.bad()
	}
	return l.make(tOperator, i)
}

// maxName is the longest name in bytes: NAMEDATALEN less its terminator.
const maxName = 63
