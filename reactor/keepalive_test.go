//go:build linux

package reactor

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKeepalive: what the options say holds for connections, and what came with them not.
func TestKeepalive(t *testing.T) {
	for _, c := range []struct {
		say                       Keepalive
		on, idle, interval, count int
		user                      int
	}{
		{Keepalive{}, 0, 15, 15, 9, 0}, // package net's, and not in force
		{Keepalive{On: true, Idle: 30 * time.Second, Interval: 1500 * time.Millisecond, Count: 4, UserTimeout: 20 * time.Second}, 1, 30, 2, 4, 20000},
		{Keepalive{UserTimeout: time.Second}, 0, 15, 15, 9, 1000},
	} {
		e, err := New(Options{Keepalive: c.say})
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		peer, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fd, err := Take(peer)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		l := e.Loops()[0]
		l.Post(func() {
			defer close(done)
			conn, err := l.Adopt(fd)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			is := func(what string, level, name, want int) {
				if got, err := unix.GetsockoptInt(conn.fd, level, name); err != nil || got != want {
					t.Errorf("%+v: %s is %d, %v, not %d", c.say, what, got, err, want)
				}
			}
			is("keepalive", unix.SOL_SOCKET, unix.SO_KEEPALIVE, c.on)
			is("idle", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, c.idle)
			is("interval", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, c.interval)
			is("count", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, c.count)
			is("user timeout", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, c.user)
			if quiet := conn.Quiet(); quiet < 0 || quiet > time.Minute {
				t.Errorf("quiet for %v", quiet)
			}
		})
		<-done
		_ = ln.Close()
		e.Close()
	}
}
