package route

import "bytes"

// The walker follows the skeleton of a query: which parenthesis is a subquery,
// where a FROM list or a WITH list stands, which identifier is a relation, an
// alias or a function. Everything between is one soup of expressions in which
// an identifier before a parenthesis is a call. It need only be right about
// texts some PostgreSQL accepts, for all others fail on every server; so each
// rule below leans on a rule of src/backend/parser/gram.y.
type walker struct {
	lex                    lexer
	cat                    *Catalog
	prev2, prev, cur, next token
	before                 token // what stood before the present (qualified) name

	class  Class
	depth  int // of parentheses and brackets; frames[depth] is the present one
	frames [maxDepth]frame
	ctes   [maxCTEs]span // names of WITH that can be seen from here
	nctes  int

	calling bool    // the next parenthesis holds the arguments of a call
	arg     argRule // of that call
	atomic  int     // inside BEGIN ATOMIC ... END: open ENDs
	name    [maxName]byte
}

const (
	maxDepth = 100
	maxCTEs  = 32
)

// span is src[from:to], a name as it was written.
type span struct{ from, to int32 }

// frame is one level of parentheses.
type frame struct {
	state     state
	arg       argRule
	fresh     bool // nothing has been read in it yet
	query     bool // a SELECT has: FROM begins a list
	recursive bool // its WITH is WITH RECURSIVE
	body      bool // it is the query of a WITH item
	ctes      int8 // how many names of WITH could be seen before it
	cte       span // the WITH item that is being read in it
}

// state is what may stand next in a frame.
type state uint8

const (
	sExpr      state = iota // expressions
	sGroup                  // the same in GROUP BY
	sItem                   // a relation, function or subquery of a FROM list
	sSample                 // the method of a TABLESAMPLE
	sAfter                  // behind such an item: its alias, or a join, or a comma
	sOn                     // the same behind ON or USING: expressions, a join, or a comma
	sColumns                // a list of column names, perhaps with types
	sCTE                    // the name of a WITH item
	sCTEAs                  // what is between the name and the query
	sCTENext                // a comma, or the statement that WITH belongs to
	sSearch                 // SEARCH or CYCLE of a WITH item, as far as SET
	sSearchSet              // and from SET on
)

func (w *walker) advance() {
	w.prev2, w.prev, w.cur, w.next = w.prev, w.cur, w.next, w.lex.next()
}

func (w *walker) frame() *frame { return &w.frames[min(w.depth, maxDepth-1)] }

// fail notes why the statement is not a read; the first reason stays.
func (w *walker) fail(r Reason) { w.failAt(w.cur, r) }

func (w *walker) failAt(t token, r Reason) {
	if w.class.Reason == ReasonRead {
		w.class.Reason, w.class.At = r, int(t.from)
	}
}

func (w *walker) pin(p Pin) {
	if w.class.Pin == PinNone {
		w.class.Pin = p
	}
}

// atEnd reports whether the statement ends before the present token.
func (w *walker) atEnd() bool {
	switch w.cur.kind {
	case tEnd, tBad:
		return true
	case tSemicolon: // those of CREATE RULE and BEGIN ATOMIC do not end it
		return w.depth == 0 && w.atomic == 0
	default:
		return false
	}
}

// rest reads to the end of the statement.
func (w *walker) rest() {
	for !w.atEnd() {
		w.step()
	}
	if w.depth != 0 {
		w.fail(ReasonUnreadable)
	}
}

// parenthesis reads from an opening parenthesis to behind the closing one.
func (w *walker) parenthesis() {
	for depth := w.depth; !w.atEnd(); {
		w.step()
		if w.depth <= depth {
			return
		}
	}
}

// step reads one token.
func (w *walker) step() {
	f := w.frame()
	switch w.cur.kind {
	case tWord:
		w.word(f)
	case tQuoted:
		w.identifier(f)
	case tUnicode:
		w.fail(ReasonUnreadable)
		w.pin(PinUnread)
		if f.state == sItem {
			f.state = sAfter
		}
	case tOperator:
		w.operator()
	case tOpen, tOpenBracket:
		w.open(f)
	case tClose, tCloseBracket:
		w.close(f)
	case tComma:
		w.comma(f)
	}
	f.fresh = false
	w.advance()
}

func (w *walker) operator() {
	if w.cat.operators[string(w.text(w.cur))].reason != ReasonRead {
		w.fail(ReasonOperator)
	}
}

func (w *walker) text(t token) []byte { return w.lex.src[t.from:t.to] }

// open enters a parenthesis or bracket.
func (w *walker) open(f *frame) {
	child := frame{fresh: true, arg: w.arg, ctes: int8(w.nctes)}
	switch {
	case w.calling, w.cur.kind == tOpenBracket:
	case f.state == sItem: // a subquery, or a join in parentheses
		child.state, f.state = sItem, sAfter
	case f.state == sAfter && w.prev.word != wRepeatable, f.state == sColumns:
		child.state = sColumns
	case f.state == sCTEAs && (w.prev.word == wAs || w.prev.word == wMaterialized):
		child.body, f.state = true, sCTENext
	case f.state == sCTEAs:
		child.state = sColumns
	case f.state == sGroup:
		child.state = sGroup
	}
	w.calling, w.arg = false, argNone
	w.depth++
	if w.depth >= maxDepth {
		w.fail(ReasonUnreadable)
		child = frame{}
	}
	*w.frame() = child
}

// close leaves a parenthesis or bracket.
func (w *walker) close(f *frame) {
	if w.depth == 0 {
		w.fail(ReasonUnreadable)
		return
	}
	w.argument(f)
	if f.arg == argLocal && !(w.prev.word == wTrue && w.prev2.kind == tComma) {
		w.pin(PinSetting)
	}
	w.nctes = int(f.ctes)
	w.depth--
	if parent := w.frame(); f.body && !parent.recursive {
		w.see(parent.cte)
	}
}

// see makes the name of a WITH item visible.
func (w *walker) see(name span) {
	if w.nctes < maxCTEs { // beyond, they are relations not known
		w.ctes[w.nctes] = name
		w.nctes++
	}
}

func (w *walker) comma(f *frame) {
	switch f.state {
	case sAfter, sOn:
		f.state = sItem
	case sCTENext, sSearchSet:
		f.state = sCTE
	}
	w.argument(f)
}

// argument looks at the first argument of current_setting, which ends here.
func (w *walker) argument(f *frame) {
	if f.arg != argSetting {
		return
	}
	f.arg = argNone
	if w.prev.kind == tString && w.prev2.kind == tOpen {
		if quoted := w.text(w.prev); quoted[0] == '\'' && w.sameSetting(quoted[1:len(quoted)-1]) {
			return
		}
	}
	w.failAt(w.prev, ReasonNodeSpecific)
}

// sameSetting reports whether the setting, in any case, is one of sameSettings.
func (w *walker) sameSetting(name []byte) bool {
	if len(name) > maxName {
		return false
	}
	for i, c := range name {
		w.name[i] = lower[c]
	}
	_, ok := sameSettings[string(w.name[:len(name)])]
	return ok
}

// word reads a word: a keyword where the grammar takes it for one, else a name.
func (w *walker) word(f *frame) {
	if w.cur.word == wNone {
		w.identifier(f)
		return
	}
	if w.prev.kind == tDot || w.prev.word == wAs && f.state != sCTEAs {
		w.cur.word = wNone // a label (ColLabel), whatever it is elsewhere
		w.identifier(f)
		return
	}
	if f.state == sColumns {
		if w.cur.word == wSelect {
			w.fail(ReasonUnreadable)
		}
		return
	}
	if !w.clause(f) && !w.cur.word.reserved() {
		w.identifier(f)
	}
}

// clause moves the frame on at a keyword; it reports false if the word is none
// here.
func (w *walker) clause(f *frame) bool {
	switch w.cur.word {
	case wSelect:
		f.query, f.state = true, sExpr
	case wFrom:
		w.from(f)
	case wTable: // TABLE t is SELECT * FROM t
		f.state = sItem
	case wWith:
		if f.fresh {
			f.state = sCTE
		}
	case wWhere, wHaving, wWindow, wUnion, wIntersect, wExcept, wOrder, wLimit, wOffset, wFetch, wReturning:
		f.state = sExpr
	case wGroup:
		if !(w.prev.word == wWithin && w.next.kind == tOpen) { // WITHIN GROUP (
			f.state = sGroup
		}
	case wFor:
		f.state = sExpr
		switch w.next.word {
		case wUpdate, wShare, wNo, wKey:
			w.fail(ReasonLocking)
		}
	case wInto:
		f.state = sExpr
		w.into(f)
	case wOn, wUsing:
		if f.state == sAfter {
			f.state = sOn
		}
	case wEnd, wCase:
		w.block()
	default:
		return w.join(f) || w.common(f) || w.modifies()
	}
	return true
}

// from begins a FROM list, unless it is part of IS DISTINCT FROM, or of a
// function such as EXTRACT: those have no SELECT in their parentheses.
func (w *walker) from(f *frame) {
	comparison := w.prev.word == wDistinct && (w.prev2.word == wIs || w.prev2.word == wNot)
	if f.query && !comparison {
		f.state = sItem
	}
}

// into is SELECT INTO wherever it is not part of INSERT INTO or MERGE INTO.
func (w *walker) into(f *frame) {
	if w.prev.word == wInsert || w.prev.word == wMerge {
		return
	}
	w.fail(ReasonSelectInto)
	switch w.next.word {
	case wTemp, wTemporary, wLocal, wGlobal:
		w.pin(PinTemporary)
	default:
		w.class.Schema = w.class.Schema || f.query
	}
}

// join reads the words of joins, which cannot be aliases.
func (w *walker) join(f *frame) bool {
	if f.state != sAfter && f.state != sOn {
		return false
	}
	switch w.cur.word {
	case wJoin:
		f.state = sItem
	case wTablesample:
		f.state = sSample
	case wLeft, wRight: // functions, too
		return w.next.kind != tOpen
	case wInner, wCross, wFull, wNatural, wOuter:
	default:
		return false
	}
	return true
}

// common reads the words of WITH, of VALUES and of ROWS FROM.
func (w *walker) common(f *frame) bool {
	switch w.cur.word {
	case wRecursive:
		if f.state != sCTE || w.next.kind == tOpen || w.next.word == wAs {
			return false
		}
		f.recursive = true
	case wMaterialized:
		return f.state == sCTEAs
	case wSearch, wCycle:
		if f.state != sCTENext && f.state != sSearchSet {
			return false
		}
		f.state = sSearch
	case wSet:
		if f.state != sSearch {
			return false
		}
		f.state = sSearchSet
	case wValues:
		if w.next.kind != tOpen {
			return false
		}
		f.state = sExpr
	case wRows:
		return f.state == sItem && w.next.word == wFrom
	default:
		return false
	}
	return true
}

// modifies reads the words that begin data modifications. They are names, too,
// but hardly anybody's, so they count wherever they stand.
func (w *walker) modifies() bool {
	switch w.cur.word {
	case wInsert, wUpdate, wDelete, wMerge:
		w.fail(ReasonModifyingCTE)
		return true
	default:
		return false
	}
}

// block counts what has to END inside the body of a function in standard SQL.
func (w *walker) block() {
	switch {
	case w.atomic == 0:
	case w.cur.word == wCase:
		w.atomic++
	default:
		w.atomic--
	}
}

// identifier reads a name, or one part of a qualified name.
func (w *walker) identifier(f *frame) {
	if w.prev.kind != tDot {
		w.before = w.prev
	}
	w.suspicious()
	if w.next.kind == tDot {
		w.qualifier()
		return
	}
	switch f.state {
	case sColumns, sCTEAs:
	case sAfter: // an alias; an open parenthesis begins its columns
	case sCTE:
		f.cte, f.state = span{w.cur.from, w.cur.to}, sCTEAs
		if f.recursive {
			w.see(f.cte)
		}
	case sItem, sSample:
		if w.next.kind == tOpen {
			w.call(f)
		} else {
			w.relation()
		}
		f.state = sAfter
	default:
		// Behind :: and AS a type, whose modifiers are in the parenthesis.
		if w.next.kind == tOpen && w.before.kind != tCast && w.before.word != wAs {
			w.call(f)
		}
	}
}

// suspicious checks a name against what catalogs rarely hold: types whose
// conversion may write, and functions that can be called like a column (row.f).
func (w *walker) suspicious() {
	if len(w.cat.types) > 0 {
		if e, ok := w.cat.types[string(w.fold(w.cur))]; ok {
			w.apply(e)
		}
	}
	if len(w.cat.columns) > 0 && w.prev.kind == tDot && w.next.kind != tOpen {
		if e, ok := w.cat.columns[string(w.fold(w.cur))]; ok {
			w.apply(e)
		}
	}
}

// qualifier looks for the schema of temporary objects, which are the session's.
func (w *walker) qualifier() {
	if bytes.HasPrefix(w.fold(w.cur), []byte("pg_temp")) {
		w.fail(ReasonSessionState)
		w.pin(PinTemporary)
	}
}

// relation reads the last part of a relation's name.
func (w *walker) relation() {
	name := w.fold(w.cur)
	if w.prev.kind != tDot && w.cte(name) {
		return
	}
	if e, ok := w.cat.relations[string(name)]; ok {
		w.apply(e)
	} else {
		w.fail(ReasonUnknownRelation)
	}
}

// cte reports whether the folded name is that of a WITH item.
func (w *walker) cte(name []byte) bool {
	if w.nctes == 0 || len(name) == 0 {
		return false
	}
	var buf [maxName]byte
	for _, s := range w.ctes[:w.nctes] {
		if bytes.Equal(name, fold(buf[:0], w.lex.src[s.from:s.to])) {
			return true
		}
	}
	return false
}

// call reads the last part of the name of a function, or a word of the grammar
// that looks like one.
func (w *walker) call(f *frame) {
	w.calling = true
	if e, ok := w.cat.functions[string(w.fold(w.cur))]; ok {
		w.arg = e.arg
		w.apply(e)
	} else if !w.syntax(f) {
		w.fail(ReasonUnknownFunction)
	}
}

// syntax reports whether the present word, which no function has for a name,
// stands before a parenthesis by the grammar. Words such as COALESCE that can
// never name a function are in the Catalog.
func (w *walker) syntax(f *frame) bool {
	switch w.cur.word {
	case wOver, wFilter:
		return w.prev.kind == tClose
	case wIlike, wOperator, wEscape, wColumns:
		return w.prev.kind == tClose || w.prev.kind == tCloseBracket || w.prev.kind == tString ||
			w.prev.kind == tQuoted || w.prev.kind == tNumber || w.prev.kind == tParam ||
			w.prev.kind == tWord && (!w.prev.word.reserved() || w.prev.word == wNot)
	case wBy:
		return w.prev.word == wOrder || w.prev.word == wGroup || w.prev.word == wPartition
	case wFirst, wNext:
		return w.prev.word == wFetch
	case wZone:
		return w.prev.word == wTime
	case wSets:
		return w.prev.word == wGrouping
	case wCube, wRollup:
		return f.state == sGroup
	default:
		return false
	}
}

func (w *walker) apply(e effect) {
	if e.reason != ReasonRead {
		w.fail(e.reason)
	}
	if e.pin != PinNone {
		w.pin(e.pin)
	}
	w.class.Schema = w.class.Schema || e.schema
}

// fold returns the name that t stands for, in w.name.
func (w *walker) fold(t token) []byte { return fold(w.name[:0], w.text(t)) }

// fold appends to dst the name that written stands for: without its quotes, or
// with ASCII in lower case. A name too long for a server, which would cut it,
// becomes the empty name, which nothing has.
func fold(dst, written []byte) []byte {
	quoted := written[0] == '"'
	if quoted {
		written = written[1 : len(written)-1]
	}
	if len(written) > maxName {
		return dst
	}
	if !quoted {
		for _, c := range written {
			dst = append(dst, lower[c])
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
