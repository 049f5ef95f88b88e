package session_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// turn is one entry of a conversation: it is sent in one write, and then everything
// up to ReadyForQuery (or the message named) is read.
type turn struct {
	send  []pgproto3.FrontendMessage
	raw   []byte        // sent behind send, as it is
	until string        // ReadyForQuery if empty
	pause time.Duration // if not 0, nothing is read, and the next turn is this much later
}

func query(sql string) turn {
	return turn{send: []pgproto3.FrontendMessage{&pgproto3.Query{String: sql}}}
}

func flight(messages ...pgproto3.FrontendMessage) turn { return turn{send: messages} }

// octets is a turn whose bytes need not be whole messages.
func octets(parts ...[]byte) turn { return turn{raw: slices.Concat(parts...)} }

func (t turn) till(kind string) turn {
	t.until = kind
	return t
}

// unheard is the turn without waiting for an answer, but for d.
func (t turn) unheard(d time.Duration) turn {
	t.pause = d
	return t
}

func (t turn) bytes() []byte { return append(encoded(t.send...), t.raw...) }

// encoded returns the messages as they are sent.
func encoded(messages ...pgproto3.FrontendMessage) (b []byte) {
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			panic(err) // longer than any message may be
		}
	}
	return b
}

var (
	sync     = &pgproto3.Sync{}
	flushMsg = &pgproto3.Flush{}
)

func parse(name, sql string) *pgproto3.Parse { return &pgproto3.Parse{Name: name, Query: sql} }

func bind(portal, name string, params ...string) *pgproto3.Bind {
	b := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: name}
	for _, p := range params {
		b.Parameters = append(b.Parameters, []byte(p))
	}
	return b
}

func execute(portal string, rows uint32) *pgproto3.Execute {
	return &pgproto3.Execute{Portal: portal, MaxRows: rows}
}

func describe_(kind byte, name string) *pgproto3.Describe {
	return &pgproto3.Describe{ObjectType: kind, Name: name}
}

func close_(kind byte, name string) *pgproto3.Close {
	return &pgproto3.Close{ObjectType: kind, Name: name}
}

// conversations are held once with the leader itself and once with the proxy;
// what the client sees has to be the same. The server is the oracle.
var conversations = map[string][]turn{
	"simple": {
		query("select 1"), query("select 1; select 2"), query(""), query(";;"), query("select 1/0"),
		query("selec 1"), query("select 1; select 1/0; select 2"), query("set datestyle = 'German'; show datestyle"),
	},
	"transaction": {
		query("begin"), query("select 1"), query("select 1/0"), query("select 1"), query("rollback"),
		query("begin"), query("savepoint a"), query("select 1/0"), query("rollback to a"), query("select 2"), query("commit"),
		query("commit"), query("rollback"), query("begin"), query("begin"), query("commit and chain"), query("rollback"),
		query("begin read only"), query("select 1"), query("create table never(i int)"), query("rollback"),
		query("begin isolation level serializable"), query("select 1"), query("commit"),
		query("begin; select 1"), query("select 2"), query("end"),
	},
	"unnamed statement lives on": {
		flight(parse("", "select $1::int + 1"), sync), flight(bind("", "", "1"), execute("", 0), sync),
		flight(bind("", "", "2"), execute("", 0), sync), flight(describe_('S', ""), sync),
		query("select 1"), flight(bind("", "", "3"), execute("", 0), sync),
		flight(parse("", "select nonsense from nowhere"), sync), flight(bind("", "", "3"), execute("", 0), sync),
	},
	"unnamed statement is not replaced by what is skipped or cannot be read": {
		query("begin"), flight(parse("", "select $1::int + 1"), sync), flight(execute("r", 0), parse("", "select 2"), sync),
		flight(bind("", ""), execute("", 0), sync), query("rollback"),
		flight(parse("", "select $1::int + 1"), sync), query("select '\xff'"), flight(parse("", "select '\xff'"), sync),
		flight(bind("", "", "1"), execute("", 0), sync),
	},
	"named statements": {
		flight(parse("a", "select $1::int"), describe_('S', "a"), sync),
		flight(parse("a", "select 2"), sync), flight(parse("a", "select nonsense"), sync),
		flight(bind("", "a", "5"), describe_('P', ""), execute("", 0), sync),
		flight(bind("", "missing"), execute("", 0), sync),
		flight(bind("", "a"), execute("", 0), sync),
		flight(close_('S', "a"), sync), flight(bind("", "a", "5"), sync), flight(describe_('S', "a"), sync),
		flight(close_('S', "a"), close_('S', "b"), close_('P', "c"), sync),
		flight(parse("a", "select 'again'"), bind("", "a"), execute("", 0), close_('S', "a"), sync),
		flight(parse("bad", "select * from nowhere"), sync), flight(bind("", "bad"), sync),
		flight(parse("bad", "select 1"), bind("", "bad"), execute("", 0), sync),
	},
	"pipeline": {
		flight(parse("", "select 1"), bind("", ""), execute("", 0), parse("", "select 2"), bind("", ""), execute("", 0), sync),
		flight(parse("x", "select 1"), bind("", "x"), execute("", 0), parse("y", "select 1/0"), bind("", "y"), execute("", 0),
			parse("z", "select 3"), bind("", "z"), execute("", 0), sync),
		flight(bind("", "x"), execute("", 0), sync), flight(bind("", "y"), sync), flight(bind("", "z"), sync),
		flight(parse("y", "select 4"), bind("", "y"), execute("", 0), sync),
		flight(sync), flight(flushMsg, sync),
		flight(parse("p", "select generate_series(1, 5)"), bind("c", "p"), execute("c", 2), execute("c", 2), execute("c", 2), sync),
		flight(bind("c", "p"), execute("c", 2), sync), flight(execute("c", 2), sync),
		query("begin"), flight(bind("c", "p"), execute("c", 2), sync), flight(execute("c", 2), sync),
		flight(close_('P', "c"), execute("c", 0), sync), query("rollback"),
	},
	"flush": {
		flight(parse("f", "select $1::int"), describe_('S', "f"), flushMsg).till("RowDescription"),
		flight(bind("", "f", "1"), execute("", 0), flushMsg).till("CommandComplete"),
		flight(bind("", "f", "x"), execute("", 0), flushMsg).till("ErrorResponse"),
		flight(bind("", "f", "2"), execute("", 0), sync),
		flight(parse("f", "select 2"), flushMsg).till("ErrorResponse"), flight(sync),
		flight(bind("", "f", "2"), execute("", 0), sync),
		flight(parse("g", "insert into nowhere values (1)"), flushMsg).till("ErrorResponse"), flight(sync),
	},
	"query behind a pipeline": {
		flight(parse("", "select 1"), bind("", ""), execute("", 0), &pgproto3.Query{String: "select 2"}),
		flight(parse("", "select 1"), bind("", "", "x"), &pgproto3.Query{String: "select 3"}).till("ErrorResponse"),
		flight(sync), query("select 4"),
	},
	"malformed": {
		octets([]byte("H\x00\x00\x00\x05x"), encoded(sync)), octets([]byte("S\x00\x00\x00\x05x")), query("select 1"),
	},
	"copy in": {
		query("drop table if exists copied"), query("create table copied(a int, b text)"),
		query("copy copied from stdin").till("CopyInResponse"),
		flight(&pgproto3.CopyData{Data: []byte("1\tone\n2\ttwo\n")}, &pgproto3.CopyData{Data: []byte("3\tthree\n")}, &pgproto3.CopyDone{}),
		query("select count(*) from copied"),
		query("copy copied from stdin").till("CopyInResponse"),
		flight(&pgproto3.CopyData{Data: []byte("4\tfour\n")}, &pgproto3.CopyFail{Message: "changed my mind"}),
		query("copy copied from stdin").till("CopyInResponse"),
		flight(&pgproto3.CopyData{Data: []byte("not a number\n")}, &pgproto3.CopyDone{}),
		query("select count(*) from copied"),
		flight(parse("", "copy copied from stdin"), bind("", ""), execute("", 0), sync).till("CopyInResponse"),
		flight(&pgproto3.CopyData{Data: []byte("5\tfive\n")}, &pgproto3.CopyDone{}, sync),
		flight(parse("", "copy copied from stdin"), bind("", ""), execute("", 0), sync).till("CopyInResponse"),
		flight(&pgproto3.CopyData{Data: []byte("oops\n")}, &pgproto3.CopyDone{}, sync),
		query("select * from copied order by a"),
		query("copy copied to stdout"), query("copy (select 1/0) to stdout"),
		flight(parse("", "copy copied to stdout"), bind("", ""), execute("", 0), sync),
		flight(parse("", "copy copied from stdin"), bind("", ""), execute("", 0), &pgproto3.CopyData{Data: []byte("7\tseven\n")}, &pgproto3.CopyDone{}, sync),
		flight(parse("", "copy copied from stdin"), bind("", ""), execute("", 0), &pgproto3.CopyData{Data: []byte("oops\n")}, &pgproto3.CopyDone{}, sync),
		flight(parse("", "copy copied from stdin"), bind("", ""), execute("", 0), &pgproto3.CopyFail{Message: "no"}, sync),
		flight(parse("", "copy nowhere from stdin"), bind("", ""), execute("", 0), &pgproto3.CopyData{Data: []byte("8\teight\n")}, &pgproto3.CopyDone{}, sync),
		flight(parse("", "select 1"), bind("", ""), execute("", 0), &pgproto3.CopyData{Data: []byte("stray")}, &pgproto3.CopyDone{}, execute("", 0), sync),
		query("copy copied from stdin; select count(*) from copied").till("CopyInResponse"),
		flight(&pgproto3.CopyData{Data: []byte("6\tsix\n")}, &pgproto3.CopyDone{}),
		query("drop table copied"),
	},
	"statements closed by SQL": {
		flight(parse("d", "select 1"), sync), query("deallocate all"), flight(bind("", "d"), execute("", 0), sync),
		flight(parse("d", "select 2"), bind("", "d"), execute("", 0), sync), query("discard all"),
		flight(bind("", "d"), execute("", 0), sync),
	},
	"writes": {
		query("drop table if exists written"), query("create table written(i int primary key)"),
		query("insert into written values (1)"), query("insert into written values (1)"),
		query("insert into written values (2) returning i"), query("with x as (delete from written returning i) select * from x order by i"),
		flight(parse("w", "insert into written values ($1)"), bind("", "w", "7"), execute("", 0), sync),
		flight(bind("", "w", "7"), execute("", 0), sync), flight(bind("", "w", "8"), execute("", 0), bind("", "w", "9"), execute("", 0), sync),
		query("select count(*) from written"), query("vacuum written"),
		query("begin"), query("insert into written values (20)"), query("rollback"), query("select count(*) from written"),
		query("drop table written"),
	},
	"function call": {
		flight(&pgproto3.FunctionCall{Function: 1598, ArgFormatCodes: nil, Arguments: nil, ResultFormatCode: 1}).till("ReadyForQuery"),
		flight(&pgproto3.FunctionCall{Function: 0, ResultFormatCode: 0}),
	},
	"large": {
		query("select repeat('x', 3000000)"), query("select repeat('x', 100000) from generate_series(1, 20)"),
		flight(parse("", "select length($1::text)"), bind("", "", strings.Repeat("y", 5<<20)), execute("", 0), sync),
		flight(parse("l", "select length($1::text)"), sync), flight(bind("", "l", strings.Repeat("y", 300<<10)), execute("", 0), sync),
		query("select length('" + strings.Repeat("z", 1<<20) + "')"),
		query("select length('" + strings.Repeat("z", 6<<20) + "')"),
		flight(parse("", "select length('"+strings.Repeat("z", 5<<20)+"')"), bind("", ""), execute("", 0), sync),
		query("select 1"),
	},
	"wide": {
		query("select " + strings.TrimSuffix(strings.Repeat("1 as a_rather_long_column_name_for_the_description,", 1500), ",")),
	},
}

// say takes one turn and returns what is answered, one line a message.
func (r *raw) say(t turn) []string {
	r.t.Helper()
	b, before, sent := t.bytes(), r.sent, make(chan struct{})
	r.sent = sent
	go func() { // the other end may have to be read meanwhile; ends with the connection at the latest
		defer close(sent)
		if before != nil {
			<-before
		}
		_, _ = r.conn.Write(b)
	}()
	if t.pause > 0 {
		time.Sleep(t.pause)
		return nil
	}
	if t.until == "" {
		return r.untilReady()
	}
	return r.until(t.until)
}

// hold holds a conversation and returns all that is answered.
func (r *raw) hold(turns []turn) []string {
	r.t.Helper()
	var lines []string
	for i, turn := range turns {
		for _, line := range r.say(turn) {
			lines = append(lines, fmt.Sprintf("%d %s", i, line))
		}
	}
	return lines
}

func TestSameAsDirect(t *testing.T) { sameAsDirect(t, conversations) }

// sameAsDirect holds the conversations with the leader and with a proxy that has
// many connections, and with one that has one.
func sameAsDirect(t *testing.T, conversations map[string][]turn) {
	for _, one := range []bool{false, true} {
		p := startProxy(t, shared.cluster, func(s *settings) {
			s.session.Statements = 3 // so that statements are evicted all the time
			if one {
				s.pool.Size = 1
			}
		})
		p.awaitFollowers(t, 2)
		for name, turns := range conversations {
			t.Run(fmt.Sprintf("%s/one=%v", name, one), func(t *testing.T) {
				want := dialRaw(t, shared.cluster.Nodes()[0].Addr(), nil).hold(turns)
				got := p.dialRaw(t, nil).hold(turns)
				for i := range max(len(got), len(want)) {
					if a, b := at(got, i), at(want, i); a != b {
						t.Fatalf("line %d:\nproxy  %.300s\ndirect %.300s", i, a, b)
					}
				}
			})
		}
		if n := p.server.Stat().Panics; n > 0 {
			t.Errorf("%d panics", n)
		}
	}
}

// TestSameAsDirectByteByByte sends everything one byte at a time.
func TestSameAsDirectByteByByte(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	for _, name := range []string{"named statements", "pipeline", "copy in"} {
		var want bytes.Buffer
		for _, line := range dialRaw(t, shared.cluster.Nodes()[0].Addr(), nil).hold(conversations[name]) {
			want.WriteString(line + "\n")
		}
		r := p.dialRaw(t, nil)
		var got bytes.Buffer
		for i, turn := range conversations[name] {
			b := turn.bytes()
			for j := range b {
				if _, err := r.conn.Write(b[j : j+1]); err != nil {
					t.Fatal(err)
				}
				if j%16 == 0 {
					time.Sleep(20 * time.Microsecond)
				}
			}
			until := turn.until
			if until == "" {
				until = "ReadyForQuery"
			}
			for _, line := range r.until(until) {
				fmt.Fprintf(&got, "%d %s\n", i, line)
			}
		}
		if got.String() != want.String() {
			t.Errorf("%s:\nproxy\n%s\ndirect\n%s", name, got.String(), want.String())
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}
