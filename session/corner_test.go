package session_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// corners are conversations that break off, pipeline and fail where it hurts
// most. They are held as those of equivalence_test.go are.
var corners = map[string][]turn{
	"parse of a known text, flush": {
		flight(parse("e1", "select 11"), sync),
		flight(parse("e2", "select 11"), flushMsg).till("ParseComplete"), flight(sync),
		query("begin"), flight(bind("", "e1"), sync),
		flight(parse("e3", "select 11"), flushMsg).till("ParseComplete"), flight(sync), query("commit"),
	},
	"parse of a known text in a failed transaction": {
		flight(parse("f1", "select 12"), sync),
		query("begin"), flight(bind("", "f1"), execute("", 0), sync), query("select 1/0"),
		flight(parse("f2", "select 12"), sync), query("rollback"), flight(parse("f2", "select 12"), sync),
	},
	"query behind a failed parse": {
		flight(parse("", "selec 1"), &pgproto3.Query{String: "select 2"}).till("ErrorResponse"), flight(sync), query("select 1"),
	},
	"error and function result that are large": {
		query("select repeat('x', 5000000)::int"), query("select 1"),
		query("begin"),
		flight(&pgproto3.FunctionCall{Function: 1621, ArgFormatCodes: []uint16{0}, Arguments: [][]byte{[]byte("x")}}),
		query("select 1"), query("rollback"),
	},
	"prepare again after a column was added": {
		query("create table h(a int)"),
		query("begin"), flight(parse("h1", "select * from h"), bind("", "h1"), describe_('P', ""), execute("", 0), sync), query("commit"),
		query("alter table h add b int"), flight(close_('S', "h1"), sync),
		query("begin"), flight(parse("h2", "select * from h"), bind("", "h2"), describe_('P', ""), execute("", 0), sync), query("rollback"),
		flight(close_('S', "h2"), sync),
		query("begin"), flight(parse("h2", "select * from h"), bind("", "h2"), describe_('P', ""), execute("", 0), sync), query("rollback"),
		query("drop table h"),
	},
	"prepare again after the table was dropped": {
		query("create table h(a int)"),
		query("begin"), flight(parse("h1", "select * from h"), sync), query("commit"),
		flight(close_('S', "h1"), sync), query("drop table h"),
		query("begin"), flight(parse("h1", "select * from h"), sync), query("rollback"),
	},
	"deallocate all among others": {
		flight(parse("i1", "select 13"), sync), query("deallocate all; select 1"), flight(bind("", "i1"), execute("", 0), sync),
	},
	"rollback after an error": {
		query("begin"), flight(parse("", "select 1/0"), bind("", ""), execute("", 0), sync),
		flight(parse("j", "rollback"), bind("", "j"), execute("", 0), sync),
		query("begin"), query("select 1/0"), flight(bind("", "j"), execute("", 0), sync),
		query("begin"), query("savepoint a"), query("select 1/0"),
		flight(parse("j2", "rollback to a"), sync), flight(bind("", "j2"), execute("", 0), sync), query("select 1"), query("commit"),
		query("begin"), query("create table never(i int)"), query("selec"), query("commit"),
	},
	"malformed messages": {
		octets([]byte{'B', 0, 0, 0, 5, 'x'}, encoded(sync)), query("select 1"),
		octets([]byte{'D', 0, 0, 0, 6, 'Z', 0}, encoded(sync)), query("select 1"),
		octets([]byte{'Q', 0, 0, 0, 15}, []byte("select 1\x00xx")), query("select 1"),
		octets(encoded(parse("s4", "select 1")), []byte{'B', 0, 0, 0, 16, 0, 's', '4', 0, 0, 0, 0, 0, 0, 0, 9, 9}, encoded(execute("", 0), sync)),
		query("select 1"), flight(parse("s5", "select 1"), sync),
		octets([]byte{'C', 0, 0, 0, 10, 'S', 's', '5', 0, 9, 9}, encoded(sync)), flight(bind("", "s5"), execute("", 0), sync),
		octets([]byte{'D', 0, 0, 0, 10, 'S', 's', '5', 0, 9, 9}, encoded(sync)),
	},
	"implicit transaction whose second statement fails": {
		query("create table tt(i int primary key)"),
		flight(parse("t1", "insert into tt values ($1)"), bind("", "t1", "1"), execute("", 0), bind("", "t1", "1"), execute("", 0), sync),
		query("select count(*) from tt"), query("drop table tt"),
	},
	"begin and commit in one batch": {
		query("create table u(i int primary key)"),
		flight(slices.Concat(inOne("begin"), inOne("insert into u values (1)"), inOne("commit"), []pgproto3.FrontendMessage{sync})...),
		flight(slices.Concat(inOne("begin"), inOne("insert into u values (1)"), inOne("commit"), []pgproto3.FrontendMessage{sync})...),
		query("select 1"), query("rollback"), query("select count(*) from u"), query("drop table u"),
	},
	"more statements in a batch than a connection keeps": {
		flight(parse("a1", "select 21"), parse("a2", "select 22"), parse("a3", "select 23"), parse("a4", "select 24"), parse("a5", "select 25"),
			bind("", "a1"), execute("", 0), bind("", "a5"), execute("", 0), bind("", "a2"), execute("", 0), describe_('S', "a3"), sync),
		flight(bind("", "a4"), execute("", 0), parse("bad", "selec"), bind("", "a1"), sync),
		flight(bind("", "a1"), execute("", 0), bind("", "a2"), execute("", 0), bind("", "a3"), execute("", 0),
			bind("", "a4"), execute("", 0), bind("", "a5"), execute("", 0), sync),
	},
	"close in a failed batch, and a name taken again": {
		flight(parse("w", "select 31"), sync),
		flight(parse("", "selec"), close_('S', "w"), parse("w", "select 32"), sync), flight(bind("", "w"), execute("", 0), sync),
		flight(close_('S', "w"), parse("w", "select 33"), bind("", "w"), execute("", 0), close_('S', "w"), parse("w", "select 34"), bind("", "w"), execute("", 0), sync),
		flight(bind("", "w"), execute("", 0), parse("w", "select 35"), sync), flight(bind("", "w"), execute("", 0), sync),
		flight(parse("z", "select 1"), sync), flight(close_('S', "z"), flushMsg).till("CloseComplete"), flight(sync),
		flight(bind("", "z"), flushMsg).till("ErrorResponse"), flight(sync),
	},
	"unnamed statement and errors": {
		flight(parse("", "select 40"), sync), flight(execute("none", 0), parse("", "set work_mem = '5MB'"), sync), flight(bind("", ""), execute("", 0), sync),
		flight(parse("", "select 41"), sync), flight(parse("", "selec"), sync), flight(bind("", ""), execute("", 0), sync),
		flight(parse("", "select 42"), sync), flight(parse("x", "selec"), parse("", "select 43"), sync), flight(bind("", ""), execute("", 0), sync),
		flight(parse("", "select 44"), close_('S', ""), sync), flight(bind("", ""), execute("", 0), sync),
		flight(parse("", "select 45"), sync), flight(close_('S', ""), sync), flight(bind("", ""), execute("", 0), sync),
		flight(parse("", "select 46"), sync), query("begin"), query("rollback"), flight(bind("", ""), execute("", 0), sync),
		flight(parse("", "select 47"), sync), query("selec"), flight(bind("", ""), execute("", 0), sync),
		query("begin"), flight(parse("", "select 48"), sync), query("selec"), flight(parse("", "select 49"), sync), query("rollback"),
		flight(bind("", ""), execute("", 0), sync),
	},
	"portal, flush by flush": {
		query("begin"),
		flight(parse("", "select generate_series(1,5)"), bind("p", ""), execute("p", 2), flushMsg).till("PortalSuspended"),
		flight(execute("p", 2), flushMsg).till("PortalSuspended"), flight(execute("p", 2), flushMsg).till("CommandComplete"),
		flight(close_('P', "p"), flushMsg).till("CloseComplete"), flight(sync), query("commit"),
	},
}

// inOne is a statement's whole life in the extended protocol, but the Sync.
func inOne(sql string) []pgproto3.FrontendMessage {
	return []pgproto3.FrontendMessage{parse("", sql), bind("", ""), execute("", 0)}
}

// longCorners are those whose messages are longer than is read before they are
// sent on, or that break off within one.
var longCorners = map[string][]turn{
	"copy fails while a CopyData is half sent": func() []turn {
		// In the half that comes late lies what would create a table if it were read.
		pad := strings.Repeat("7\tx\n", 25000)
		half := encoded(&pgproto3.CopyData{Data: []byte(pad + string(encoded(&pgproto3.Query{String: "create table evil(i int)"})) + pad)})
		return []turn{
			query("create table ca(a int, b text)"), query("copy ca from stdin").till("CopyInResponse"),
			octets(encoded(&pgproto3.CopyData{Data: []byte("bad\tx\nbad\tx\n")}), half[:90000]),
			octets(half[90000:], encoded(&pgproto3.CopyDone{})).unheard(50 * time.Millisecond),
			query("select count(*) from ca"), query("select to_regclass('evil') is null"),
			query("copy ca from stdin").till("CopyInResponse"),
			octets(encoded(&pgproto3.CopyData{Data: []byte("bad\tx\nbad\tx\n")}), half[:90000]).unheard(100 * time.Millisecond),
			octets(half[90000:], encoded(&pgproto3.CopyDone{})),
			query("select count(*) from ca"), query("select to_regclass('evil') is null"), query("drop table ca"),
		}
	}(),
	"copy fails and a long CopyData follows": {
		query("create table cb(a int, b text)"), query("copy cb from stdin").till("CopyInResponse"),
		flight(&pgproto3.CopyData{Data: []byte("bad\tx\n")}),
		flight(&pgproto3.CopyData{Data: []byte(strings.Repeat("7\tx\n", 100000))}, &pgproto3.CopyDone{}).unheard(50 * time.Millisecond),
		query("select count(*) from cb"), query("drop table cb"),
	},
	"extended copy fails and the rest follows": {
		query("create table o(a int)"),
		flight(parse("", "copy o from stdin"), bind("", ""), execute("", 0), sync).till("CopyInResponse"),
		flight(&pgproto3.CopyData{Data: []byte("bad\nbad\n")}).till("ErrorResponse"),
		flight(&pgproto3.CopyData{Data: []byte(strings.Repeat("1\n", 200000))}, &pgproto3.CopyDone{}, sync),
		query("select count(*) from o"), query("drop table o"),
	},
	"copy, flush by flush": {
		query("create table o(a int)"),
		flight(parse("", "copy o from stdin"), bind("", ""), execute("", 0), flushMsg).till("CopyInResponse"),
		flight(&pgproto3.CopyData{Data: []byte("1\n")}, &pgproto3.CopyDone{}, flushMsg).till("CommandComplete"),
		flight(parse("", "select count(*) from o"), bind("", ""), execute("", 0), sync),
		flight(parse("", "copy (select generate_series(1,3)) to stdout"), bind("", ""), execute("", 0), flushMsg).till("CommandComplete"),
		flight(sync), query("drop table o"),
	},
	"sync and flush among a copy's data": {
		query("create table n(a int)"),
		flight(&pgproto3.Query{String: "copy n from stdin"}, sync, &pgproto3.CopyData{Data: []byte("1\n")}, flushMsg, &pgproto3.CopyDone{}),
		query("select count(*) from n"), query("drop table n"),
	},
	"long Bind after an error in the batch": {
		flight(parse("", "select nonsense"), flushMsg).till("ErrorResponse"),
		flight(bind("", "", strings.Repeat("y", 300<<10)), execute("", 0), sync), query("select 1"),
	},
	"long Binds of which the first fails": {
		query("create table cc(a text check (length(a) < 10))"), flight(parse("ins", "insert into cc values ($1)"), sync),
		flight(bind("", "ins", strings.Repeat("y", 300<<10)), execute("", 0), bind("", "ins", strings.Repeat("y", 300<<10)), execute("", 0),
			bind("", "ins", "a"), execute("", 0), sync),
		query("select count(*) from cc"), query("drop table cc"),
	},
	"long Bind whose header comes first": func() []turn {
		b := encoded(bind("", "", strings.Repeat("y", 300<<10)), execute("", 0), sync)
		return []turn{
			octets(encoded(parse("", "select length($1::text)")), b[:5]).unheard(100 * time.Millisecond),
			octets(b[5:]), query("select 1"),
		}
	}(),
}

// TestSameAsDirectInCorners is promise 7 where it is hardest to keep.
func TestSameAsDirectInCorners(t *testing.T) {
	sameAsDirect(t, corners)
	sameAsDirect(t, longCorners)
}
