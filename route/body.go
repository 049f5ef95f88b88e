package route

import (
	"slices"
	"strings"
)

// body is what the words of a function's source tell, whatever its language.
// They tell too much rather than too little: words in comments and strings
// count, since strings may be run as SQL.
type body struct {
	own   effect   // what its commands leave behind: settings, temporary tables, definitions
	calls []string // words before a parenthesis
	words []string // all words
}

// readBody reads the words of text. Words without double quotes are in lower
// case, as PostgreSQL folds them.
func readBody(text string) body {
	b := reader{text: text, body: body{own: plain}}
	for b.next() {
		b.word()
	}
	b.semicolon()
	b.own.timed = Timely([]byte(text))
	return b.body
}

// reader goes through a text word by word.
type reader struct {
	body
	text  string
	pos   int
	word1 string // the present word
	word2 string // the one before
	first bool   // the present word begins a command
	alone bool   // and that begins the text, or a string in it
	temp  bool   // a temporary object is being created
}

// next goes on to the next word.
func (r *reader) next() bool {
	r.word2, r.first = r.word1, r.pos == 0
	r.alone = r.first
	for r.pos < len(r.text) {
		c := r.text[r.pos]
		if wordByte(c) {
			break
		}
		switch {
		case c == ';':
			r.semicolon()
			r.first, r.alone = true, false
		case c == '\'', c == '$', c == '"': // a string may be a command of its own
			r.first, r.alone = true, true
		case strings.IndexByte(" \t\r\n\f", c) < 0:
			r.first, r.alone = false, false
		}
		r.pos++
	}
	switch r.word1 {
	case "begin", "then", "else", "loop", "atomic", "as", "do":
		r.first = true
	}
	from := r.pos
	for r.pos < len(r.text) && wordByte(r.text[r.pos]) {
		r.pos++
	}
	r.word1 = r.text[from:r.pos]
	if from > 0 && r.text[from-1] == '"' && strings.HasPrefix(r.text[r.pos:], `"`) {
		r.pos++
	} else {
		r.word1 = strings.ToLower(r.word1)
	}
	return r.word1 != ""
}

// word notes what the present word tells.
func (r *reader) word() {
	rest := strings.TrimLeft(r.text[r.pos:], " \t\r\n\f")
	call := strings.HasPrefix(rest, "(")
	switch {
	case r.word1 == "set_config" && call:
		r.note(effect{reason: ReasonSessionState})
		if !localSetting(rest) {
			r.sets(changed(firstString(rest)))
		}
		return
	case r.word1 == "current_setting" && call && custom(firstString(rest)):
		r.note(effect{reason: ReasonRead, reads: firstString(rest)})
	case strings.HasPrefix(r.word1, "pg_temp"):
		r.note(effect{reason: ReasonSessionState, pin: PinTemporary})
	case r.first && rest != "" && rest != r.text[r.pos:]: // white space behind it
		r.command(rest)
	case r.word1 == "temp" || r.word1 == "temporary":
		switch r.word2 {
		case "create", "replace", "local", "global", "into":
			r.temp = true
		}
	case r.word1 == "drop" && r.word2 == "commit": // ON COMMIT DROP
		r.temp = false
	case r.word1 == "hold" && r.word2 == "with":
		r.note(effect{reason: ReasonSessionState, pin: PinCursor})
	}
	r.words = append(r.words, r.word1)
	if call {
		r.calls = append(r.calls, r.word1)
	}
}

// command notes what a command that begins with the present word leaves.
func (r *reader) command(rest string) {
	switch r.word1 {
	case "set":
		switch following, _, _ := strings.Cut(strings.ToLower(rest), " "); following {
		case "local", "transaction", "constraints":
		default:
			r.sets(setCommand(rest))
		}
	case "reset":
		r.sets(setCommand(rest))
	case "prepare":
		r.note(effect{reason: ReasonSessionState, pin: PinPrepared, prepared: true})
	case "execute": // elsewhere it is PL/pgSQL's own
		r.note(effect{reason: ReasonRead, nextval: true})
		if r.alone {
			r.note(effect{reason: ReasonSessionState, prepared: true})
		}
	case "deallocate":
		r.note(effect{reason: ReasonSessionState, frees: PinPrepared, prepared: true})
	case "discard":
		r.note(effect{reason: ReasonSessionState, frees: ^PinNone, prepared: true})
	case "close":
		r.note(effect{reason: ReasonRead, frees: PinCursor})
	case "unlisten":
		r.note(effect{reason: ReasonSessionState, frees: PinListen})
	case "listen":
		r.note(effect{reason: ReasonSessionState, pin: PinListen})
	case "load":
		r.note(effect{reason: ReasonSessionState, pin: PinLibrary})
	case "create", "alter", "drop":
		following := strings.Fields(strings.ToLower(rest[:min(len(rest), 60)]))
		temporary := slices.ContainsFunc(following[:min(len(following), 4)], func(s string) bool {
			return s == "temp" || s == "temporary"
		})
		r.note(effect{reason: ReasonUtility, schema: !temporary, defaults: r.word1 == "alter" && ofLogins(following)})
		if r.word1 == "drop" {
			r.note(effect{reason: ReasonUtility, frees: PinTemporary})
		}
	}
}

// ofLogins reports whether ALTER with these words may change what sessions begin
// with.
func ofLogins(words []string) bool {
	return len(words) > 0 && (words[0] == "role" || words[0] == "user" || words[0] == "database")
}

// sets notes that a setting is changed, or one that cannot be told.
func (r *reader) sets(names string, ok bool) {
	if !ok {
		r.note(effect{reason: ReasonSessionState, pin: PinSetting})
		return
	}
	r.note(effect{reason: ReasonSessionState, sets: names})
}

// semicolon ends a command: a temporary object not dropped by then stays.
func (r *reader) semicolon() {
	if r.temp {
		r.note(effect{reason: ReasonSessionState, pin: PinTemporary})
	}
	r.temp = false
}

func (r *reader) note(e effect) { r.own = r.own.and(e) }

// localSetting reports whether the last argument of the call whose parenthesis
// begins text is the word true.
func localSetting(text string) bool {
	depth, last := 0, 0
	for i := range len(text) {
		switch text[i] {
		case '(':
			depth++
		case ',':
			if depth == 1 {
				last = i
			}
		case ')':
			if depth--; depth == 0 {
				return last > 0 && strings.EqualFold(strings.TrimSpace(text[last+1:i]), "true")
			}
		}
	}
	return false
}

// wordByte reports whether c may be part of a word. A dollar sign may not: it
// separates a text from its quotes.
func wordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c >= 0x80
}
