package pgtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Spoiler stands between a proxy and a server, and lets a test say something else
// to the proxy than the server did.
type Spoiler struct {
	target   string
	listener net.Listener
	meddle   func(opening []byte) Meddler
	running  sync.WaitGroup // every goroutine of the spoiler; the test's end waits for it

	mu   sync.Mutex
	open map[net.Conn]struct{} // nil once it is over
}

// Meddler says to the proxy, on one connection, what it wants in the place of one
// message of the server's, and reports whether that is something else. An error
// ends the connection.
type Meddler func(proxy io.Writer, msg []byte) (spoilt bool, err error)

// silence is how long a connection may rest that was spoilt: then it is closed.
// What was said to the proxy may be half a message, whose rest it awaits. And it is
// closed after patience in any case: it may go on as if nothing had been said.
const (
	silence  = 30 * time.Millisecond
	patience = time.Second
)

// NewSpoiler stands in front of target until the test ends. meddle is told the
// first packet of each connection, and returns nil to leave that one alone.
func NewSpoiler(t testing.TB, target string, meddle func(opening []byte) Meddler) *Spoiler {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Must(t, err)
	s := &Spoiler{target: target, listener: listener, meddle: meddle, open: make(map[net.Conn]struct{})}
	s.running.Go(func() { // until close
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.running.Go(func() { s.serve(conn) }) // until close, or either side closes
		}
	})
	t.Cleanup(s.close)
	return s
}

// Addr is where the spoiler listens.
func (s *Spoiler) Addr() string { return s.listener.Addr().String() }

func (s *Spoiler) close() {
	s.listener.Close()
	s.mu.Lock()
	for conn := range s.open {
		conn.Close()
	}
	s.open = nil
	s.mu.Unlock()
	s.running.Wait()
}

// hold notes a connection to be closed at the end; false if that is over.
func (s *Spoiler) hold(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		conn.Close()
		return false
	}
	s.open[conn] = struct{}{}
	return true
}

func (s *Spoiler) drop(conn net.Conn) {
	s.mu.Lock()
	delete(s.open, conn)
	s.mu.Unlock()
	conn.Close()
}

func (s *Spoiler) serve(proxy net.Conn) {
	if !s.hold(proxy) {
		return
	}
	defer s.drop(proxy)
	server, err := net.Dial("tcp", s.target)
	if err != nil || !s.hold(server) {
		return
	}
	defer s.drop(server)
	opening, err := packet(proxy, nil)
	if err != nil {
		return
	}
	if _, err := server.Write(opening); err != nil {
		return
	}
	var up sync.WaitGroup
	up.Go(func() { // until either side closes
		_, _ = io.Copy(server, proxy)
		server.Close()
	})
	defer up.Wait()
	defer proxy.Close()
	s.relay(proxy, server, s.meddle(opening))
}

// relay carries the server's messages, one by one.
func (s *Spoiler) relay(proxy, server net.Conn, meddle Meddler) {
	from := bufio.NewReader(server)
	var end time.Time
	for spoilt := false; ; {
		if spoilt {
			now := time.Now()
			if end.IsZero() {
				end = now.Add(patience)
			}
			if now.After(end) {
				return
			}
			_ = server.SetReadDeadline(now.Add(silence))
		}
		typ, err := from.ReadByte()
		if err != nil {
			return
		}
		msg, err := packet(from, []byte{typ})
		if err != nil {
			return
		}
		if meddle == nil || spoilt {
			_, err = proxy.Write(msg)
		} else {
			spoilt, err = meddle(proxy, msg)
		}
		if err != nil {
			return
		}
	}
}

// packet reads what begins with its length, behind head.
func packet(r io.Reader, head []byte) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	body := bytes.NewBuffer(append(head, length[:]...))
	_, err := io.CopyN(body, r, int64(binary.BigEndian.Uint32(length[:]))-4)
	return body.Bytes(), err
}
