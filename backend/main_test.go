package backend_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/wire"
)

// server is a lone leader that tests use which leave it as they found it.
var server *pgcluster.Node

func TestMain(m *testing.M) {
	if address := os.Getenv(strangerVariable); address != "" {
		strangerMain(address)
		return
	}
	os.Exit(pgtest.Lone(m, &server, func() error { return goleak.Find() }))
}

// The helpers that tests of several packages share.
var must, soon, eventually = pgtest.Must, pgtest.Soon, pgtest.Eventually

// postgres is the superuser's login, with further startup parameters in pairs.
func postgres(params ...string) backend.Login {
	login := backend.Login{User: "postgres", Database: "postgres"}
	for i := 0; i < len(params); i += 2 {
		login.Params = append(login.Params, wire.Param{Name: params[i], Value: params[i+1]})
	}
	return login
}

// sql runs statements on the shared server as the superuser.
func sql(t testing.TB, text string) [][]string {
	t.Helper()
	rows, err := backend.Ask(soon(t), server.Addr(), postgres(), text)
	must(t, err)
	return rows
}

// refused dials and expects to be refused with an SQLSTATE.
func refused(t testing.TB, address string, login backend.Login, code string) *pgconn.PgError {
	t.Helper()
	c, err := backend.Dial(soon(t), 0, address, login)
	if err == nil {
		c.Close()
		t.Fatalf("was let in, want SQLSTATE %s", code)
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != code {
		t.Fatalf("%v, want SQLSTATE %s", err, code)
	}
	return pg
}

// unreachable dials and expects that there is nobody to say a word.
func unreachable(t testing.TB, address string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := backend.Dial(ctx, 0, address, postgres())
	if err == nil {
		c.Close()
		t.Fatalf("there is a server at %s", address)
	}
	if !backend.Unavailable(err) {
		t.Errorf("%v does not count as unavailable", err)
	}
	return err
}

// runner makes a Runner of a function.
type runner func(*reactor.Task)

func (f runner) Run(t *reactor.Task) { f(t) }

// newEngine starts an engine that ends with the test.
func newEngine(t testing.TB, loops int) *reactor.Engine {
	t.Helper()
	e, err := reactor.New(reactor.Options{Loops: loops, Stall: time.Minute, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(e.Close)
	return e
}

// on runs f as a task of the loop and waits for its end.
func on(t testing.TB, l *reactor.Loop, f func(*reactor.Task)) {
	t.Helper()
	done := make(chan struct{})
	l.Post(func() {
		l.Start(runner(func(task *reactor.Task) {
			defer close(done)
			f(task)
		}))
	})
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("a task has not ended after 30 s")
	}
}

// show runs one query in a task and returns the first value of the answer, or
// the SQLSTATE of an error.
func show(t testing.TB, c *backend.Conn, query string) string {
	if _, err := c.Net.Write(wire.AppendQuery(nil, query)); err != nil {
		t.Errorf("%s: %v", query, err)
		return ""
	}
	value := ""
	for {
		msg, err := readMessage(c.Net)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			return ""
		}
		switch msg[0] {
		case wire.DataRow:
			if value == "" {
				value = firstColumn(msg)
			}
		case wire.ErrorResponse:
			value = string(wire.Field(msg, 'C'))
		case wire.ReadyForQuery:
			return value
		}
	}
}

// readMessage reads one whole message.
func readMessage(r io.Reader) ([]byte, error) {
	msg := make([]byte, wire.HeaderLen)
	if _, err := io.ReadFull(r, msg); err != nil {
		return nil, err
	}
	_, size, _, err := wire.Header(msg)
	if err != nil {
		return nil, err
	}
	msg = append(msg, make([]byte, size-len(msg))...)
	_, err = io.ReadFull(r, msg[wire.HeaderLen:])
	return msg, err
}

// firstColumn cuts the first value out of a DataRow.
func firstColumn(msg []byte) string {
	b := wire.Body(msg)[2:]
	n := int32(binary.BigEndian.Uint32(b))
	if n < 0 {
		return "NULL"
	}
	return string(b[4 : 4+n])
}

// relay stands at an address of its own and carries bytes to the shared server
// and back. It keeps what the clients said.
type relay struct {
	ln   net.Listener
	work sync.WaitGroup

	mu   sync.Mutex
	said []byte
}

func newRelay(t testing.TB, network, address string) *relay {
	t.Helper()
	ln, err := net.Listen(network, address)
	must(t, err)
	r := &relay{ln: ln}
	r.work.Go(r.accept) // ends when the listener is closed
	t.Cleanup(func() {
		ln.Close()
		r.work.Wait()
	})
	return r
}

func (r *relay) accept() {
	for {
		client, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.work.Go(func() { r.carry(client) }) // ends with the connection
	}
}

func (r *relay) carry(client net.Conn) {
	defer client.Close()
	to, err := net.Dial("tcp", server.Addr())
	if err != nil {
		return
	}
	r.work.Go(func() {
		_, _ = io.Copy(client, to)
		client.Close()
	})
	defer to.Close()
	b := make([]byte, 4096)
	for {
		n, err := client.Read(b)
		r.mu.Lock()
		r.said = append(r.said, b[:n]...)
		r.mu.Unlock()
		if n > 0 {
			_, _ = to.Write(b[:n])
		}
		if err != nil {
			return
		}
	}
}

func (r *relay) heard() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]byte(nil), r.said...)
}

// descriptors counts the files this process has open.
func descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(all)
}
