package backend_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/wire"
)

// cancelled runs a long query in the task, cancels it, and returns how it ended.
func cancelled(t *testing.T, task *reactor.Task, c *backend.Conn) string {
	pid := show(t, c, "SELECT pg_backend_pid()")
	if _, err := c.Net.Write(wire.AppendQuery(nil, "SELECT pg_sleep(60)")); err != nil {
		t.Error(err)
		return ""
	}
	task.Offload(func() {
		eventually(t, "the query runs", func() bool {
			return sql(t, "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND pid = "+pid)[0][0] == "1"
		})
		if err := c.Cancel(); err != nil {
			t.Error(err)
		}
	})
	code := ""
	for {
		msg, err := readMessage(c.Net)
		if err != nil {
			t.Error(err)
			return ""
		}
		switch msg[0] {
		case wire.ErrorResponse:
			code = string(wire.Field(msg, 'C'))
		case wire.ReadyForQuery:
			return code
		}
	}
}

// TestCancel: the query that runs is cancelled, the connection lives on, and
// once Cancel has returned no later query is hit.
func TestCancel(t *testing.T) {
	l := newEngine(t, 1).Loops()[0]
	c := dial(t, server.Addr(), postgres())
	on(t, l, func(task *reactor.Task) {
		if err := c.Adopt(l); err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		if got := cancelled(t, task, c); got != "57014" {
			t.Errorf("the query ended with %q", got)
		}
		for range 20 {
			task.Offload(func() { must(t, c.Cancel()) }) // nothing runs: the server ignores it
			if got := show(t, c, "SELECT 'alive'"); got != "alive" {
				t.Errorf("the connection says %q", got)
			}
		}
	})
	must(t, c.Cancel()) // of a connection that is closed: nobody is hit
}

// TestMove: a connection goes from loop to loop.
func TestMove(t *testing.T) {
	loops := newEngine(t, 3).Loops()
	c := dial(t, server.Addr(), postgres())
	pid := ""
	for i := range 9 {
		l := loops[i%len(loops)]
		on(t, l, func(*reactor.Task) {
			if err := c.Adopt(l); err != nil {
				t.Error(err)
				return
			}
			got := show(t, c, "SELECT pg_backend_pid()")
			if pid == "" {
				pid = got
			}
			if got == "" || got != pid {
				t.Errorf("process %s, before %s", got, pid)
			}
			c.Net.Detach()
		})
	}
	on(t, loops[0], func(*reactor.Task) {
		if err := c.Adopt(loops[0]); err != nil {
			t.Error(err)
		}
		c.Close()
	})
	eventually(t, "the server process ends", func() bool {
		return sql(t, "SELECT count(*) FROM pg_stat_activity WHERE pid = "+pid)[0][0] == "0"
	})
}

// TestGoodbye: the server is told, whether a loop has the connection or not.
func TestGoodbye(t *testing.T) {
	l := newEngine(t, 1).Loops()[0]
	for _, adopted := range []bool{false, true} {
		r := newRelay(t, "tcp", "127.0.0.1:0")
		c := dial(t, r.ln.Addr().String(), postgres())
		if adopted {
			on(t, l, func(*reactor.Task) {
				if err := c.Adopt(l); err != nil {
					t.Error(err)
				}
				c.Close()
			})
		} else {
			c.Close()
		}
		eventually(t, "a Terminate reaches the server", func() bool {
			return bytes.HasSuffix(r.heard(), wire.AppendTerminate(nil))
		})
	}
}

func TestAsk(t *testing.T) {
	got := sql(t, "SELECT i, NULLIF(i, 2), 'x' || i FROM generate_series(1, 3) i; SELECT 'second'")
	want := [][]string{{"1", "1", "x1"}, {"2", "", "x2"}, {"3", "3", "x3"}, {"second"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for query, code := range map[string]string{"SELEKT": "42601", "SELECT 1; SELECT 1/0": "22012"} {
		rows, err := backend.Ask(soon(t), server.Addr(), postgres(), query)
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != code || rows != nil {
			t.Errorf("%s: %v, %v", query, rows, err)
		}
	}
	// The server's last words are not lost over the end of the connection.
	_, err := backend.Ask(soon(t), server.Addr(), postgres(), "SELECT pg_terminate_backend(pg_backend_pid())")
	if pg := (*pgconn.PgError)(nil); !errors.As(err, &pg) || pg.Code != "57P01" {
		t.Errorf("a terminated connection: %v", err)
	}
	if _, err := backend.Ask(soon(t), server.Addr(), postgres(), "COPY pg_description FROM STDIN"); err == nil {
		t.Error("Ask has no data to copy")
	}
}

func TestAskEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := backend.Ask(ctx, server.Addr(), postgres(), "SELECT pg_sleep(60)")
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 10*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	sql(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'")
}
