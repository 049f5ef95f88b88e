package route

import (
	"bytes"

	"github.com/lsnproxy/lsnproxy/route/internal/lex"
)

// identifier reads a name, or one part of a qualified name.
func (w *walker) identifier(f *frame) {
	if w.prev.Kind != lex.TDot {
		w.before = w.prev
	}
	w.suspicious()
	if w.next.Kind == lex.TDot {
		w.qualifier()
		return
	}
	if w.target {
		w.target = false
		if e, ok := w.cat.relations[string(w.fold(w.cur))]; !ok || e.nextval {
			w.class.Nextval = true
		}
		return // a parenthesis begins its columns
	}
	switch f.state {
	case sColumns, sCTEAs:
	case sAfter: // an alias; an open parenthesis begins its columns
	case sCTE:
		w.cur.Word = lex.WNone // it may be MATERIALIZED
		f.name, f.state = span{w.cur.From, w.cur.To}, sCTEAs
		if f.recursive {
			w.see(f.name)
		}
	case sItem, sSample:
		if w.next.Kind == lex.TOpen {
			w.call(f)
		} else {
			w.relation()
		}
		f.state = sAfter
	default:
		// Behind :: and AS a type, whose modifiers are in the parenthesis.
		if w.next.Kind == lex.TOpen && w.before.Kind != lex.TCast && w.before.Word != lex.WAs {
			w.call(f)
		}
	}
}

// suspicious checks a name against what catalogs rarely hold: relations that leave
// something behind when they are written, types whose conversion may write, and
// functions that can be called like a column (row.f).
func (w *walker) suspicious() {
	if len(w.cat.fires) > 0 {
		if e, ok := w.cat.fires[string(w.fold(w.cur))]; ok {
			w.fires = w.fires.orPlain().and(e)
		}
	}
	if len(w.cat.types) > 0 {
		if e, ok := w.cat.types[string(w.fold(w.cur))]; ok {
			w.apply(e)
		}
	}
	if len(w.cat.columns) > 0 && w.prev.Kind == lex.TDot && w.next.Kind != lex.TOpen {
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
	if w.prev.Kind != lex.TDot && w.cte(name) {
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
	var buf [lex.MaxName]byte
	for _, s := range w.ctes[:w.nctes] {
		if bytes.Equal(name, lex.Fold(buf[:0], w.lex.Src[s.from:s.to])) {
			return true
		}
	}
	return false
}

// call reads the last part of the name of a function, or a word of the grammar
// that looks like one.
func (w *walker) call(f *frame) {
	e, ok := w.cat.functions[string(w.fold(w.cur))]
	switch {
	case ok:
		w.apply(e)
		w.class.Nextval = w.class.Nextval || e.nextval
	case w.syntax(f):
		return
	default:
		w.fail(ReasonUnknownFunction)
		w.class.Nextval = true
		if w.called() {
			w.class.Sets = Union(w.class.Sets, AnySetting)
		}
	}
	w.calling, w.arg = true, e.arg
}

// called reports whether the present name, which no function has that is known,
// and which a parenthesis follows, is called when the statement runs. Names are
// also followed by columns, types and options, and those of types convert.
func (w *walker) called() bool {
	if !w.runs || w.operand(w.before) || w.cur.Word == lex.WInsert || w.cur.Word == lex.WSet {
		return false
	}
	switch w.before.Word {
	case lex.WInto, lex.WExecute, lex.WPrepare:
		return false
	case lex.WOn:
		return !w.isAny("conflict")
	case lex.WTo: // INTERVAL '1' DAY TO SECOND (2)
		return !w.isAny("second")
	}
	_, conversion := w.cat.names[string(w.fold(w.cur))]
	return !conversion
}

// syntax reports whether the present word, which no function has for a name,
// stands before a parenthesis by the grammar. Words such as COALESCE that can
// never name a function are in the Catalog.
func (w *walker) syntax(f *frame) bool {
	if w.class.Reason == ReasonDML && w.prev.Word == lex.WOn && w.isAny("conflict") { // of an INSERT
		return true
	}
	switch w.cur.Word {
	case lex.WOver, lex.WFilter:
		return w.prev.Kind == lex.TClose && w.tail == tailCall
	case lex.WIlike, lex.WEscape:
		return w.infix()
	case lex.WOperator: // close looks whether it holds one
		return true
	case lex.WColumns: // of JSON_TABLE, behind its path or the name of that
		return w.prev.Kind == lex.TString || w.prev2.Word == lex.WAs
	case lex.WBy:
		return w.prev.Word == lex.WOrder || w.prev.Word == lex.WGroup || w.prev.Word == lex.WPartition
	case lex.WFirst, lex.WNext:
		return w.prev.Word == lex.WFetch
	case lex.WZone:
		return w.prev.Word == lex.WTime
	case lex.WSets:
		return w.prev.Word == lex.WGrouping
	case lex.WVarying: // CHARACTER VARYING (
		return w.prev.Kind == lex.TWord && !w.prev.Word.Reserved()
	case lex.WCube, lex.WRollup:
		begins := w.prev.Kind == lex.TComma || w.prev.Kind == lex.TOpen ||
			w.prev.Word == lex.WBy || w.prev.Word == lex.WAll || w.prev.Word == lex.WDistinct
		return f.state == sGroup && begins
	default:
		return false
	}
}

// infix reports whether the present word, for its place, can only be an operator
// between two operands, perhaps behind NOT.
func (w *walker) infix() bool {
	if w.prev.Word == lex.WNot {
		return w.operand(w.prev2)
	}
	return w.operand(w.prev)
}

// operand reports whether t, which nothing but NOT stands behind, ends an
// operand: no call can begin there.
func (w *walker) operand(t lex.Token) bool {
	switch t.Kind {
	case lex.TString, lex.TNumber, lex.TParam, lex.TQuoted, lex.TCloseBracket:
		return true
	case lex.TClose:
		return w.tail != tailPrefix
	case lex.TWord:
		return t.Word == lex.WNone
	default:
		return false
	}
}

func (w *walker) apply(e effect) {
	if e.reason != ReasonRead {
		w.fail(e.reason)
	}
	w.pin(e.pin)
	w.class.Frees |= e.frees
	w.class.Schema = w.class.Schema || e.schema
	w.class.Currval = w.class.Currval || e.currval
	w.class.Timed = w.class.Timed || e.timed
	if e.prepared {
		w.class.Prepared = PreparedAny
	}
	w.class.Defaults = w.class.Defaults || e.defaults
	w.class.Sets, w.class.Reads = Union(w.class.Sets, e.sets), Union(w.class.Reads, e.reads)
}

// fold returns the name that t stands for, in w.name.
func (w *walker) fold(t lex.Token) []byte { return lex.Fold(w.name[:0], w.text(t)) }
