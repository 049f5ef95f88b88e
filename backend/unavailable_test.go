package backend_test

import (
	"context"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

func TestUnreachable(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", ""} {
		unreachable(t, address)
	}
	detail := func(err error) string {
		told := backend.ErrorOf(err)
		if told.Code != "08001" || told.Severity != "FATAL" {
			t.Errorf("the client is told %+v", told)
		}
		return told.Detail
	}
	free := closedPort(t)
	if got := detail(unreachable(t, free)); got != "connection refused" {
		t.Error(got)
	}
	if got := detail(unreachable(t, "no-such-host.invalid:5432")); got == "" || strings.Contains(got, "invalid") {
		t.Error(got)
	}
	if got := detail(unreachable(t, filepath.Join(t.TempDir(), "none")+":5432")); got != "no such file or directory" {
		t.Error(got)
	}
}

// closedPort is an address that nobody listens at.
func closedPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

// stranger listens and lets talk have each connection.
func stranger(t *testing.T, talk func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	done := make(chan struct{})
	go func() { // ends when the listener is closed
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			talk(c)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return ln.Addr().String()
}

func TestNotPostgreSQL(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	// Its first bytes announce a message of 1.4 GB.
	err := unreachable(t, stranger(t, func(c net.Conn) {
		_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		time.Sleep(100 * time.Millisecond)
	}))
	if strings.Contains(backend.ErrorOf(err).Detail, "127.0.0.1") {
		t.Errorf("the client is told an address: %s", backend.ErrorOf(err).Detail)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 50<<20 {
		t.Errorf("%d bytes were allocated for an answer that is none", grown)
	}
	err = unreachable(t, stranger(t, func(net.Conn) {}))
	if got := backend.ErrorOf(err).Detail; got != "unexpected EOF" && got != "connection reset by peer" {
		t.Error(got)
	}
}

// TestSilent: whoever accepts and says nothing is left when the context ends.
func TestSilent(t *testing.T) {
	over := make(chan struct{})
	address := stranger(t, func(net.Conn) { <-over })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := backend.Dial(ctx, 0, address, postgres())
	if err == nil || !backend.Unavailable(err) || time.Since(start) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	close(over)
}

// TestStartingUp: a server that is not ready yet, or not any more, says so.
func TestStartingUp(t *testing.T) {
	cluster := pgtest.Start(t, pgcluster.Options{Settings: map[string]string{
		"checkpoint_timeout": "1h", "max_wal_size": "4GB", "log_min_messages": "log",
	}})
	node := cluster.Leader()
	// A lot to do over again after a crash.
	_, err := backend.Ask(soon(t), node.Addr(), postgres(), "CREATE TABLE t AS SELECT i, repeat('x', 100) FROM generate_series(1, 300000) i")
	must(t, err)
	must(t, node.Kill())
	started := make(chan error)
	go func() { started <- node.Start(soon(t)) }()
	saw := watchFor(t, node.Addr(), "the database system is starting up")
	must(t, <-started)
	if !saw {
		t.Error("it was never seen to start")
	}

	kept := dial(t, node.Addr(), postgres())
	stopped := make(chan error)
	go func() { stopped <- node.Stop(pgcluster.Smart) }()
	if !watchFor(t, node.Addr(), "the database system is shutting down") {
		t.Error("it was never seen to shut down")
	}
	kept.Close()
	must(t, <-stopped)
	unreachable(t, node.Addr())
}

// watchFor dials over and over until the server refuses with the words given, or
// has let us in after it had refused otherwise.
func watchFor(t *testing.T, address, words string) bool {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		c, err := backend.Dial(soon(t), 0, address, postgres())
		if err == nil {
			c.Close()
			continue
		}
		if !backend.Unavailable(err) {
			t.Errorf("%v does not count as unavailable", err)
		}
		if told := backend.ErrorOf(err); told.Code == "57P03" && told.Message == words {
			return true
		}
	}
	return false
}
