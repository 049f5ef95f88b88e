package route

import "bytes"

// Classify says what the query string sql asks of the session. It never takes
// for a Read what is not provably one: each function, relation and operator
// must be known to c as harmless, and whatever is not understood is a Write.
//
// conforming is the session's standard_conforming_strings. sql has to be in an
// encoding in which no byte below 0x80 is part of a longer character: the
// caller must not pass text of a session whose client_encoding is SJIS,
// SHIFT_JIS_2004, BIG5, GBK, UHC, GB18030 or JOHAB, but treat it as a zero Class
// with CopyIn. Identifiers beyond ASCII are compared with the Catalog byte by
// byte, so with another encoding than the Catalog's they are not known.
//
// Without a Catalog (c is nil) only the commonest functions and the operators of
// pg_catalog are known, and no relation.
//
// A query that is a Read costs no allocation.
func Classify(sql []byte, conforming bool, c *Catalog) Class {
	if bytes.IndexByte(sql, 0) >= 0 {
		return Class{CopyIn: true}
	}
	if c == nil {
		c = bare
	}
	w := walker{lex: lexer{src: sql, conforming: conforming}, cat: c}
	w.advance()
	w.advance()
	all := Class{Kind: Empty, Reason: ReasonEmpty}
	for n := 0; ; {
		for w.cur.kind == tSemicolon {
			w.advance()
		}
		if w.cur.kind == tEnd {
			return all
		}
		at := int(w.cur.from)
		one := w.statement()
		if w.cur.kind == tBad {
			return w.unreadable()
		}
		if n++; n == 1 {
			all = one
		} else {
			all = several(all, one, at)
		}
	}
}

// unreadable is the class of a text with a part that cannot be read. A server
// reads all of it before it runs any, so unless some server reads it, it leaves
// nothing behind.
func (w *walker) unreadable() Class {
	c := Class{CopyIn: true, At: int(w.cur.from)}
	if w.lex.junk {
		c.Pin = PinUnread
	}
	return c
}

// several joins the class of a statement, which begins at at, to that of those
// before it.
func several(all, one Class, at int) Class {
	both := Class{
		Kind: Write, Reason: ReasonMultiple, Multi: true,
		Pin:    all.Pin,
		CopyIn: all.CopyIn || one.CopyIn,
		Schema: all.Schema || one.Schema,
		Reset:  max(all.Reset, one.Reset),
		At:     at,
	}
	if all.Multi {
		both.At = all.At
	}
	if both.Pin == PinNone {
		both.Pin = one.Pin
	}
	if all.Kind == OwnSet || one.Kind == OwnSet { // the server runs it, too
		both.Pin = PinSetting
	}
	if all.Reset >= ResetDeallocate && one.Reset >= ResetDeallocate {
		both.Reset = max(both.Reset, ResetDeallocateAll)
	}
	return both
}

// statement reads one statement, as far as its semicolon or the end.
func (w *walker) statement() Class {
	w.class = Class{Kind: Write, Reason: ReasonRead, At: int(w.cur.from)}
	w.depth, w.nctes, w.calling, w.arg, w.atomic = 0, 0, false, argNone, 0
	w.frames[0] = frame{fresh: true}
	w.prev = token{} // nothing before counts
	at := w.class.At
	w.command()
	w.rest()
	if w.class.Kind != Write {
		return w.class
	}
	if w.class.Reason == ReasonRead {
		w.class.Kind = Read
		if w.cat.suspect != ReasonRead {
			w.class.Kind, w.class.Reason, w.class.At = Write, w.cat.suspect, at
		}
	}
	return w.class
}

// command reads the words that say which statement it is. What it leaves unread
// is read as expressions, for the functions that are called there.
func (w *walker) command() {
	switch w.cur.word {
	case wSelect, wValues, wTable, wWith:
	case wInsert, wUpdate, wDelete, wMerge:
		w.fail(ReasonDML)
	case wExplain:
		w.explain()
	case wCopy:
		w.copy()
	case wShow:
		w.show()
	case wBegin, wStart:
		w.begin()
	case wCommit, wEnd:
		w.finish(Commit)
	case wRollback, wAbort:
		w.finish(Rollback)
	case wSavepoint, wRelease:
		w.fail(ReasonTransaction)
	case wSet, wReset, wDeallocate, wDiscard, wPrepare, wExecute, wDeclare, wFetch, wMove, wClose,
		wListen, wUnlisten, wLoad:
		w.sessionCommand()
	case wCreate, wAlter, wDrop, wImport:
		w.definition()
	case wDo:
		w.do()
	case wLock:
		w.fail(ReasonLocking)
	case wCall: // the procedure brings its own effects
		w.fail(ReasonUtility)
	default:
		switch w.cur.kind {
		case tOpen: // a query
		case tWord:
			w.fail(ReasonUtility)
		default:
			w.fail(ReasonUnreadable)
		}
	}
}

// explain passes over EXPLAIN and its options. The plan shown is the one that
// the server makes, so it is asked for where the statement would run.
func (w *walker) explain() {
	w.advance()
	if w.cur.kind == tOpen && !w.query(w.next) {
		for w.cur.kind != tClose && !w.atEnd() {
			w.advance()
		}
		w.advance()
	}
	for w.cur.kind == tWord && w.isAny("analyze", "analyse", "verbose") {
		w.advance()
	}
	w.prev = token{}
	switch w.cur.word {
	case wSelect, wValues, wTable, wWith:
	case wInsert, wUpdate, wDelete, wMerge:
		w.fail(ReasonDML)
	case wExecute, wDeclare:
		w.fail(ReasonSessionState)
	case wCreate:
		w.definition()
	default:
		if w.cur.kind != tOpen {
			w.fail(ReasonUtility)
		}
	}
}

// query reports whether a parenthesis that begins with t holds a query.
func (w *walker) query(t token) bool {
	switch t.word {
	case wSelect, wValues, wTable, wWith:
		return true
	default:
		return t.kind == tOpen
	}
}

// isAny reports whether the present token is one of the words, which are not
// keywords elsewhere.
func (w *walker) isAny(words ...string) bool {
	if w.cur.kind != tWord {
		return false
	}
	name := w.fold(w.cur)
	for _, s := range words {
		if string(name) == s {
			return true
		}
	}
	return false
}

// copy reads COPY as far as its direction. COPY ... TO STDOUT is a read if what
// it copies is; a file or a program is on the server.
func (w *walker) copy() {
	w.advance()
	if w.cur.word == wBinary {
		w.advance()
	}
	if w.cur.kind == tOpen {
		w.parenthesis()
	} else {
		w.copied()
	}
	client := w.next.word == wStdin || w.next.word == wStdout // the grammar does not mind which
	switch {
	case w.cur.word == wFrom:
		w.fail(ReasonUtility)
		w.class.CopyIn = client
	case w.cur.word != wTo:
		w.fail(ReasonUnreadable)
		w.class.CopyIn = true
	case !client:
		w.fail(ReasonNodeSpecific)
	}
	w.frames[0].state = sColumns // options: nothing in them is called
}

// copied reads the relation of COPY and its columns.
func (w *walker) copied() {
	for ; w.cur.kind == tWord || w.cur.kind == tQuoted || w.cur.kind == tDot; w.advance() {
		switch {
		case w.cur.kind == tDot:
		case w.prev.kind != tDot && (w.cur.word == wTo || w.cur.word == wFrom):
			return
		case w.next.kind == tDot:
			w.qualifier()
		default:
			w.relation()
		}
	}
	w.frames[0].state = sColumns
	if w.cur.kind == tOpen {
		w.parenthesis()
	}
}

// definition reads CREATE, ALTER, DROP and IMPORT.
func (w *walker) definition() {
	w.fail(ReasonUtility)
	create := w.cur.word == wCreate
	w.advance()
	w.class.Schema = !w.isAny("index", "unique", "role", "user", "group", "database", "tablespace",
		"publication", "subscription", "statistics", "system", "collation", "conversion", "server")
	for w.cur.word == wOr || w.cur.word == wReplace || w.cur.word == wLocal || w.cur.word == wGlobal {
		w.advance()
	}
	temporary := create && (w.cur.word == wTemp || w.cur.word == wTemporary)
	for ; !w.atEnd(); w.step() {
		switch {
		case w.cur.word == wAtomic && w.prev.word == wBegin:
			w.atomic = 1
		case w.cur.word == wDrop && w.prev.word == wCommit && w.prev2.word == wOn:
			temporary, w.class.Schema = false, false // gone with the transaction
		}
	}
	if temporary {
		w.pin(PinTemporary)
	}
	w.class.Schema = w.class.Schema && w.class.Pin != PinTemporary
}

// do reads an anonymous block; its text is a string.
func (w *walker) do() {
	w.fail(ReasonUtility)
	for w.advance(); !w.atEnd(); w.step() {
		if w.cur.kind == tString {
			w.apply(w.cat.effectOf(readBody(string(w.text(w.cur)))))
		}
	}
}
