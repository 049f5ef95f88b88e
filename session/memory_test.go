package session_test

import (
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// inUse returns the bytes that the process holds of the heap and of stacks.
func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// TestClientThatDoesNotRead asks for 1 GB and does not read it: the proxy has to
// stop reading the server. Control: the same client then gets all of it.
func TestClientThatDoesNotRead(t *testing.T) {
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	r := p.dialRaw(t, nil)
	before := inUse()
	const rows, width = 10_000, 100_000
	r.SendQuery(&pgproto3.Query{String: "select repeat('x', 100000) from generate_series(1, 10000)"})
	r.flush()
	awaitStill(t, r.conn)
	if grown := int64(inUse()) - int64(before); grown > 4<<20 {
		t.Errorf("the proxy's memory has grown by %d bytes", grown)
	}
	_ = r.conn.SetReadDeadline(time.Now().Add(time.Minute))
	seen := 0
	for {
		msg, err := r.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if row, ok := msg.(*pgproto3.DataRow); ok && len(row.Values[0]) == width {
			seen++
		}
		if _, ok := msg.(*pgproto3.ReadyForQuery); ok {
			break
		}
	}
	if seen != rows {
		t.Errorf("%d rows of %d", seen, rows)
	}
}

// awaitStill waits until nothing moves any more: the buffers between the server
// and the client that does not read are full.
func awaitStill(t *testing.T, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	last, still := -1, 0
	eventually(t, "the client's buffer to fill", func() bool {
		n := unread(raw)
		if n > 0 && n == last {
			still++
		} else {
			still = 0
		}
		last = n
		return still > 60
	})
}

// TestIdleSessions reports what an idle client costs, and that all are answered
// when they speak.
func TestIdleSessions(t *testing.T) {
	const clients = 2000
	p := startProxy(t, shared.cluster, nil)
	p.awaitFollowers(t, 2)
	p.dialRaw(t, nil)
	before := inUse()
	conns := make([]*raw, clients)
	for i := range conns {
		conns[i] = p.dialRaw(t, nil)
		conns[i].Frontend = nil // its buffers are not the proxy's
	}
	t.Logf("%d bytes for each of %d idle clients, the test's own end included", (int64(inUse())-int64(before))/clients, clients)
	for _, r := range conns {
		r.Frontend = pgproto3.NewFrontend(r.conn, r.conn)
		r.SendQuery(&pgproto3.Query{String: "select 1"})
		r.flush()
	}
	for _, r := range conns {
		r.untilReady()
	}
	eventually(t, "no tasks for idle clients", func() bool { return tasks(p) == 0 })
}
