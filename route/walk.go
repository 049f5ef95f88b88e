package route

import (
	"strings"

	"github.com/lsnproxy/lsnproxy/route/internal/lex"
)

// The walker follows the skeleton of a query: which parenthesis is a subquery,
// where a FROM list or a WITH list stands, which identifier is a relation, an
// alias or a function. Everything between is one soup of expressions in which
// an identifier before a parenthesis is a call. It need only be right about
// texts some PostgreSQL accepts, for all others fail on every server; so each
// rule below leans on a rule of src/backend/parser/gram.y.
type walker struct {
	lex                    lex.Lexer
	cat                    *Catalog
	prev2, prev, cur, next lex.Token
	before                 lex.Token // what stood before the present (qualified) name

	class  Class
	fires  effect // what the relations named leave behind when they are written
	depth  int    // of parentheses and brackets; frames[depth] is the present one
	frames [maxDepth]frame
	ctes   [maxCTEs]span // names of WITH that can be seen from here
	nctes  int

	target  bool    // the next name is that of a relation to be written
	runs    bool    // expressions that follow are computed when the statement runs
	calling bool    // the next parenthesis holds the arguments of a call
	arg     argRule // of that call
	tail    tail    // what the parenthesis closed last was
	atomic  int     // inside BEGIN ATOMIC ... END: open ENDs
	name    [lex.MaxName]byte
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
	tail      tail
	commas    int8 // as many as have been read, up to 3
	ctes      int8 // how many names of WITH could be seen before it
	name      span // the WITH item that is being read in it, or the setting in the arguments of set_config
}

// tail is what may stand behind a parenthesis.
type tail uint8

const (
	tailOperand  tail = iota // what follows an operand
	tailCall                 // the same, or OVER and FILTER: arguments, WITHIN GROUP, FILTER
	tailPrefix               // an expression: DISTINCT ON
	tailOperator             // an expression: OPERATOR
)

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
	w.prev2, w.prev, w.cur, w.next = w.prev, w.cur, w.next, w.lex.Next()
}

func (w *walker) frame() *frame { return &w.frames[min(w.depth, maxDepth-1)] }

// fail notes why the statement is not a read; the first reason stays.
func (w *walker) fail(r Reason) { w.failAt(w.cur, r) }

func (w *walker) failAt(t lex.Token, r Reason) {
	if w.class.Reason == ReasonRead {
		w.class.Reason, w.class.At = r, int(t.From)
	}
}

func (w *walker) pin(p Pin) { w.class.Pin |= p }

// atEnd reports whether the statement ends before the present token.
func (w *walker) atEnd() bool {
	switch w.cur.Kind {
	case lex.TEnd, lex.TBad:
		return true
	case lex.TSemicolon: // those of CREATE RULE and BEGIN ATOMIC do not end it
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
	switch w.cur.Kind {
	case lex.TWord:
		w.word(f)
	case lex.TQuoted:
		w.identifier(f)
	case lex.TUnicode:
		w.fail(ReasonUnreadable)
		w.pin(PinUnread)
		if f.state == sItem {
			f.state = sAfter
		}
	case lex.TString:
		if f.arg != argNone && f.commas == 0 && w.prev.Kind == lex.TOpen && w.lex.Src[w.cur.From] == '\'' {
			f.name = span{w.cur.From + 1, w.cur.To - 1}
		}
	case lex.TOperator:
		w.operator()
	case lex.TOpen, lex.TOpenBracket:
		w.open(f)
	case lex.TClose, lex.TCloseBracket:
		w.close(f)
	case lex.TComma:
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

func (w *walker) text(t lex.Token) []byte { return w.lex.Src[t.From:t.To] }

// open enters a parenthesis or bracket.
func (w *walker) open(f *frame) {
	child := frame{fresh: true, arg: w.arg, ctes: int8(w.nctes)}
	switch {
	case w.calling || w.prev.Word == lex.WGroup || w.prev.Word == lex.WFilter:
		child.tail = tailCall
	case w.prev.Word == lex.WOn && w.prev2.Word == lex.WDistinct:
		child.tail = tailPrefix
	case w.prev.Word == lex.WOperator:
		child.tail = tailOperator
	}
	switch {
	case w.calling, w.cur.Kind == lex.TOpenBracket:
	case f.state == sItem: // a subquery, or a join in parentheses
		child.state, f.state = sItem, sAfter
	case f.state == sAfter && w.aliased(), f.state == sColumns:
		child.state = sColumns
	case f.state == sCTEAs && (w.prev.Word == lex.WAs || w.prev.Word == lex.WMaterialized):
		child.body, f.state = true, sCTENext
	case f.state == sCTEAs:
		child.state = sColumns
	case f.state == sGroup && w.prev.Word == lex.WSets:
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

// aliased reports whether the parenthesis behind an item of a FROM list holds its
// columns: behind an alias, or behind AS without one.
func (w *walker) aliased() bool {
	switch {
	case w.prev.Kind == lex.TQuoted, w.prev.Word == lex.WAs:
		return true
	default:
		return w.prev.Kind == lex.TWord && !w.prev.Word.Reserved() && w.prev.Word != lex.WRepeatable
	}
}

// close leaves a parenthesis or bracket.
func (w *walker) close(f *frame) {
	if w.depth == 0 {
		w.fail(ReasonUnreadable)
		return
	}
	w.argument(f)
	if f.arg == argLocal {
		name := strings.ToLower(string(w.lex.Src[f.name.from:f.name.to]))
		if f.commas != 2 || w.prev.Word != lex.WTrue || w.prev2.Kind != lex.TComma {
			w.sets(name)
		} else if custom(name) {
			w.class.Local, w.class.Name = true, Union(w.class.Name, name)
		}
	}
	if f.tail == tailOperator {
		w.named(f)
	}
	w.nctes, w.tail = int(f.ctes), f.tail
	w.depth--
	if parent := w.frame(); f.body && !parent.recursive {
		w.see(parent.name)
	}
}

// named makes sure that OPERATOR (...) holds an operator: the word could be the
// name of a function, if of none that is known.
func (w *walker) named(f *frame) {
	star := w.prev2.Kind == lex.TOpen && string(w.text(w.prev)) == "*"
	if w.prev.Kind != lex.TOperator || star {
		w.fail(ReasonUnknownFunction)
	}
	f.tail = tailPrefix
}

// see makes the name of a WITH item visible.
func (w *walker) see(name span) {
	if w.nctes < maxCTEs { // beyond, they are relations not known
		w.ctes[w.nctes] = name
		w.nctes++
	}
}

func (w *walker) comma(f *frame) {
	f.commas = min(f.commas+1, 3)
	switch f.state {
	case sAfter, sOn:
		f.state = sItem
	case sCTENext, sSearchSet:
		f.state = sCTE
	}
	w.argument(f)
}

// argument looks at the first argument of current_setting and set_config, which
// ends here: whether it is a string and nothing else, but for the type that
// PostgreSQL itself puts behind it when it prints an expression.
func (w *walker) argument(f *frame) {
	last := w.prev
	if w.prev2.Kind == lex.TCast && string(w.fold(w.prev)) == "text" {
		last = lex.Token{To: w.prev2.From}
	}
	plain := f.name.to > 0 && last.To == f.name.to+1
	switch {
	case f.arg == argLocal && f.commas == 1 && !plain:
		f.name = span{}
	case f.arg == argSetting:
		f.arg = argNone
		if !plain || !w.sameSetting(w.lex.Src[f.name.from:f.name.to]) {
			w.failAt(w.prev, ReasonNodeSpecific)
		}
	}
}

// sameSetting reports whether the setting, in any case, is one of sameSettings.
func (w *walker) sameSetting(name []byte) bool {
	if len(name) > lex.MaxName {
		return false
	}
	for i, c := range name {
		w.name[i] = lex.Lower[c]
	}
	if _, ok := sameSettings[string(w.name[:len(name)])]; ok {
		return true
	}
	return w.reads(string(w.name[:len(name)]))
}
