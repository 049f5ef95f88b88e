package pgcluster_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// echoThrough starts a server that sends back what it is sent, until the end of
// file, and a link to it.
func echoThrough(t *testing.T) *pgcluster.Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var running sync.WaitGroup
	running.Go(func() { // until the listener is closed below
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { // until its client is gone
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	link, err := pgcluster.NewLink(listener.Addr().String())
	must(t, err)
	t.Cleanup(func() {
		link.Close()
		listener.Close()
		running.Wait()
	})
	return link
}

func connect(t *testing.T, link *pgcluster.Link) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", link.Addr())
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return conn.(*net.TCPConn)
}

// echo sends a byte and waits for it.
func echo(conn *net.TCPConn) error {
	if _, err := conn.Write([]byte{'x'}); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

// silent reports whether nothing arrives for a while.
func silent(t *testing.T, conn *net.TCPConn) bool {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	_, err := conn.Read(make([]byte, 1))
	must(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func TestLinkDelayDoesNotThrottle(t *testing.T) {
	const delay = 100 * time.Millisecond
	link := echoThrough(t)
	conn := connect(t, link)
	must(t, echo(conn))
	link.SetDelay(delay)
	begin := time.Now()
	must(t, echo(conn))
	if took := time.Since(begin); took < 2*delay || took > 50*delay {
		t.Errorf("a round trip took %v, want twice %v", took, delay)
	}

	sent := make([]byte, 16<<20)
	_, _ = rand.Read(sent)
	var sending sync.WaitGroup
	begin = time.Now()
	sending.Go(func() {
		if _, err := conn.Write(sent); err != nil {
			t.Error(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	got, err := io.ReadAll(conn) // the end of file comes back too
	sending.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back, or they differ: %v", len(got), len(sent), err)
	}
	if took := time.Since(begin); took < 2*delay || took > 20*time.Second { // each piece late by itself would make a minute
		t.Errorf("16 MB took %v", took)
	}
}

func TestLinkBlackhole(t *testing.T) {
	link := echoThrough(t)
	conn := connect(t, link)
	must(t, echo(conn))
	link.Blackhole()
	_, err := conn.Write([]byte("late"))
	must(t, err)
	fresh := connect(t, link)
	_, err = fresh.Write([]byte("new"))
	must(t, err)
	if !silent(t, conn) || !silent(t, fresh) {
		t.Fatal("a byte came through")
	}
	gone := connect(t, link)
	must(t, gone.Close())

	must(t, link.Heal())
	got := make([]byte, 4)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "late" {
		t.Errorf("after Heal: %q, %v", got, err)
	}
	if _, err := io.ReadFull(fresh, got[:3]); err != nil || string(got[:3]) != "new" {
		t.Errorf("after Heal, on the new connection: %q, %v", got[:3], err)
	}
}

// TestLinkBlackholeFillsWindow: a sender into a blackhole must be stopped by
// TCP's flow control, as on a real line, and not be buffered without end.
func TestLinkBlackholeFillsWindow(t *testing.T) {
	link := echoThrough(t)
	conn := connect(t, link)
	must(t, echo(conn))
	link.Blackhole()
	must(t, conn.SetWriteDeadline(time.Now().Add(time.Second)))
	sent := 0
	var err error
	for buf := make([]byte, 1<<20); err == nil && sent < 256<<20; {
		var n int
		n, err = conn.Write(buf)
		sent += n
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes went into a blackhole: %v", sent, err)
	}
}

func TestLinkReset(t *testing.T) {
	link := echoThrough(t)
	conn, other := connect(t, link), connect(t, link)
	must(t, echo(conn))
	must(t, echo(other))
	link.Reset()
	for _, c := range []*net.TCPConn{conn, other} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after Reset: %v", err)
		}
	}
	must(t, echo(connect(t, link)))
}

func TestLinkRefuse(t *testing.T) {
	link := echoThrough(t)
	conn := connect(t, link)
	must(t, echo(conn))
	for range 3 {
		must(t, link.Refuse())
		must(t, link.Refuse())
		if c, err := net.Dial("tcp", link.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("refusing: %v, %v", c, err)
		}
		must(t, echo(conn))
		must(t, link.Heal())
		must(t, link.Heal())
		must(t, echo(connect(t, link)))
	}
}

// TestLinkClosesInAnyState: Close waits for every goroutine, whatever they wait
// for; the leak check of TestMain sees those it forgets.
func TestLinkClosesInAnyState(t *testing.T) {
	for name, fault := range map[string]func(*pgcluster.Link) error{
		"healthy":    func(*pgcluster.Link) error { return nil },
		"blackhole":  func(l *pgcluster.Link) error { l.Blackhole(); return nil },
		"refuse":     (*pgcluster.Link).Refuse,
		"long delay": func(l *pgcluster.Link) error { l.SetDelay(time.Hour); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			link := echoThrough(t)
			conn := connect(t, link)
			must(t, echo(conn))
			must(t, fault(link))
			_, err := conn.Write([]byte("x"))
			must(t, err)
			time.Sleep(10 * time.Millisecond) // the byte is on its way
			closed := make(chan struct{})
			go func() { // ends with Close; awaited below
				link.Close()
				close(closed)
			}()
			select {
			case <-closed:
			case <-time.After(time.Minute):
				t.Fatal("Close hangs")
			}
		})
	}
}

// TestLinkToDeadServer: what the documentation of Link says.
func TestLinkToDeadServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, listener.Close())
	link, err := pgcluster.NewLink(listener.Addr().String())
	must(t, err)
	defer link.Close()
	conn, err := net.Dial("tcp", link.Addr())
	if err == nil {
		defer conn.Close()
		err = echo(conn.(*net.TCPConn))
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("got %v", err)
	}
}

func TestFaultsInFrontOfServers(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1, Faults: true})
	follower := c.Followers()[0]
	if follower.Addr() == follower.ServerAddr() || follower.Addr() != follower.Network().Addr() {
		t.Fatalf("clients use %s, the server is at %s", follower.Addr(), follower.ServerAddr())
	}
	conn := dial(t, follower.URL("postgres"))
	follower.Network().Blackhole()
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := conn.Ping(short); err == nil {
		t.Error("an answer came through a blackhole")
	}
	// Replication and control go past the links.
	exec(t, c.Leader(), "CREATE TABLE t AS SELECT 1 AS x")
	must(t, c.WaitStreaming(soon(t)))
	must(t, follower.Network().Heal())
	if x := get[int](t, follower, "SELECT x FROM t"); x != 1 {
		t.Errorf("x = %d", x)
	}
}

func TestReplicationThroughLinks(t *testing.T) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1, Faults: true, FaultReplication: true})
	leader, follower := c.Leader(), c.Followers()[0]
	write := dial(t, leader.URL("postgres"))
	leader.Network().Blackhole()
	must(t, leader.Set(soon(t), "work_mem", "5MB")) // control goes past the link
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := c.WaitStreaming(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("replication through a blackhole: %v", err)
	}
	must(t, leader.Network().Heal())
	must(t, c.WaitStreaming(soon(t)))

	leader.Network().Reset()
	if err := write.Ping(soon(t)); err == nil {
		t.Error("a connection survived Reset")
	}
	exec(t, leader, "CREATE TABLE t AS SELECT 1 AS x")
	must(t, c.WaitStreaming(soon(t))) // the follower connects again by itself
	if x := get[int](t, follower, "SELECT x FROM t"); x != 1 {
		t.Errorf("x = %d", x)
	}
}
