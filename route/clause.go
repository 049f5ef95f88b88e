package route

import "github.com/lsnproxy/lsnproxy/route/internal/lex"

// word reads a word: a keyword where the grammar takes it for one, else a name.
func (w *walker) word(f *frame) {
	if w.cur.Word == lex.WNone {
		w.identifier(f)
		return
	}
	if w.prev.Kind == lex.TDot || w.prev.Word == lex.WAs && f.state != sCTEAs {
		w.cur.Word = lex.WNone // a label (ColLabel), whatever it is elsewhere
		w.identifier(f)
		return
	}
	if f.state == sColumns {
		if w.cur.Word == lex.WSelect {
			w.fail(ReasonUnreadable)
		}
		return
	}
	if !w.clause(f) && !w.cur.Word.Reserved() {
		w.identifier(f)
	}
}

// clause moves the frame on at a keyword; it reports false if the word is none
// here.
func (w *walker) clause(f *frame) bool {
	switch w.cur.Word {
	case lex.WSelect:
		f.query, f.state = true, sExpr
	case lex.WFrom:
		w.from(f)
	case lex.WTable:
		w.table(f)
	case lex.WWith:
		if f.fresh {
			f.state = sCTE
		}
	case lex.WWhere, lex.WHaving, lex.WWindow, lex.WUnion, lex.WIntersect, lex.WExcept, lex.WOrder,
		lex.WLimit, lex.WOffset, lex.WFetch, lex.WReturning:
		f.state = sExpr
	case lex.WGroup:
		if !(w.prev.Word == lex.WWithin && w.next.Kind == lex.TOpen) { // WITHIN GROUP (
			f.state = sGroup
		}
	case lex.WFor: // of COLLATION FOR, too
		switch w.next.Word {
		case lex.WUpdate, lex.WShare, lex.WNo, lex.WKey:
			w.fail(ReasonRowLocking)
		}
	case lex.WInto:
		f.state = sExpr
		w.into(f)
	case lex.WOn, lex.WUsing:
		if f.state == sAfter {
			f.state = sOn
		}
	case lex.WEnd, lex.WCase:
		w.block()
	default:
		return w.join(f) || w.common(f) || w.modifies()
	}
	return true
}

// from begins a FROM list, unless it is part of IS DISTINCT FROM, or of a
// function such as EXTRACT: those have no SELECT in their parentheses.
func (w *walker) from(f *frame) {
	comparison := w.prev.Word == lex.WDistinct && (w.prev2.Word == lex.WIs || w.prev2.Word == lex.WNot)
	if f.query && !comparison {
		f.state = sItem
	}
}

// table begins TABLE t, which is SELECT * FROM t: where a query may begin. It may
// also stand behind an expression of a SELECT, as the label of its column.
func (w *walker) table(f *frame) {
	switch w.prev.Word {
	case lex.WUnion, lex.WIntersect, lex.WExcept, lex.WAll, lex.WDistinct:
		f.state = sItem
	default:
		if f.fresh || f.state == sCTENext || f.state == sSearchSet {
			f.state = sItem
		}
	}
}

// into is SELECT INTO wherever it is not part of INSERT INTO or MERGE INTO.
func (w *walker) into(f *frame) {
	if !f.query && (w.prev.Word == lex.WInsert || w.prev.Word == lex.WMerge) {
		w.target = true
		return
	}
	w.fail(ReasonSelectInto)
	w.class.Schema = w.class.Schema || f.query
	switch w.next.Word {
	case lex.WTemp, lex.WTemporary, lex.WLocal, lex.WGlobal: // unless that is its name
		w.pin(PinTemporary)
	}
}

// join reads the words of joins, which cannot be aliases.
func (w *walker) join(f *frame) bool {
	if f.state != sAfter && f.state != sOn {
		return false
	}
	switch w.cur.Word {
	case lex.WJoin:
		if f.state == sOn && w.next.Kind == lex.TOpen && !w.joins() {
			return false
		}
		f.state = sItem
	case lex.WTablesample:
		f.state = sSample
	case lex.WLeft, lex.WRight: // functions, too
		return w.next.Kind != lex.TOpen
	case lex.WInner, lex.WCross, lex.WFull, lex.WNatural, lex.WOuter:
	default:
		return false
	}
	return true
}

// joins reports whether JOIN, for what stands before it in the condition of
// another join, is not the name of a function.
func (w *walker) joins() bool {
	switch w.prev.Word {
	case lex.WInner, lex.WCross, lex.WFull, lex.WNatural, lex.WOuter, lex.WLeft, lex.WRight,
		lex.WEnd, lex.WNull, lex.WTrue, lex.WFalse:
		return true
	default:
		return w.operand(w.prev)
	}
}

// common reads the words of WITH, of VALUES and of ROWS FROM.
func (w *walker) common(f *frame) bool {
	switch w.cur.Word {
	case lex.WRecursive:
		if f.state != sCTE || w.next.Kind == lex.TOpen || w.next.Word == lex.WAs {
			return false
		}
		f.recursive = true
	case lex.WMaterialized:
		return f.state == sCTEAs
	case lex.WSearch, lex.WCycle:
		if f.state != sCTENext && f.state != sSearchSet {
			return false
		}
		f.state = sSearch
	case lex.WSet:
		if f.state != sSearch {
			return false
		}
		f.state = sSearchSet
	case lex.WValues:
		if w.next.Kind != lex.TOpen {
			return false
		}
		f.state = sExpr
	case lex.WRows:
		return f.state == sItem && w.next.Word == lex.WFrom
	default:
		return false
	}
	return true
}

// modifies reads the words that begin data modifications. They are names, too,
// but hardly anybody's, so they count wherever they stand.
func (w *walker) modifies() bool {
	switch w.cur.Word {
	case lex.WInsert, lex.WUpdate, lex.WDelete, lex.WMerge:
		w.fail(ReasonModifyingCTE)
		w.target = w.cur.Word == lex.WUpdate && w.next.Word != lex.WSet || w.cur.Word == lex.WDelete
		return true
	default:
		return false
	}
}

// block counts what has to END inside the body of a function in standard SQL.
func (w *walker) block() {
	switch {
	case w.atomic == 0:
	case w.cur.Word == lex.WCase:
		w.atomic++
	default:
		w.atomic--
	}
}
