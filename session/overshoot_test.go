package session_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	groups "sync" // the name itself is taken in this package
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lsnproxy/lsnproxy/lagwatch"
	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
	"github.com/lsnproxy/lsnproxy/topology"
)

// BenchmarkWaitOvershoot tells how long after the View in which a follower covers
// what a read waits for the read arrives at that follower, half of the time and nine
// times of ten. It is seen from outside, by a wait of its own for the same position
// and by a relay before the follower, and so holds what these take.
func BenchmarkWaitOvershoot(b *testing.B) {
	c := pgtest.Start(b, pgcluster.Options{Followers: 1})
	tap := &tap{to: c.Followers()[0].Addr(), seen: make(map[string]time.Time)}
	p := startProxy(b, nil, func(s *settings) {
		s.session.Policy.Wait = time.Second
		s.addresses = []string{c.Leader().Addr(), tap.listen(b)}
	})
	p.awaitFollowers(b, 1)
	conn := p.connect(b, "default_query_exec_mode=simple_protocol")
	must(b, conn, "CREATE TABLE overshoot (n bigint)")
	p.awaitReads(b, "overshoot")

	var took []time.Duration
	n := 0
	for b.Loop() {
		n++
		must(b, conn, fmt.Sprintf("INSERT INTO overshoot VALUES (%d)", n))
		mark := "SELECT " + strconv.Itoa(n) + " FROM overshoot"
		if d, waited := p.overshoot(b, conn, tap, mark); waited {
			took = append(took, d)
		}
	}
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	b.ReportMetric(float64(len(took)), "waits")
	for name, part := range map[string]int{"us-median": 50, "us-p90": 90} {
		b.ReportMetric(float64(took[len(took)*part/100].Nanoseconds())/1000, name)
	}
}

// overshoot runs a read behind a write, and reports how long it took from the View
// to the follower, and whether it had to wait at all.
func (p *proxy) overshoot(t testing.TB, conn *pgx.Conn, tap *tap, read string) (time.Duration, bool) {
	token, err := lsn.ParseToken(conn.PgConn().ParameterStatus("lsnproxy.token"))
	if err != nil {
		t.Fatal(err)
	}
	var covered time.Time
	covers := func(v *topology.View) bool {
		ok := v.History.Covers(v.Nodes[1].Position, token.Position)
		if ok && covered.IsZero() {
			covered = time.Now()
		}
		return ok
	}
	if covers(p.board.View()) {
		return 0, false
	}
	done := make(chan struct{})
	wait := p.watch.Await(lagwatch.Need{Node: 1, Position: token.Position}, covers, func() { close(done) })
	defer wait.Cancel()
	must(t, conn, read)
	<-done
	sent, ok := tap.take(read)
	return sent.Sub(covered), ok && sent.After(covered)
}

// tap relays to a server and notes when a statement passed.
type tap struct {
	to      string
	running groups.WaitGroup

	mu   groups.Mutex
	seen map[string]time.Time
}

func (p *tap) listen(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.running.Go(func() { // until the listener is closed, below
		for {
			from, err := ln.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", p.to)
			if err != nil {
				from.Close()
				continue
			}
			p.running.Go(func() { p.relay(to, from) }) // until either side ends
			p.running.Go(func() { _, _ = io.Copy(from, to); from.Close() })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		p.running.Wait()
	})
	return ln.Addr().String()
}

func (p *tap) relay(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if at := bytes.Index(buf[:n], []byte("SELECT ")); at >= 0 {
			text, _, _ := bytes.Cut(buf[at:n], []byte{0})
			p.mu.Lock()
			p.seen[string(text)] = time.Now()
			p.mu.Unlock()
		}
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *tap) take(text string) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.seen[text]
	delete(p.seen, text)
	return at, ok
}
