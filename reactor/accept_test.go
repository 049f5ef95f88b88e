//go:build linux

package reactor_test

import (
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsnproxy/lsnproxy/reactor"
)

func TestAccept(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	for _, network := range []string{"tcp", "unix"} {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = filepath.Join(t.TempDir(), "socket")
		}
		ln, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		type accepted struct {
			fd     int
			remote net.Addr
		}
		got := make(chan accepted, 10)
		stop, err := e.Accept(ln, func(fd int, remote net.Addr) { got <- accepted{fd, remote} })
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			c, err := net.Dial(network, ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			a := <-got
			if a.remote.Network() != network || network == "tcp" && a.remote.String() != c.LocalAddr().String() {
				t.Errorf("remote %v of %v", a.remote, c.LocalAddr())
			}
			flags, err := unix.FcntlInt(uintptr(a.fd), unix.F_GETFL, 0)
			if err != nil || flags&unix.O_NONBLOCK == 0 {
				t.Errorf("flags %x, %v", flags, err)
			}
			unix.Close(a.fd)
			c.Close()
		}
		stop()
		stop()
		// The listener is still open, and another may go on with it.
		c, err := net.Dial(network, ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		stop, err = e.Accept(ln, func(fd int, remote net.Addr) { got <- accepted{fd, remote} })
		if err != nil {
			t.Fatal(err)
		}
		unix.Close((<-got).fd)
		stop()
		ln.Close()
	}
	type other struct{ net.Listener }
	if _, err := e.Accept(other{}, nil); err == nil {
		t.Error("accepted on what is not a socket")
	}
}

// Without a free descriptor nothing can be accepted; once there is one again,
// it goes on by itself.
func TestAcceptOutlivesAShortageOfDescriptors(t *testing.T) {
	log := &lines{}
	e := newEngine(t, reactor.Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	l := e.Loops()[0]
	stop, err := e.Accept(ln, func(fd int, _ net.Addr) {
		l.Post(func() {
			s := &echo{conn: adopt(t, l, fd)}
			s.conn.OnReady(s)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	client := startChild(t, "crowd") // connects from elsewhere: here is no descriptor left for it
	free := useUpDescriptors(t)
	defer free()
	client.say(ln.Addr(), 1)
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(log.String(), "too many open files") {
		if time.Now().After(deadline) {
			t.Fatal("the shortage was not logged")
		}
		time.Sleep(time.Millisecond)
	}
	if n := e.Stat().Loops[0].Connections; n != 0 {
		t.Errorf("accepted %d without a descriptor", n)
	}
	free()
	if got := client.line(); got != "connected" {
		t.Errorf("client: %s", got)
	}
}

// useUpDescriptors opens all the descriptors this process may have, under a
// lowered limit; the function returned closes them and lifts it.
func useUpDescriptors(t *testing.T) (free func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 200, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	var open []int
	for {
		fd, err := unix.Dup(0)
		if err == unix.EMFILE {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, fd)
	}
	return sync.OnceFunc(func() {
		for _, fd := range open {
			unix.Close(fd)
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	})
}
