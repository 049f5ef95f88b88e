package route

import (
	"bytes"
	"strings"
	"sync"

	"github.com/lsnproxy/lsnproxy/route/internal/lex"
)

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
	w := walkers.Get().(*walker)
	w.lex, w.cat = lex.Lexer{Src: sql, Conforming: conforming}, c
	class := w.classify()
	w.lex.Src, w.cat = nil, nil
	walkers.Put(w)
	return class
}

// walkers are kept: they are some kilobytes, which would have to be zeroed for each
// statement.
var walkers = sync.Pool{New: func() any { return new(walker) }}

// classify reads all statements of the text.
func (w *walker) classify() Class {
	w.prev2, w.prev, w.cur, w.next, w.before = lex.Token{}, lex.Token{}, lex.Token{}, lex.Token{}, lex.Token{}
	w.tail = tailOperand
	w.advance()
	w.advance()
	all := Class{Kind: Empty, Reason: ReasonEmpty}
	for n := 0; ; {
		for w.cur.Kind == lex.TSemicolon {
			w.advance()
		}
		if w.cur.Kind == lex.TEnd {
			return all
		}
		at := int(w.cur.From)
		one := w.statement()
		if w.cur.Kind == lex.TBad {
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
	c := Class{CopyIn: true, At: int(w.cur.From)}
	if w.lex.Junk {
		c.Pin = PinUnread
	}
	return c
}

// several joins the class of a statement, which begins at at, to that of those
// before it.
func several(all, one Class, at int) Class {
	both := Class{
		Kind: Write, Reason: ReasonMultiple, Multi: true,
		Pin:      all.Pin | one.Pin,
		Frees:    all.Frees | one.Frees,
		CopyIn:   all.CopyIn || one.CopyIn,
		Chain:    all.Chain || one.Chain,
		Schema:   all.Schema || one.Schema,
		Drop:     all.Drop || one.Drop,
		Native:   all.Native || one.Native,
		Reset:    max(all.Reset, one.Reset),
		Currval:  all.Currval || one.Currval,
		Nextval:  all.Nextval || one.Nextval,
		Sets:     Union(Union(all.Sets, all.Made()), Union(one.Sets, one.Made())),
		Reads:    Union(all.Reads, one.Reads),
		Defaults: all.Defaults || one.Defaults,
		At:       at,
	}
	if all.Prepared != PreparedNone || one.Prepared != PreparedNone { // the rest may deal with what is left
		both.Prepared = PreparedAny
	}
	if all.Multi {
		both.At = all.At
	}
	if all.Kind == OwnSet || one.Kind == OwnSet { // the server runs it, too
		both.Pin |= PinSetting
	}
	if all.Reset >= ResetDeallocate && one.Reset >= ResetDeallocate {
		both.Reset = max(both.Reset, ResetDeallocateAll)
	}
	return both
}

// statement reads one statement, as far as its semicolon or the end.
func (w *walker) statement() Class {
	w.class = Class{Kind: Write, Reason: ReasonRead, At: int(w.cur.From)}
	w.target = false
	w.depth, w.nctes, w.calling, w.arg, w.atomic = 0, 0, false, argNone, 0
	w.fires, w.runs = effect{}, false
	w.frames[0] = frame{fresh: true}
	w.prev = lex.Token{} // nothing before counts
	at, first := w.class.At, w.cur
	w.command()
	declares := w.cur.Word == lex.WFor && w.class.Reason == ReasonCursor
	if declares {
		w.class.Reason = ReasonRead // if its query is
	}
	w.rest()
	if declares {
		w.failAt(first, ReasonCursor)
	}
	if w.class.Kind != Write {
		return w.class
	}
	switch w.class.Reason {
	case ReasonRead:
	case ReasonUtility:
		w.apply(w.fires.orPlain().and(w.cat.fires[""].orPlain()))
	default:
		w.apply(w.fires.orPlain())
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
	switch w.cur.Word {
	case lex.WSelect, lex.WValues, lex.WWith, lex.WInsert, lex.WUpdate, lex.WDelete, lex.WMerge, lex.WExplain,
		lex.WCall, lex.WCopy, lex.WDeclare, lex.WExecute, lex.WPrepare:
		w.runs = true
	default:
		w.runs = w.cur.Kind == lex.TOpen
	}
	switch w.cur.Word {
	case lex.WSelect, lex.WValues, lex.WTable, lex.WWith:
	case lex.WInsert, lex.WUpdate, lex.WDelete, lex.WMerge:
		w.fail(ReasonDML)
	case lex.WExplain:
		w.explain()
	case lex.WCopy:
		w.copy()
	case lex.WShow:
		w.class.Bare = true
		w.show()
	case lex.WBegin, lex.WStart:
		w.begin()
	case lex.WCommit, lex.WEnd:
		w.finish(Commit)
	case lex.WRollback, lex.WAbort:
		w.finish(Rollback)
	case lex.WSavepoint, lex.WRelease:
		w.fail(ReasonSavepoint)
	case lex.WSet, lex.WReset, lex.WDeallocate, lex.WDiscard, lex.WPrepare, lex.WExecute, lex.WDeclare, lex.WFetch, lex.WMove, lex.WClose,
		lex.WListen, lex.WUnlisten, lex.WLoad:
		w.sessionCommand()
	case lex.WCreate, lex.WAlter, lex.WDrop, lex.WImport:
		w.definition()
	case lex.WDo:
		w.do()
	case lex.WLock:
		w.class.Bare = true
		w.fail(ReasonLocking)
	case lex.WCall: // the procedure brings its own effects
		w.fail(ReasonUtility)
	default:
		switch w.cur.Kind {
		case lex.TOpen: // a query
		case lex.TWord:
			w.fail(ReasonUtility)
			w.class.Bare = w.isAny("notify", "checkpoint")
			w.class.Nextval = !w.class.Bare
		default:
			w.fail(ReasonUnreadable)
		}
	}
}

// explain passes over EXPLAIN and its options. The plan shown is the one that
// the server makes, so it is asked for where the statement would run.
func (w *walker) explain() {
	w.advance()
	if w.cur.Kind == lex.TOpen && !w.beginsQuery() {
		for w.cur.Kind != lex.TClose && !w.atEnd() {
			w.advance()
		}
		w.advance()
	}
	for w.cur.Kind == lex.TWord && w.isAny("analyze", "analyse", "verbose") {
		w.advance()
	}
	w.prev = lex.Token{}
	switch w.cur.Word {
	case lex.WSelect, lex.WValues, lex.WTable, lex.WWith:
	case lex.WInsert, lex.WUpdate, lex.WDelete, lex.WMerge:
		w.fail(ReasonDML)
	case lex.WExecute:
		w.fail(ReasonSessionState)
		w.class.Prepared, w.class.Nextval = PreparedAny, true
	case lex.WDeclare:
		w.fail(ReasonSessionState)
	case lex.WCreate:
		w.definition()
	default:
		if w.cur.Kind != lex.TOpen {
			w.fail(ReasonUtility)
		}
	}
}

// beginsQuery reports whether the parenthesis that begins here holds a query,
// and not options, which may have any word for a name.
func (w *walker) beginsQuery() bool {
	switch w.next.Word {
	case lex.WSelect, lex.WTable, lex.WWith:
		return true
	case lex.WValues:
		ahead := w.lex
		return ahead.Next().Kind == lex.TOpen
	default:
		return w.next.Kind == lex.TOpen
	}
}

// isAny reports whether the present token is one of the words, which are not
// keywords elsewhere.
func (w *walker) isAny(words ...string) bool {
	if w.cur.Kind != lex.TWord {
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
	if w.cur.Word == lex.WBinary {
		w.advance()
	}
	if w.cur.Kind == lex.TOpen {
		w.parenthesis()
	} else {
		w.copied()
	}
	client := w.next.Word == lex.WStdin || w.next.Word == lex.WStdout // the grammar does not mind which
	switch {
	case w.cur.Word == lex.WFrom:
		w.fail(ReasonUtility)
		w.class.CopyIn, w.class.Nextval = client, true
	case w.cur.Word != lex.WTo:
		w.fail(ReasonUnreadable)
		w.class.CopyIn = true
	case !client:
		w.fail(ReasonNodeSpecific)
	}
	w.frames[0].state = sColumns // options: nothing in them is called
}

// copied reads the relation of COPY and its columns.
func (w *walker) copied() {
	for ; w.cur.Kind == lex.TWord || w.cur.Kind == lex.TQuoted || w.cur.Kind == lex.TDot; w.advance() {
		switch {
		case w.cur.Kind == lex.TDot:
		case w.prev.Kind != lex.TDot && (w.cur.Word == lex.WTo || w.cur.Word == lex.WFrom):
			return
		case w.next.Kind == lex.TDot:
			w.qualifier()
		default:
			w.relation()
		}
	}
	w.frames[0].state = sColumns
	if w.cur.Kind == lex.TOpen {
		w.parenthesis()
	}
}

// definition reads CREATE, ALTER, DROP and IMPORT.
func (w *walker) definition() {
	w.fail(ReasonUtility)
	w.runs = false
	create, drop := w.cur.Word == lex.WCreate, w.cur.Word == lex.WDrop
	w.class.Nextval = w.cur.Word == lex.WAlter // a new column may have a default
	if drop {
		w.class.Frees |= PinTemporary
	}
	w.advance()
	w.class.Schema = !w.isAny("index", "unique", "role", "user", "group", "database", "tablespace",
		"publication", "subscription", "statistics", "system", "collation", "conversion", "server")
	w.class.Native = create && w.isAny("extension")
	for w.cur.Word == lex.WOr || w.cur.Word == lex.WReplace || w.cur.Word == lex.WLocal || w.cur.Word == lex.WGlobal {
		w.advance()
	}
	if w.isAny("database") {
		w.database(create)
	} else if w.isAny("role", "user") { // of the system's it is the reload that changes them
		w.defaults()
	}
	temporary := create && (w.cur.Word == lex.WTemp || w.cur.Word == lex.WTemporary)
	for ; !w.atEnd(); w.step() {
		switch {
		case w.cur.Word == lex.WAtomic && w.prev.Word == lex.WBegin:
			w.atomic = 1
		case w.cur.Word == lex.WSelect: // CREATE TABLE AS, where it is no label
			w.runs, w.prev = true, lex.Token{}
		case w.isAny("language"):
			w.class.Native = w.class.Native || strings.EqualFold(strings.Trim(string(w.text(w.next)), `"'`), "c")
		case w.cur.Word == lex.WCreate: // in CREATE SCHEMA
			w.runs = false
		case w.cur.Word == lex.WDrop && w.prev.Word == lex.WCommit && w.prev2.Word == lex.WOn:
			if temporary { // gone with the transaction; for a table that is not, an error
				temporary, w.class.Schema = false, false
			}
		case w.cur.Word == lex.WExecute && w.prev.Word == lex.WAs: // CREATE TABLE ... AS EXECUTE
			w.class.Prepared = PreparedAny
		}
	}
	if temporary {
		w.pin(PinTemporary)
	}
	w.class.Schema = w.class.Schema && w.class.Pin != PinTemporary
	if drop {
		w.class.Schema, w.class.Drop = false, w.class.Schema
	}
}

// database reads CREATE, ALTER and DROP DATABASE.
func (w *walker) database(create bool) {
	w.advance()
	if create {
		for !w.atEnd() && !w.isAny("template") {
			w.step()
		}
		w.advance()
	}
	for w.isAny("if", "exists") || w.cur.Kind == lex.TOperator { // TEMPLATE = x
		w.advance()
	}
	if w.cur.Kind == lex.TWord || w.cur.Kind == lex.TQuoted {
		name := w.identified()
		if create || !w.keepsOpen() {
			w.class.Empties = name
		}
	}
	w.defaults()
}

// keepsOpen reports whether ALTER DATABASE goes on with what others may be
// connected to the database for: all but RENAME and SET TABLESPACE.
func (w *walker) keepsOpen() bool {
	w.advance()
	return w.isAny("reset", "owner", "refresh", "connection", "allow_connections", "is_template") ||
		w.cur.Word == lex.WSet && !bytes.EqualFold(w.text(w.next), []byte("tablespace"))
}

// defaults looks for ALTER ROLE and DATABASE ... SET and RESET: the statement has
// no other words like these.
func (w *walker) defaults() {
	for ; !w.atEnd(); w.step() {
		w.class.Defaults = w.class.Defaults || w.cur.Word == lex.WSet || w.cur.Word == lex.WReset
	}
}

// do reads an anonymous block; its text is a string.
func (w *walker) do() {
	w.fail(ReasonUtility)
	for w.advance(); !w.atEnd(); w.step() {
		if w.cur.Kind == lex.TString {
			e := w.cat.effectOf(readBody(string(w.text(w.cur))))
			w.apply(e)
			w.class.Nextval = w.class.Nextval || e.nextval
		}
	}
}
