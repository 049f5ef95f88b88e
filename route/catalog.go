package route

import (
	_ "embed"
	"fmt"
	"maps"
	"strings"
)

// CatalogQuery asks a database of PostgreSQL 14 to 18 for what a Catalog holds.
// Any role may run it. Its rows have five columns of text, none of them null.
//
//go:embed catalog.sql
var CatalogQuery string

// Catalog is what is known of the functions, relations, operators and types of
// one database: what a statement that names them does. Names stand without
// their schema, for the worst that any schema has under that name, so that
// search_path does not matter. It is never changed once built.
//
// What is trusted: that functions marked STABLE or IMMUTABLE write nothing,
// except where the words of their source say otherwise; that functions in C
// that support indexes and types write nothing. Names of objects created after
// the Catalog was read are not known and so not read; what a name known
// stands for may have changed since, so a Catalog has to be read again after
// definitions change (Class.Schema) and now and then, as other sessions change
// them.
//
// Temporary objects are left out: only the session that made them sees them,
// and that session is pinned.
type Catalog struct {
	functions map[string]effect
	relations map[string]effect
	operators map[string]effect
	types     map[string]effect // those whose conversion is not harmless
	columns   map[string]effect // functions not harmless that row.name may call
	names     map[string]bool   // of types: called like functions they convert; true: in pg_catalog
	fires     map[string]effect // what writing a relation leaves behind, if anything; "": changing a definition
	native    bool              // there are functions in C that may keep anything
	held      bool              // some of it could not be read for locks
	suspect   Reason            // ReasonRead, or why nothing can be called a read
	builtin   *Catalog
}

// bare is the Catalog that stands in while there is none.
var bare = func() *Catalog {
	c := newCatalog()
	for _, list := range []map[string]effect{pure, grammar, harmless, specials} {
		for name, e := range list {
			c.functions[name] = e
		}
	}
	for name := range strings.FieldsSeq(builtinOperators) {
		c.operators[name] = plain
	}
	c.operators["!="] = plain
	c.relations["pg_prepared_statements"] = effect{reason: ReasonRelation, prepared: true}
	return c
}()

func newCatalog() *Catalog {
	return &Catalog{
		functions: make(map[string]effect),
		relations: make(map[string]effect),
		operators: make(map[string]effect),
		types:     make(map[string]effect),
		columns:   make(map[string]effect),
		names:     make(map[string]bool),
		fires:     make(map[string]effect),
		suspect:   ReasonRead,
	}
}

// Builtin returns what of c holds whatever is defined: what PostgreSQL's own
// functions do. It knows no relation and no function of a user's.
func (c *Catalog) Builtin() *Catalog { return c.builtin }

// Native reports whether there are functions in C that may keep anything in the
// server's process.
func (c *Catalog) Native() bool { return c.native }

// Held reports whether something could not be read because somebody had locked it:
// it is taken to do anything. The Catalog is to be read again before long.
func (c *Catalog) Held() bool { return c.held }

// unclear is the effect of what could not be read.
var unclear = effect{reason: ReasonUnknownFunction, sets: AnySetting, nextval: true}

// Columns of CatalogQuery. What the others hold depends on what.
const (
	what = iota
	name
	mark
	detail
	text
	width
)

// builder holds what is read again until a Catalog no longer changes: an effect
// passes from a function to those that call it, from there to the views that do,
// from a view to the functions that read it.
type builder struct {
	*Catalog
	bodies  []source
	fired   []source
	queries [][]string      // rows of views, policies and domains
	links   [][]string      // rows of inherits, uses, signature, cast and operator
	byDot   map[string]bool // functions that row.name may call
	own     []string        // functions of pg_catalog
	changed bool
}

// source is the source of a function and of the defaults of its arguments, or of
// what runs when a relation is written.
type source struct {
	name string
	body
}

// NewCatalog builds a Catalog from the rows of CatalogQuery.
func NewCatalog(rows [][]string) (*Catalog, error) {
	b := &builder{Catalog: newCatalog(), byDot: make(map[string]bool)}
	for i, row := range rows {
		if len(row) != width {
			return nil, fmt.Errorf("catalog: row %d has %d columns, want %d", i, len(row), width)
		}
		if err := b.read(row); err != nil {
			return nil, err
		}
	}
	for b.changed = true; b.changed; {
		b.changed = false
		b.pass()
	}
	b.finish()
	b.Catalog.builtin = newCatalog()
	maps.Copy(b.builtin.functions, bare.functions)
	for _, name := range b.own {
		b.builtin.functions[name] = b.functions[name]
	}
	for name, native := range b.names {
		if native {
			b.builtin.names[name] = true
		}
	}
	b.builtin.relations, b.builtin.operators = bare.relations, bare.operators
	return b.Catalog, nil
}

// read takes in one row.
func (b *builder) read(row []string) error {
	if row[mark] == "held" { // of a view, a policy, or what fires
		b.leaves(row[name], unclear)
		if row[what] != "fires" {
			b.bad(b.relations, row[name], unclear, ReasonRelation)
		}
		return nil
	}
	switch row[what] {
	case "function": // mark: provolatile; detail: b(uiltin), d(ot), c (in C, may keep anything), h(eld); text: source
		b.function(row)
	case "keyword": // of the server; a word that is not known here may do anything
		if e, ok := grammar[row[name]]; ok {
			b.join(b.functions, row[name], e)
		} else if e, ok := grammarSince16[row[name]]; ok {
			b.join(b.functions, row[name], e)
		}
	case "relation": // mark: why it belongs to the leader, or nothing; detail: n(extval)
		e := plain
		e.nextval = row[detail] != ""
		if row[mark] != "" {
			e.reason = ReasonRelation
		}
		b.join(b.relations, row[name], e)
	case "view", "policy", "domain": // text: a query
		b.queries = append(b.queries, row)
		if row[what] == "view" { // it may be written through
			b.fired = append(b.fired, source{row[name], readBody(row[text])})
		}
	case "operator": // mark: provolatile; detail: its function unless in C; text: why it needs no token
		b.join(b.operators, row[name], marked(row[mark], ReasonOperator))
		b.links = append(b.links, row)
	case "type": // detail: b(uiltin)
		b.names[row[name]] = b.names[row[name]] || row[detail] == "b"
	case "fires": // text: what runs
		b.fired = append(b.fired, source{row[name], readBody(row[text])})
	case "held":
		b.Catalog.held = true
	case "inherits", "cascades", "uses", "signature", "cast", "support":
		b.links = append(b.links, row)
	default:
		return fmt.Errorf("catalog: row about %q", row[what])
	}
	return nil
}

// marked is the effect of a volatility mark.
func marked(volatility string, bad Reason) effect {
	if volatility == "v" {
		return effect{reason: bad}
	}
	return plain
}

func (b *builder) function(row []string) {
	builtin := strings.Contains(row[detail], "b")
	if builtin {
		b.own = append(b.own, row[name])
	}
	e, ok := special(row[name])
	if !ok {
		e = marked(row[mark], ReasonVolatile)
		if _, ok := harmless[row[name]]; ok && builtin {
			e = plain
		}
		if strings.Contains(row[detail], "c") {
			e.pin = PinLibrary
			b.Catalog.native = true
		}
	}
	if strings.Contains(row[detail], "h") {
		e = e.and(unclear)
	}
	e.nextval = e.nextval || !builtin && row[text] == "" && row[mark] == "v" // in C
	b.join(b.functions, row[name], e)
	if row[text] != "" {
		b.bodies = append(b.bodies, source{row[name], readBody(row[text])})
	}
	if strings.Contains(row[detail], "d") {
		b.byDot[row[name]] = true
	}
}

// join adds to what is known of a name.
func (b *builder) join(table map[string]effect, name string, e effect) {
	old, ok := table[name]
	joined := e
	if ok {
		joined = old.and(e)
	}
	if !ok || joined != old {
		table[name] = joined
		b.changed = true
	}
}

// pass hands every effect on by one step.
func (b *builder) pass() {
	for _, source := range b.bodies {
		b.join(b.functions, source.name, b.effectOf(source.body))
	}
	for _, source := range b.fired {
		b.leaves(source.name, b.effectOf(source.body))
	}
	if len(b.types) > 0 {
		for _, name := range populating {
			b.join(b.functions, name, effect{reason: ReasonType})
		}
	}
	for _, row := range b.queries {
		class := Classify([]byte(row[text]), true, b.Catalog)
		e := effect{
			reason: class.Reason, pin: class.Pin, frees: class.Frees, schema: class.Schema, sets: class.Sets, reads: class.Reads,
			prepared: class.Prepared != PreparedNone, currval: class.Currval, timed: class.Timed || Timely([]byte(row[text])),
		}
		if row[what] == "domain" {
			e.timed = false // said of no type
			b.bad(b.types, row[name], e, ReasonType)
		} else {
			b.bad(b.relations, row[name], e, ReasonRelation)
		}
	}
	for _, row := range b.links {
		b.link(row)
	}
}

// populating are the functions that convert to a type that is given by a row or
// by its name in a string.
var populating = []string{
	"json_populate_record", "json_populate_recordset", "jsonb_populate_record",
	"jsonb_populate_recordset", "jsonb_populate_record_valid", "pg_input_is_valid", "pg_input_error_info",
}

// bad joins e, under another reason if it is not harmless.
func (b *builder) bad(table map[string]effect, name string, e effect, r Reason) {
	if e.reason != ReasonRead {
		e.reason = r
	}
	if e != plain {
		b.join(table, name, e)
	}
}

// leaves notes what writing a relation leaves behind.
func (b *builder) leaves(relation string, e effect) {
	e.reason, e.timed = ReasonRead, false // what is written is on the leader
	if e != plain {
		b.join(b.fires, relation, e)
	}
}

// effectOf is what a function does by the words of its source.
func (c *Catalog) effectOf(body body) effect {
	e := body.own
	for _, call := range body.calls {
		if called, ok := c.functions[call]; ok {
			called.arg = argNone
			e = e.and(called)
		}
	}
	for _, word := range body.words {
		if r, ok := c.relations[word]; ok && (r.reason != ReasonRead || r.nextval || r.timed) {
			e = e.and(r)
		}
		if len(c.fires) > 0 {
			e = e.and(c.fires[word].orPlain())
		}
	}
	return e
}

// link hands the effect of one thing on to another.
func (b *builder) link(row []string) {
	switch row[what] {
	case "inherits": // a parent reads its children, and writes them
		if b.relations[row[name]].nextval {
			b.join(b.relations, row[detail], effect{reason: ReasonRead, nextval: true})
		}
		b.bad(b.relations, row[detail], b.relations[row[name]].orPlain(), ReasonRelation)
		b.leaves(row[detail], b.fires[row[name]].orPlain())
	case "cascades": // through a foreign key, from the referenced to the referencing
		b.leaves(row[detail], b.fires[row[name]].orPlain())
	case "uses": // a type is made of another
		b.bad(b.types, row[name], b.types[row[detail]].orPlain(), ReasonType)
	case "signature": // a call converts its arguments
		b.bad(b.functions, row[name], b.types[row[detail]].orPlain(), ReasonType)
	case "cast": // mark: provolatile; detail: the function unless in C; text: castcontext
		e := marked(row[mark], ReasonType).and(b.functions[row[detail]].orPlain())
		e.timed = false
		b.bad(b.types, row[name], e, ReasonType)
		if row[text] == "i" && e.reason != ReasonRead {
			b.suspects(ReasonType)
		}
	case "operator":
		e := b.functions[row[detail]].orPlain()
		b.bad(b.operators, row[name], e, ReasonOperator)
		if row[text] != "" && b.operators[row[name]].reason != ReasonRead {
			b.suspects(ReasonOperator)
		}
	case "support": // of an index: called to sort, group and compare
		if b.functions[row[name]].orPlain().reason != ReasonRead {
			b.suspects(ReasonOperator)
		}
	}
}

// orPlain is the effect of a name that may not be known: harmless if it is not.
func (e effect) orPlain() effect {
	if e == (effect{}) {
		return plain
	}
	return e
}

// suspects notes that statements may do more than their text shows.
func (b *builder) suspects(r Reason) {
	if b.suspect == ReasonRead {
		b.suspect = r
		b.changed = true
	}
}

// finish fills in what follows from the rest.
func (b *builder) finish() {
	b.operators["!="] = b.operators["<>"] // the scanner makes one of them
	for name := range b.byDot {
		if e := b.functions[name]; e.reason != ReasonRead || e.timed {
			b.columns[name] = e
		}
	}
}
