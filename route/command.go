package route

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/lsnproxy/lsnproxy/route/internal/lex"
)

// begin reads BEGIN and START TRANSACTION. A follower refuses SERIALIZABLE and
// READ WRITE as soon as it meets them, even if a later option takes it back.
func (w *walker) begin() {
	w.class.Kind, w.class.Reason = Begin, ReasonTransaction
	only, refused, repeats := false, false, false
	for w.advance(); !w.atEnd(); w.advance() {
		switch {
		case w.cur.Word == lex.WOnly && w.prev.Word == lex.WRead:
			only = true
		case w.cur.Word == lex.WWrite && w.prev.Word == lex.WRead, w.cur.Word == lex.WSerializable:
			refused = true
		case w.isAny("repeatable"):
			repeats = true
		}
	}
	if only && !refused {
		w.class.Kind = BeginReadOnly
	}
	w.class.Plain = !only && !refused && !repeats
}

// finish reads what ends a transaction, or only seems to: a savepoint, or a
// transaction that was prepared.
func (w *walker) finish(k Kind) {
	w.class.Kind, w.class.Reason = k, ReasonTransaction
	for w.advance(); !w.atEnd(); w.advance() {
		switch w.cur.Word {
		case lex.WTo:
			w.class.Kind, w.class.Reason = Write, ReasonSavepoint
		case lex.WPrepared:
			w.class.Kind = Write
		case lex.WChain:
			w.class.Chain = w.prev.Word != lex.WNo
		}
	}
}

// sessionCommand reads the commands on what the server's session remembers.
func (w *walker) sessionCommand() {
	w.fail(ReasonSessionState)
	switch w.cur.Word {
	case lex.WSet:
		w.set()
	case lex.WReset:
		w.class.Reason = ReasonSetting
		w.advance()
		if name, ok := w.variable(); ok {
			w.reset(name)
		}
	case lex.WDeallocate:
		w.deallocate()
	case lex.WDiscard:
		w.discard()
	case lex.WPrepare:
		w.advance()
		if w.cur.Word == lex.WTransaction && w.next.Kind == lex.TString {
			w.class.Reason = ReasonTransaction
			return
		}
		w.pin(PinPrepared)
		w.class.Prepared = PreparedAny
		w.advance()                       // a parenthesis holds the types of its parameters
		if w.rest(); w.class.Sets != "" { // when it is executed
			w.pin(PinSetting)
		}
	case lex.WExecute:
		w.advance()
		w.prepared(PreparedExecute)
		w.class.Nextval = true
	case lex.WDeclare:
		w.class.Reason = ReasonCursor
		for ; w.cur.Word != lex.WFor && !w.atEnd(); w.advance() {
			if w.cur.Word == lex.WHold && w.prev.Word == lex.WWith {
				w.pin(PinCursor)
			}
		}
	case lex.WFetch, lex.WMove:
		w.class.Reason = ReasonCursor
	case lex.WClose:
		w.class.Reason = ReasonCursor
		w.class.Frees |= PinCursor
	case lex.WListen:
		w.class.Bare = true
		w.pin(PinListen)
	case lex.WUnlisten:
		w.class.Bare = true
		w.class.Frees |= PinListen
	case lex.WLoad:
		w.pin(PinLibrary)
	}
}

// set reads SET as far as the value (set_rest in gram.y).
func (w *walker) set() {
	w.class.Reason = ReasonSetting
	w.advance()
	switch {
	case w.next.Kind != lex.TWord && w.next.Kind != lex.TQuoted || w.next.Word == lex.WTo: // a name
	case w.cur.Word == lex.WLocal:
		w.class.Local = true
		w.advance()
	case w.cur.Word == lex.WSession && w.next.Word != lex.WAuthorization && w.next.Word != lex.WCharacteristics:
		w.advance()
	}
	if w.cur.Word == lex.WConstraints || w.cur.Word == lex.WTransaction && w.next.Kind == lex.TWord && w.next.Word != lex.WTo {
		w.class.Reason = ReasonTransaction // until the end of the transaction
		return
	}
	name, ok := w.variable()
	if own, found := strings.CutPrefix(name, ownPrefix); found && w.ownSet(own) {
		return
	}
	w.class.Name = name
	switch {
	case name == "transaction_isolation", name == "transaction_read_only", name == "transaction_deferrable":
		w.class.Reason = ReasonTransaction
	case name == "" && ok: // SESSION CHARACTERISTICS
		w.class.Sets = characteristics
	case !w.class.Local || !ok:
		w.sets(name)
	}
}

func (w *walker) reset(name string) {
	own, found := strings.CutPrefix(name, ownPrefix)
	if found && w.atEnd() {
		w.class.Kind, w.class.Reason, w.class.Name = OwnSet, ReasonOwn, own
		return
	}
	w.class.Reset, w.class.Name = ResetSettings, name
	w.sets(name)
	if name == AllSettings {
		w.class.Name = ""
	}
}

// ownPrefix begins the names of the proxy's variables.
const ownPrefix = "lsnproxy."

// ownSet reads the value that a variable of the proxy is set to. It reports
// false for what the proxy has no use for, such as a list; a server takes it for
// a setting of its own.
func (w *walker) ownSet(name string) bool {
	if w.cur.Word != lex.WTo && !(w.cur.Kind == lex.TOperator && string(w.text(w.cur)) == "=") {
		return false
	}
	w.advance()
	value, ok := w.value()
	w.advance()
	if !ok || !w.atEnd() {
		return false
	}
	w.class.Kind, w.class.Reason, w.class.Name, w.class.Value = OwnSet, ReasonOwn, name, value
	return true
}

// value returns what one token stands for behind SET name TO, and whether that
// could be told.
func (w *walker) value() (string, bool) {
	text := w.text(w.cur)
	switch {
	case w.cur.Word == lex.WDefault:
		return "", true
	case w.cur.Kind == lex.TWord, w.cur.Kind == lex.TQuoted:
		return string(w.fold(w.cur)), true
	case w.cur.Kind == lex.TNumber:
		return string(text), true
	case w.cur.Kind == lex.TString && text[0] == '\'' && bytes.IndexByte(text, '\\') < 0:
		// In several parts ('a' newline 'b') it is not told.
		s := strings.ReplaceAll(string(text[1:len(text)-1]), "''", "\x00")
		return strings.ReplaceAll(s, "\x00", "'"), !strings.Contains(s, "'")
	default:
		return "", false
	}
}

// variable reads the name of a setting, in lower case, as SET, RESET and SHOW
// take it: dotted, or one of the forms of the SQL standard. PostgreSQL compares
// the names of settings without regard to case, quoted or not.
func (w *walker) variable() (string, bool) {
	switch {
	case w.cur.Word == lex.WTime && w.next.Word == lex.WZone:
		w.advance()
		w.advance()
		return "timezone", true
	case w.cur.Word == lex.WSession && w.next.Word == lex.WAuthorization:
		w.advance()
		w.advance()
		return "session_authorization", true
	case w.cur.Word == lex.WTransaction && w.next.Word == lex.WIsolation: // ISOLATION LEVEL
		w.advance()
		w.advance()
		w.advance()
		return "transaction_isolation", true
	case w.cur.Word == lex.WSession && w.next.Word == lex.WCharacteristics: // several at once
		return "", true
	case w.cur.Word == lex.WSchema && w.next.Kind == lex.TString:
		w.advance()
		return "search_path", true
	case w.cur.Word == lex.WNames:
		w.advance()
		return "client_encoding", true
	case w.cur.Word == lex.WXML && w.next.Word == lex.WOption:
		w.advance()
		w.advance()
		return "xmloption", true
	}
	return w.dotted()
}

func (w *walker) dotted() (string, bool) {
	var name []byte
	for w.cur.Kind == lex.TWord || w.cur.Kind == lex.TQuoted {
		name = lex.Fold(name, w.text(w.cur))
		if w.advance(); w.cur.Kind != lex.TDot {
			return strings.ToLower(string(name)), true
		}
		name = append(name, '.')
		w.advance()
	}
	return "", false
}

// show reads SHOW.
func (w *walker) show() {
	show := w.cur
	w.advance()
	name, ok := w.variable()
	own, found := strings.CutPrefix(name, ownPrefix)
	switch {
	case !ok || !w.atEnd():
		w.failAt(show, ReasonUnreadable)
	case found:
		w.class.Kind, w.class.Reason, w.class.Name = Own, ReasonOwn, own
	case !w.reads(name):
		w.failAt(show, ReasonNodeSpecific)
	}
}

// deallocate reads DEALLOCATE [PREPARE] name or ALL.
func (w *walker) deallocate() {
	w.advance()
	if w.cur.Word == lex.WPrepare && (w.next.Kind == lex.TWord || w.next.Kind == lex.TQuoted) {
		w.advance()
	}
	w.class.Frees |= PinPrepared
	if w.cur.Word == lex.WAll {
		w.class.Reset, w.class.Prepared = ResetDeallocateAll, PreparedEnds
		return
	}
	w.class.Reset = ResetDeallocate
	if w.prepared(PreparedDeallocate); w.class.Name == "" {
		w.class.Reset = ResetDeallocateAll // which one is not known
	}
}

// prepared reads the name of a prepared statement.
func (w *walker) prepared(p Prepared) {
	switch w.cur.Kind {
	case lex.TWord, lex.TQuoted:
		w.class.Prepared, w.class.Name = p, w.identified()
		w.advance() // a parenthesis holds its arguments
	default:
		w.class.Prepared = PreparedAny
	}
}

// discard reads DISCARD.
func (w *walker) discard() {
	w.advance()
	switch {
	case w.cur.Word == lex.WAll:
		w.class.Reset, w.class.Prepared, w.class.Sets = ResetDiscardAll, PreparedEnds, AllSettings
		w.class.Frees = ^PinNone
	case w.cur.Word == lex.WTemp, w.cur.Word == lex.WTemporary:
		w.class.Frees |= PinTemporary
	case w.isAny("sequences"):
		w.class.Frees |= PinSequence
	}
}

// identified returns the name that the present token stands for, cut to the
// longest a server keeps.
func (w *walker) identified() string {
	text := w.text(w.cur)
	var name []byte
	if text[0] == '"' {
		name = bytes.ReplaceAll(text[1:len(text)-1], []byte(`""`), []byte(`"`))
	} else {
		for _, c := range text {
			name = append(name, lex.Lower[c])
		}
	}
	if len(name) > lex.MaxName {
		n := lex.MaxName
		for n > 0 && !utf8.RuneStart(name[n]) {
			n--
		}
		name = name[:n]
	}
	return string(name)
}
