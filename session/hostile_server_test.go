package session_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/wire"
)

// betrayed is a proxy whose servers say anything on the connections of one login,
// the victim's, and a session of another client beside it.
type betrayed struct {
	hostile
	plan atomic.Pointer[lie]
	lies int // so far
}

// lie is what servers say to the victim's connections, and when.
type lie struct {
	at    int32 // the message, of all on these connections, that it is told with
	where byte  // in front of that, in its place, or behind it
	then  byte  // the connection is closed, or goes on
	text  []byte
	more  func(b []byte, i int) []byte // what follows text, without an end
	heard atomic.Int32
	told  atomic.Bool
}

// victim begins the application_name of clients that servers lie to. Each has one
// of its own, so that it does not share connections with those before it.
const victim = "hostile_victim"

var errOver = errors.New("the connection ends here")

func startBetrayed(t testing.TB) *betrayed {
	b := &betrayed{}
	spoil := func(opening []byte) pgtest.Meddler {
		plan := b.plan.Load()
		if plan == nil || !bytes.Contains(opening, []byte(victim)) {
			return nil
		}
		return plan.tell
	}
	b.proxy = startProxy(t, nil, func(s *settings) {
		s.silence()
		s.pool.Size = 4
		s.pool.Connect = time.Second
		s.session.LeaderWait = time.Second
		for _, n := range shared.cluster.Nodes() {
			s.addresses = append(s.addresses, pgtest.NewSpoiler(t, n.Addr(), spoil).Addr())
		}
	})
	b.awaitFollowers(t, 2)
	b.bystander = b.dialRaw(t, nil)
	return b
}

// tell passes on one of the server's messages, or lies.
func (l *lie) tell(proxy io.Writer, msg []byte) (spoilt bool, err error) {
	if l.heard.Add(1)-1 != l.at {
		_, err = proxy.Write(msg)
		return false, err
	}
	l.told.Store(true)
	switch l.where % 3 {
	case 0:
		msg = slices.Concat(l.text, msg)
	case 1:
		msg = l.text
	case 2:
		if _, err := proxy.Write(msg); err != nil {
			return true, err
		}
		time.Sleep(time.Millisecond) // so that the proxy is through with that
		msg = l.text
	}
	_, err = proxy.Write(msg)
	var much []byte
	for sent, i := 0, 0; err == nil && l.more != nil && sent < flood; sent += len(much) {
		for much = much[:0]; len(much) < 32<<10; i++ {
			much = l.more(much, i)
		}
		_, err = proxy.Write(much)
	}
	if err == nil && l.then%2 == 0 {
		err = errOver
	}
	return true, err
}

// flood is how much a server says that does not stop: more than what the proxy, and
// the test in the same process, make and drop meanwhile.
const flood = 60 << 20

// ordinary is what the victim says: something of everything.
func ordinary() []turn {
	return []turn{
		query("select 1"),
		query("set lock_timeout = 815"),
		flight(parse("s", "select $1::int + g from generate_series(1, 4) g"), describe_('S', "s"), bind("", "s", "2"), execute("", 2), execute("", 0), sync),
		query("begin"), query("insert into hostile_server values (1)"), query("savepoint a"), query("select 1/0"), query("rollback to a"), query("commit"),
		flight(parse("", "insert into hostile_server values (2)"), bind("", ""), execute("", 0), sync),
		query("copy hostile_server from stdin"),
		octets(encoded(&pgproto3.CopyData{Data: []byte("3\n")}, &pgproto3.CopyDone{})),
		query("copy hostile_server to stdout"),
		query("begin isolation level repeatable read read only; select * from hostile_server"), query("commit"),
		query("listen hostile_server"), query("notify hostile_server, 'a'"), query("unlisten *"),
		query("prepare p as select 1"), query("execute p"), query("deallocate all"),
		flight(&pgproto3.FunctionCall{Function: 1598}),
		query("select * from hostile_server"),
		query("show lsnproxy.node"),
	}
}

// suffer has the victim log in and speak while its servers lie. Whatever they say,
// the victim is answered or dropped, nothing panics, the other session is served,
// and nobody gets a connection that was lied on.
func (b *betrayed) suffer(t testing.TB, l *lie) {
	t.Helper()
	b.plan.Store(l)
	name := victim + strconv.Itoa(b.lies)
	b.lies++
	b.converse(t, name, l)
	b.plan.Store(nil)
	l.heard.Add(1 << 20) // the time for it is over
	b.bystander.t = t    // the fuzzer has one for each lie
	b.bystander.expect(query("select 1"), "RowDescription", "DataRow 1", "CommandComplete SELECT 1", "ReadyForQuery I")
	eventually(t, "the victim's session to end", func() bool { return b.server.Stat().Connected == 1 })
	if st := b.server.Stat(); st.Panics > 0 {
		t.Fatalf("panic by %q at %d, %d, %d", l.text, l.at, l.where, l.then)
	}
	after := b.dialRaw(t, map[string]string{"application_name": name})
	after.expect(query("select 2"), "RowDescription", "DataRow 2", "CommandComplete SELECT 1", "ReadyForQuery I")
	after.expect(query("begin"), "CommandComplete BEGIN", "ReadyForQuery T")
	after.expect(query("rollback"), "CommandComplete ROLLBACK", "ReadyForQuery I")
	_ = after.conn.Close()
	eventually(t, "all connections to be at rest", func() bool {
		for _, s := range b.pool.Stat() {
			if s.Open != s.Idle {
				return false
			}
		}
		return true
	})
}

// converse says what the victim says, up to the end or what it cannot understand.
func (b *betrayed) converse(t testing.TB, name string, l *lie) {
	t.Helper()
	conn, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	heard := bufio.NewReaderSize(patient{conn}, 64<<10)
	startup := &pgproto3.StartupMessage{
		ProtocolVersion: pgproto3.ProtocolVersion30,
		Parameters:      map[string]string{"user": "postgres", "database": "postgres", "application_name": name},
	}
	said, copies := encoded(startup), false
	for i, turn := range append([]turn{{}}, ordinary()...) {
		if i > 0 {
			said = turn.bytes()
		}
		if turn.raw != nil && !copies { // it would not be heard
			continue
		}
		if _, err := conn.Write(said); err != nil {
			return
		}
		if copies, err = hearReady(heard); err != nil {
			if isTimeout(err) {
				t.Fatalf("turn %d is neither answered nor dropped after %q at %d, %d, %d", i, l.text, l.at, l.where, l.then)
			}
			return
		}
	}
}

// patient reads for as long as something comes.
type patient struct{ net.Conn }

func (p patient) Read(b []byte) (int, error) {
	_ = p.SetReadDeadline(time.Now().Add(20 * time.Second))
	return p.Conn.Read(b)
}

var errGarbage = errors.New("not understood")

// hearReady reads to ReadyForQuery, or to what begins a copy.
func hearReady(conn io.Reader) (copies bool, err error) {
	head := make([]byte, wire.HeaderLen)
	for {
		if _, err := io.ReadFull(conn, head); err != nil {
			return false, err
		}
		size := binary.BigEndian.Uint32(head[1:])
		if size < 4 {
			return false, errGarbage
		}
		if _, err := io.CopyN(io.Discard, conn, int64(size)-4); err != nil {
			return false, err
		}
		if head[0] == wire.ReadyForQuery || head[0] == wire.CopyInResponse {
			return head[0] == wire.CopyInResponse, nil
		}
	}
}

// lies are what a server must not say, or not then.
func lies() [][]byte {
	all := [][]byte{
		nil,
		[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		make([]byte, 64),
		bytes.Repeat([]byte{0xff}, 64),
	}
	for _, typ := range "ZDTECS1232nsKRNAvGHWVdcI\x00\xff" { // a length that cannot be, one that is never reached, no body
		for _, size := range []uint32{0, 3, 4, 5, 6, 1 << 20, 1<<30 - 1, 1 << 31, 0xffffffff} {
			all = append(all, binary.BigEndian.AppendUint32([]byte{byte(typ)}, size))
		}
	}
	for _, m := range []pgproto3.BackendMessage{
		&pgproto3.ReadyForQuery{TxStatus: 'I'}, &pgproto3.ReadyForQuery{TxStatus: 'T'}, &pgproto3.ReadyForQuery{TxStatus: 'E'}, &pgproto3.ReadyForQuery{TxStatus: 'x'},
		&pgproto3.ParseComplete{}, &pgproto3.BindComplete{}, &pgproto3.CloseComplete{}, &pgproto3.NoData{}, &pgproto3.PortalSuspended{},
		&pgproto3.EmptyQueryResponse{}, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, &pgproto3.CommandComplete{},
		&pgproto3.RowDescription{}, &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("x")}}}, &pgproto3.ParameterDescription{},
		&pgproto3.DataRow{}, &pgproto3.DataRow{Values: [][]byte{nil}}, &pgproto3.DataRow{Values: [][]byte{[]byte("1")}}, &pgproto3.DataRow{Values: make([][]byte, 1000)},
		&pgproto3.CopyInResponse{}, &pgproto3.CopyOutResponse{}, &pgproto3.CopyBothResponse{}, &pgproto3.CopyData{Data: []byte("x")}, &pgproto3.CopyDone{},
		&pgproto3.FunctionCallResponse{}, &pgproto3.FunctionCallResponse{Result: []byte{1}}, &pgproto3.FunctionCallResponse{Result: make([]byte, 8)},
		&pgproto3.AuthenticationOk{}, &pgproto3.AuthenticationCleartextPassword{}, &pgproto3.BackendKeyData{ProcessID: 1, SecretKey: make([]byte, 4)},
		&pgproto3.NotificationResponse{PID: 1, Channel: "c"}, &pgproto3.NoticeResponse{Message: "n"}, &pgproto3.NoticeResponse{},
		&pgproto3.ErrorResponse{}, &pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "25006", Message: "m"},
		&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "26000", Message: "lsnproxy:1"},
		&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "40001", Message: "m", Routine: "GetSerializableTransactionSnapshot"},
		&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "0A000", Message: "m", Routine: "RevalidateCachedQuery"},
		&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P01", Message: "m"},
		&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "08P01", Message: "m"},
		&pgproto3.ParameterStatus{Name: "client_encoding", Value: "SJIS"}, &pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "off"},
		&pgproto3.ParameterStatus{Name: "TimeZone", Value: "\xff'"}, &pgproto3.ParameterStatus{Name: "", Value: ""}, &pgproto3.ParameterStatus{Name: "role", Value: "none"},
		&pgproto3.ParameterStatus{Name: "lsnproxy.token", Value: "x"}, &pgproto3.ParameterStatus{Name: "; DROP TABLE hostile_server", Value: "'"},
	} {
		b := encode(m)
		all = append(all, b, slices.Concat(b, b), b[:len(b)-1], bytes.Repeat(b, 1000))
	}
	return all
}

func startHostileServer(t testing.TB) *betrayed {
	table(t, "hostile_server")
	return startBetrayed(t)
}

// lastMessage is about how many messages ordinary brings.
const lastMessage = 220

// TestHostileServer lets servers say what they must not, anywhere.
func TestHostileServer(t *testing.T) { lieAbout(t, rand.New(rand.NewPCG(4, 1)), 150) }

// lieAbout tells some of the lies.
func lieAbout(t *testing.T, rng *rand.Rand, lied int) {
	b := startHostileServer(t)
	all, told := lies(), 0
	for range lied {
		l := &lie{at: rng.Int32N(lastMessage), where: byte(rng.Uint32()), then: byte(rng.Uint32()), text: all[rng.IntN(len(all))]}
		b.suffer(t, l)
		if l.told.Load() {
			told++
		}
	}
	if told < lied/2 {
		t.Errorf("only %d of %d were told: ordinary brings fewer messages", told, lied)
	}
}

// TestServerThatDoesNotStop has servers say one thing again and again: the proxy
// keeps none of it, and is not slowed down by what it had to look at.
func TestServerThatDoesNotStop(t *testing.T) { floods(t, rand.New(rand.NewPCG(5, 1))) }

func floods(t *testing.T, rng *rand.Rand) {
	b := startHostileServer(t)
	kinds := map[string]func(b []byte, i int) []byte{
		"notices":       again(&pgproto3.NoticeResponse{Severity: "NOTICE", Code: "00000", Message: "again"}),
		"errors":        again(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "22012", Message: "again"}),
		"notifications": again(&pgproto3.NotificationResponse{PID: 1, Channel: "c"}),
		"rows":          again(&pgproto3.DataRow{Values: [][]byte{[]byte("again")}}),
		"long rows":     again(&pgproto3.DataRow{Values: [][]byte{make([]byte, 100_000)}}),
		"descriptions":  again(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("x")}}}),
		"completions":   again(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}),
		"preparations":  again(&pgproto3.ParseComplete{}),
		"one row":       endless(wire.DataRow),
		"one error":     endless(wire.ErrorResponse),
		"one value":     endless(wire.FunctionCallResponse),
		"zeros":         func(b []byte, _ int) []byte { return append(b, 0) },
		"parameters": func(b []byte, i int) []byte {
			b, _ = (&pgproto3.ParameterStatus{Name: "p" + strconv.Itoa(i), Value: "v"}).Encode(b)
			return b
		},
	}
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		t.Run(name, func(t *testing.T) {
			before := inUse()
			most := watchMemory(t)
			at := rng.Int32N(lastMessage)
			b.suffer(t, &lie{at: at, where: byte(rng.Uint32()), more: kinds[name]})
			if peak := most(); peak > before+flood {
				t.Errorf("from %d to %d MB, at message %d", before>>20, peak>>20, at)
			}
		})
	}
}

// again says a message again.
func again(m pgproto3.BackendMessage) func(b []byte, i int) []byte {
	encoded := encode(m)
	return func(b []byte, _ int) []byte { return append(b, encoded...) }
}

// endless is one message that is longer than a flood.
func endless(typ byte) func(b []byte, i int) []byte {
	return func(b []byte, i int) []byte {
		if i == 0 {
			b = append(binary.BigEndian.AppendUint32(append(b, typ), 1<<30-1), "SERROR\x00M"...)
		}
		return append(b, "xxxxxxxxxxxxxxxx"...)
	}
}

func encode(m pgproto3.BackendMessage) []byte {
	b, err := m.Encode(nil)
	if err != nil {
		panic(err)
	}
	return b
}

// watchMemory looks all the time what is in use, until it is asked for the most.
func watchMemory(t *testing.T) (most func() uint64) {
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() { // ends when it is asked
		var m uint64
		for {
			select {
			case <-stop:
				peak <- m
				return
			case <-time.After(20 * time.Millisecond):
				m = max(m, inUse())
			}
		}
	}()
	return func() uint64 {
		close(stop)
		return <-peak
	}
}

// FuzzHostileServer looks for what does harm. Its corpus is in testdata.
func FuzzHostileServer(f *testing.F) {
	b := startHostileServer(f)
	f.Fuzz(func(t *testing.T, text []byte, at uint16, how byte) {
		b.suffer(t, &lie{at: int32(at % lastMessage), where: how % 3, then: how / 3, text: text})
	})
}
