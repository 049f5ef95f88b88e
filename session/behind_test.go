package session_test

import (
	"bytes"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// meddler is a way to a real server that puts a FATAL error right behind an answer,
// once, and closes.
type meddler struct {
	addr string
	end  atomic.Pointer[[]byte] // of the answer to meddle with
}

func startMeddler(t *testing.T, server string) *meddler {
	t.Helper()
	m := &meddler{}
	m.addr = between(t, server, func(client, up net.Conn) {
		go carry(up, client, func(b []byte) ([]byte, bool) { return b, false })
		go carry(client, up, m.meddle)
	})
	return m
}

// between listens until the test ends, and has join carry what goes between each client and a
// connection to server.
func between(t *testing.T, server string, join func(client, up net.Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() { // ends with the listener
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			join(client, up)
		}
	}()
	return ln.Addr().String()
}

// carry carries bytes until either end closes or change says that it is the end.
func carry(to, from net.Conn, change func([]byte) ([]byte, bool)) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		b, over := change(buf[:n])
		if _, err := to.Write(b); err != nil || over {
			return
		}
	}
}

func (m *meddler) meddle(b []byte) ([]byte, bool) {
	end := m.end.Load()
	if end == nil || !bytes.HasSuffix(b, *end) {
		return b, false
	}
	m.end.Store(nil)
	last, _ := (&pgproto3.ErrorResponse{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P02", Message: "terminating connection because of crash of another server process",
	}).Encode(slices.Clone(b))
	return last, true
}

// withholder is a way to a real server that, once, carries an answer to its end and
// withholds what comes behind it.
type withholder struct {
	addr string
	end  atomic.Pointer[[]byte] // of the answer
	held chan struct{}          // told when something is withheld
	goOn chan bool              // whether to carry it after all, or to close
}

func startWithholder(t *testing.T, server string) *withholder {
	t.Helper()
	w := &withholder{held: make(chan struct{}), goOn: make(chan bool)}
	w.addr = between(t, server, func(client, up net.Conn) {
		go carry(up, client, func(b []byte) ([]byte, bool) { return b, false })
		go carry(client, up, w.withhold(client))
	})
	return w
}

// withhold returns what changes the bytes that are carried to the proxy.
func (w *withholder) withhold(to net.Conn) func(b []byte) ([]byte, bool) {
	behind := false
	return func(b []byte) ([]byte, bool) {
		if end := w.end.Load(); end != nil && bytes.Contains(b, *end) {
			w.end.Store(nil)
			behind = true
			n := bytes.Index(b, *end) + len(*end)
			if _, err := to.Write(b[:n]); err != nil {
				return nil, true
			}
			b = b[n:]
		}
		if behind && len(b) > 0 {
			behind = false
			w.held <- struct{}{}
			if !<-w.goOn {
				return nil, true
			}
		}
		return b, false
	}
}

// TestAnswerDoesNotWait: which transactions a follower has shown is asked behind a read
// of a session that goes back and forth. The client's answer does not wait for
// that, and is complete if the connection is lost before it comes.
func TestAnswerDoesNotWait(t *testing.T) {
	for _, goesOn := range []bool{true, false} {
		w := startWithholder(t, shared.cluster.Followers()[0].Addr())
		p := startProxy(t, nil, func(s *settings) {
			s.addresses = []string{shared.cluster.Leader().Addr(), w.addr}
			s.session.Policy.Wait = 10 * time.Second
		})
		p.awaitFollowers(t, 1)
		p.awaitDefinitions(t)
		r := p.dialRaw(t, nil)
		ask := func(sql string) string {
			r.Send(&pgproto3.Query{String: sql})
			r.flush()
			return strings.Join(r.untilReady(), "|")
		}
		var end []byte
		for _, m := range []pgproto3.BackendMessage{
			&pgproto3.DataRow{Values: [][]byte{[]byte("4711")}}, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, &pgproto3.ReadyForQuery{TxStatus: 'I'},
		} {
			end, _ = m.Encode(end)
		}
		const write, read = "select pg_current_xact_id() is null", "select 4711"
		for range 2 {
			ask(write)
			ask(read)
		}
		ask(write)
		w.end.Store(&end)
		const want = "RowDescription|DataRow 4711|CommandComplete SELECT 1|ReadyForQuery I"
		if got := ask(read); got != want {
			t.Errorf("goes on %v:\n got %s\nwant %s", goesOn, got, want)
		}
		select {
		case <-w.held:
		case <-time.After(10 * time.Second):
			t.Fatal("nothing was asked behind the read")
		}
		w.goOn <- goesOn
		for _, sql := range []string{read, write, read} {
			if got := ask(sql); sql == read && got != want {
				t.Errorf("goes on %v, behind it:\n got %s\nwant %s", goesOn, got, want)
			}
		}
	}
}

// TestBeginIsTakenBack: behind a BEGIN that goes to a follower in hope it is asked whether the
// transaction may stay there. A connection that is lost before the answer has begun nothing.
func TestBeginIsTakenBack(t *testing.T) {
	w := startWithholder(t, shared.cluster.Followers()[0].Addr())
	p := startProxy(t, nil, func(s *settings) {
		optimistic(s)
		s.addresses = []string{shared.cluster.Leader().Addr(), w.addr}
	})
	p.awaitFollowers(t, 1)
	p.awaitDefinitions(t)
	r := p.dialRaw(t, nil)
	end, _ := (&pgproto3.CommandComplete{CommandTag: []byte("BEGIN")}).Encode(nil)
	end, _ = (&pgproto3.ReadyForQuery{TxStatus: 'T'}).Encode(end)
	w.end.Store(&end)
	go func() { // ends with the answer to BEGIN
		<-w.held
		w.goOn <- false
	}()
	for _, x := range [][2]string{
		{"begin", "CommandComplete BEGIN|ReadyForQuery T"},
		{"select 1", "RowDescription|DataRow 1|CommandComplete SELECT 1|ReadyForQuery T"},
		{"commit", "CommandComplete COMMIT|ReadyForQuery I"},
	} {
		r.Send(&pgproto3.Query{String: x[0]})
		r.flush()
		if got := strings.Join(r.untilReady(), "|"); got != x[1] {
			t.Errorf("%s:\n got %s\nwant %s", x[0], got, x[1])
		}
	}
	if w.end.Load() != nil {
		t.Error("no transaction was begun on the follower")
	}
}

// TestLossBehindAnswer: a connection that is lost when the answer is complete does
// not answer again. In a transaction the client hears of it with its next statement.
func TestLossBehindAnswer(t *testing.T) {
	m := startMeddler(t, shared.cluster.Leader().Addr())
	p := startProxy(t, nil, func(s *settings) { s.addresses = []string{m.addr} })
	p.awaitFollowers(t, 0)
	inTx, _ := (&pgproto3.ReadyForQuery{TxStatus: 'T'}).Encode(nil)
	r := p.dialRaw(t, nil)
	ask := func(sql string) []string {
		r.Send(&pgproto3.Query{String: sql})
		r.flush()
		return r.untilReady()
	}
	ask("begin")
	m.end.Store(&inTx)
	for _, x := range []struct{ sql, want string }{
		{"select 1", "RowDescription|DataRow 1|CommandComplete SELECT 1|ReadyForQuery T"},
		{"select 2", "ErrorResponse 57P02 terminating connection because of crash of another server process|ReadyForQuery E"},
		{"select 3", "ErrorResponse 25P02 current transaction is aborted, commands ignored until end of transaction block|ReadyForQuery E"},
		{"rollback", "CommandComplete ROLLBACK|ReadyForQuery I"},
		{"select 4", "RowDescription|DataRow 4|CommandComplete SELECT 1|ReadyForQuery I"},
	} {
		if got := strings.Join(ask(x.sql), "|"); got != x.want {
			t.Errorf("%s:\n got %s\nwant %s", x.sql, got, x.want)
		}
	}
}
