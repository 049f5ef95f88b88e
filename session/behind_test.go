package session_test

import (
	"bytes"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

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
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &meddler{addr: ln.Addr().String()}
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
			go carry(up, client, func(b []byte) ([]byte, bool) { return b, false })
			go carry(client, up, m.meddle)
		}
	}()
	return m
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
