//go:build linux

package reactor_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/lsnproxy/lsnproxy/reactor"
)

// certificate is a self-signed one for localhost, and the pool that trusts it.
var certificate = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"localhost"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
})

func serverTLS(c net.Conn) *tls.Conn {
	own, _ := certificate()
	return tls.Server(c, &tls.Config{Certificates: []tls.Certificate{own}})
}

func clientTLS(c net.Conn) *tls.Conn {
	_, pool := certificate()
	return tls.Client(c, &tls.Config{RootCAs: pool, ServerName: "localhost"})
}

// Ten megabytes go each way at once, the loop's side being server or client,
// the other side package net; a task reads and another writes.
func TestTLSBothWays(t *testing.T) {
	for _, role := range []string{"server", "client", "both"} {
		t.Run(role, func(t *testing.T) {
			e := newEngine(t, reactor.Options{Loops: 2})
			l := e.Loops()[0]
			fd, peer := tcpPair(t)
			var far net.Conn = peer
			conns := make(chan net.Conn, 1)
			l.Post(func() { conns <- adopt(t, l, fd) })
			near := <-conns
			var nearTLS, farTLS *tls.Conn
			if role == "client" {
				nearTLS, farTLS = clientTLS(near), serverTLS(far)
			} else {
				nearTLS, farTLS = serverTLS(near), clientTLS(far)
			}
			done := []<-chan struct{}{do(t, l, func(task *reactor.Task) { bothWays(t, task, nearTLS) })}
			if role == "both" {
				other := e.Loops()[1]
				fd, err := reactor.Take(far)
				if err != nil {
					t.Fatal(err)
				}
				done = append(done, do(t, other, func(task *reactor.Task) {
					bothWays(t, task, clientTLS(adopt(t, other, fd)))
				}))
			} else {
				exchange(t, farTLS)
			}
			for _, d := range done {
				await(t, d)
			}
		})
	}
}

var tenMegabytes = pattern(10 << 20)

// bothWays exchanges ten megabytes; this task reads and another writes.
func bothWays(t *testing.T, task *reactor.Task, c *tls.Conn) {
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if err := c.Handshake(); err != nil {
		t.Errorf("handshake: %v", err)
		return
	}
	me, written := task.Waker(), false
	task.Loop().Start(runner(func(*reactor.Task) {
		if _, err := c.Write(tenMegabytes); err != nil {
			t.Errorf("write: %v", err)
		}
		written = true
		me.Wake()
	}))
	got := make([]byte, len(tenMegabytes))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, tenMegabytes) {
		t.Errorf("read: %v", err)
	}
	for !written {
		task.Wait(time.Time{})
	}
	if err := c.CloseWrite(); err != nil {
		t.Errorf("close write: %v", err)
	}
	if n, err := c.Read(got); n != 0 || err != io.EOF {
		t.Errorf("read at the end: %d, %v", n, err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// exchange is the same on package net.
func exchange(t *testing.T, c *tls.Conn) {
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if err := c.Handshake(); err != nil {
		t.Errorf("far handshake: %v", err)
		return
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		if _, err := c.Write(tenMegabytes); err != nil {
			t.Errorf("far write: %v", err)
		}
		c.CloseWrite()
	})
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, tenMegabytes) {
		t.Errorf("far read %d bytes, %v", len(got), err)
	}
	writer.Wait()
	c.Close()
}

func TestTLSDeadlines(t *testing.T) {
	e := newEngine(t, reactor.Options{})
	l := e.Loops()[0]

	// A client that says nothing must not hold a handshake open.
	silent, _ := tcpPair(t)
	await(t, do(t, l, func(*reactor.Task) {
		c := serverTLS(adopt(t, l, silent))
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Millisecond))
		if err := c.Handshake(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("handshake: %v", err)
		}
	}))

	// A read that timed out, and one that would have parked, can be repeated.
	fd, peer := tcpPair(t)
	speak := make(chan string)
	go func() {
		c := clientTLS(peer)
		for s := range speak {
			c.Write([]byte(s))
		}
		c.Close()
	}()
	await(t, do(t, l, func(task *reactor.Task) {
		raw := adopt(t, l, fd)
		c := serverTLS(raw)
		defer c.Close()
		b := make([]byte, 100)
		task.Offload(func() { speak <- "one" }) // the client's handshake waits for ours
		expect := func(want string) {
			t.Helper()
			if n, err := c.Read(b); string(b[:n]) != want || err != nil {
				t.Errorf("read %q, %v, want %q", b[:n], err, want)
			}
		}
		expect("one")
		c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		c.SetReadDeadline(time.Time{})
		task.Offload(func() { speak <- "two" })
		expect("two")

		raw.SetNonpark(true)
		if n, err := c.Read(b); n != 0 || !errors.Is(err, reactor.ErrAgain) {
			t.Errorf("read where nothing is: %d, %v", n, err)
		}
		task.Offload(func() { speak <- "three" })
		for {
			task.Wait(time.Time{}, reactor.Interest{Conn: raw})
			n, err := c.Read(b[:2]) // the rest stays inside crypto/tls
			if errors.Is(err, reactor.ErrAgain) {
				continue
			}
			if string(b[:n]) != "th" || err != nil {
				t.Errorf("read %q, %v", b[:n], err)
			}
			break
		}
		expect("ree")
		if _, err := c.Read(b); !errors.Is(err, reactor.ErrAgain) {
			t.Errorf("read where nothing is any more: %v", err)
		}
		raw.SetNonpark(false)
		close(speak)
		if n, err := c.Read(b); n != 0 || err != io.EOF {
			t.Errorf("read at the end: %d, %v", n, err)
		}
	}))
}
