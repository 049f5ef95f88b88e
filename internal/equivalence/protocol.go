package equivalence

import (
	"encoding/binary"
	"strings"

	"github.com/lsnproxy/lsnproxy/wire"
)

var (
	statementNames = []string{"", "", "", "a", "b", "c"}
	portalNames    = []string{"p", "r"}
)

// portal chooses one for a statement. That of an unnamed statement has no name
// and is executed only with its Bind: PostgreSQL 15 crashes if a portal of BEGIN,
// which only unnamed statements are here, is executed again in the transaction
// when that has failed.
func (s *speaker) portal(statement string) string {
	if statement == "" || s.IntN(2) == 0 {
		return ""
	}
	return pick(s, portalNames)
}

// take is a statement with parameters: how many, and what may be given for them.
type take struct {
	sql    string
	params int
}

var takes = []take{
	{"select $1::int + 1", 1},
	{"select $1::text, $2::int", 2},
	{"select * from eq.items where id = $1", 1},
	{"select name from eq.items where id < $1 and name <> $2 order by id", 2},
	{"insert into s%N.t values ($1, $2)", 2},
	{"insert into s%N.u values ($1, $2) returning *", 2},
	{"update s%N.t set b = $2 where a = $1", 2},
	{"delete from s%N.t where a = $1", 1},
	{"select 10 / $1::int", 1},
	{"select generate_series(1, $1::int)", 1},
	{"select $1::eq.mood", 1},
	{"select set_config('extra_float_digits', $1, false)", 1},
	{"select eq.noisy($1)", 1},
}

func number16(n int) string { return string(binary.BigEndian.AppendUint16(nil, uint16(n))) }
func number32(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }

func parse(name, sql string, types ...int) message {
	body := name + "\x00" + sql + "\x00" + number16(len(types))
	for _, t := range types {
		body += number32(t)
	}
	return message{wire.Parse, body}
}

func target(typ, kind byte, name string) message { return message{typ, string(kind) + name + "\x00"} }

func execute(portal string, rows int) message {
	return message{wire.Execute, portal + "\x00" + number32(rows)}
}

// bind gives as many parameters as asked for, in any format, and asks for results
// in any format.
func (s *speaker) bind(portal, name string, params int) message {
	var formats, values strings.Builder
	for range params {
		switch s.IntN(8) {
		case 0:
			formats.WriteString(number16(1))
			values.WriteString(number32(4) + number32(s.IntN(9)))
		case 1:
			formats.WriteString(number16(0))
			values.WriteString(number32(-1))
		default:
			formats.WriteString(number16(0))
			v := pick(s, []string{"1", "2", "3", "7", "40", "0", "calm", "x", "5000"})
			values.WriteString(number32(len(v)) + v)
		}
	}
	body := portal + "\x00" + name + "\x00" + number16(params) + formats.String() + number16(params) + values.String()
	switch s.IntN(6) {
	case 0:
		body += number16(1) + number16(1) // all results in binary
	case 1:
		body += number16(2) + number16(0) + number16(1) // right if there are two columns
	default:
		body += number16(0)
	}
	return message{wire.Bind, body}
}

// run prepares and executes a text with parameters, named or not, described or not.
func (s *speaker) run(name, sql string, params *take) []message {
	n := 0
	if params != nil {
		n = params.params
	}
	var types []int
	if n > 0 && s.IntN(6) == 0 {
		types = []int{23}
	}
	portal := s.portal(name)
	m := []message{parse(name, sql, types...)}
	if s.IntN(4) == 0 {
		m = append(m, target(wire.Describe, 'S', name))
	}
	m = append(m, s.bind(portal, name, n))
	if s.IntN(2) == 0 {
		m = append(m, target(wire.Describe, 'P', portal))
	}
	m = append(m, execute(portal, pick(s, []int{0, 0, 0, 1, 3})))
	if s.IntN(6) == 0 {
		m = append(m, execute(portal, s.IntN(3)))
	}
	if s.IntN(8) == 0 {
		m = append(m, target(wire.Close, 'P', portal))
	}
	return m
}

// take chooses a text for a statement of that name.
func (s *speaker) take(name string) (string, *take) {
	switch {
	case s.IntN(2) == 0:
	case name == "":
		return s.any(), nil
	default:
		return s.text(statements), nil
	}
	t := pick(s, takes)
	return s.text([]string{t.sql}), &t
}

// extended is what drivers say: prepare, or execute what was prepared, then Sync.
func (s *speaker) extended() [][]message {
	name := pick(s, statementNames)
	sync := message{wire.Sync, ""}
	switch s.IntN(8) {
	case 0:
		sql, _ := s.take(name)
		steps := one(parse(name, sql), target(wire.Describe, 'S', name), sync)
		return append(steps, []message{s.bind("", name, s.IntN(3)), execute("", 0), sync})
	case 1, 2:
		portal := s.portal(name)
		return one(s.bind(portal, name, s.IntN(3)), execute(portal, s.IntN(3)), sync)
	case 3:
		sql, t := s.take(name)
		return one(append(append([]message{target(wire.Close, 'S', name)}, s.run(name, sql, t)...), sync)...)
	case 4: // the portal goes on in the next step, if there is a transaction
		portal := pick(s, portalNames)
		return one(execute(portal, s.IntN(3)), sync)
	default:
		sql, t := s.take(name)
		return one(append(s.run(name, sql, t), sync)...)
	}
}

// pipeline is any mixture, in one step or several, each ended by Flush or Sync.
func (s *speaker) pipeline() [][]message {
	var steps [][]message
	for {
		var m []message
		for range 1 + s.IntN(6) {
			name := pick(s, statementNames)
			portal := s.portal(name)
			switch s.IntN(12) {
			case 0:
				sql, _ := s.take(name)
				m = append(m, parse(name, sql))
			case 1:
				m = append(m, s.bind(portal, name, s.IntN(3)))
			case 2:
				m = append(m, target(wire.Describe, 'S', name))
			case 3:
				m = append(m, target(wire.Describe, 'P', portal))
			case 4:
				m = append(m, execute(pick(s, portalNames), s.IntN(3)))
			case 5:
				m = append(m, target(wire.Close, pick(s, []byte{'S', 'P'}), pick(s, []string{name, portal})))
			case 6:
				m = append(m, message{wire.Sync, ""})
			case 7:
				m = append(m, message{wire.Flush, ""})
			case 8:
				m = append(m, s.bind(portal, name, 0), execute(portal, s.IntN(3)))
			default:
				sql, t := s.take(name)
				m = append(m, s.run(name, sql, t)...)
			}
		}
		if s.IntN(3) > 0 {
			return append(steps, append(m, message{wire.Sync, ""}))
		}
		if s.IntN(8) == 0 { // a Query or a call ends no batch, but is a message as any other
			m = append(m, query(s.text(statements)))
			return append(steps, m)
		}
		steps = append(steps, append(m, message{wire.Flush, ""}))
	}
}

// copies is a COPY with its data in one step or several, whole or broken.
func (s *speaker) copies() [][]message {
	sql := s.text([]string{
		"copy s%N.u from stdin", "copy s%N.u(a) from stdin", "copy s%N.t from stdin", "copy s%N.u from stdin (format csv)",
		"copy s%N.u from stdin (format binary)", "copy s%N.nope from stdin",
	})
	row := func() string {
		return pick(s, []string{"11\tx\n", "12\ty\n", "13\n", "14,z\n", "1\tdouble\n", "2000\tmuch\n", "\\.\n", "a\tb\n", "15\t\\N\n", "", "16\tha"})
	}
	var data []message
	for range s.IntN(4) {
		data = append(data, message{wire.CopyData, row()})
	}
	end := message{wire.CopyDone, ""}
	if s.IntN(4) == 0 {
		end = message{wire.CopyFail, "changed my mind\x00"}
	}
	data = append(data, end)
	sync := message{wire.Sync, ""}
	switch s.IntN(5) {
	case 0:
		more := s.text(statements)
		return [][]message{{query(s.text(statements) + "; " + sql + "; " + more)}, data}
	case 1:
		return one(append([]message{query(sql)}, data...)...)
	case 2:
		begin := append(s.run(pick(s, statementNames), sql, nil), sync)
		return [][]message{begin, append(data, sync)}
	case 3:
		m := []message{parse("", sql), s.bind("", "", 0), execute("", 0)}
		return one(append(append(m, data...), sync)...)
	default:
		return [][]message{{query(sql)}, data}
	}
}

// functionCall calls by number, rightly or wrongly.
func (s *speaker) functionCall() [][]message {
	arg := func(text string) string { return number32(len(text)) + text }
	call := func(oid int, format int, args ...string) message {
		body := number32(oid) + number16(1) + number16(format) + number16(len(args))
		return message{wire.FunctionCall, body + strings.Join(args, "") + number16(format)}
	}
	return one(pick(s, []message{
		call(177, 0, arg("2"), arg("3")),                 // int4pl
		call(177, 1, arg(number32(2)), arg(number32(3))), // in binary
		call(154, 0, arg("1"), arg("0")),                 // int4div
		call(2311, 0, arg("abc")),                        // md5
		call(2311, 0, arg("abc"), arg("x")),              // too many
		call(177, 0, arg("2"), number32(-1)),             // strict, and null
		call(177, 0, arg("two"), arg("3")),
		call(0, 0),
		{wire.FunctionCall, number32(177) + number16(0)},
	}))
}

// malformed is what PostgreSQL answers with an error, or the end.
func (s *speaker) malformed() [][]message {
	sync := message{wire.Sync, ""}
	m := pick(s, []message{
		{wire.Query, "select 1"},
		{wire.Query, "select 1\x00select 2\x00"},
		{wire.Query, "select '\xff\xfe'\x00"},
		{wire.Query, ""},
		{wire.Parse, "a\x00select 1"},
		{wire.Parse, "a\x00select 1\x00\x00\x05"},
		{wire.Parse, "\x00select '\xc3'\x00\x00\x00"},
		{wire.Parse, "\x00select 1; select 2\x00\x00\x00"},
		{wire.Parse, "\x00select 1\x00\x00\x00more"},
		{wire.Bind, "\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
		{wire.Bind, "\x00\x00\x00\x00\x00\x01\xff\xff\xff\xf0\x00\x00"},
		{wire.Bind, "\x00\x00\x00\x01\x00\x07\x00\x01\x00\x00\x00\x011\x00\x00"},
		{wire.Bind, "\x00a"},
		{wire.Describe, "X\x00"},
		{wire.Describe, "S"},
		{wire.Describe, ""},
		{wire.Close, "X\x00"},
		{wire.Close, "Pa\x00b"},
		{wire.Execute, "\x00"},
		{wire.Execute, "nope\x00\x00\x00\x00\x00"},
		{wire.Sync, "x"},
		{wire.Flush, "x"},
		{'?', ""},
		{'p', "secret\x00"},
	})
	switch m.typ {
	case wire.Query, wire.Sync, '?', 'p':
		return one(m)
	}
	return one(m, sync)
}
