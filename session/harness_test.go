package session_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/lsnproxy/lsnproxy/lagwatch"
	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pool"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/session"
	"github.com/lsnproxy/lsnproxy/topology"
)

// proxy is a whole proxy in this process, in front of a real cluster.
type proxy struct {
	addr   string
	server *session.Server
	pool   *pool.Pool
	board  *topology.Board
	watch  *lagwatch.Watcher
	engine *reactor.Engine
	links  []*pgcluster.Link // by node, if asked for
}

// cut resets all connections of the proxy to a node.
func (p *proxy) cut(node int) { p.links[node].Reset() }

// linked asks for links.
func linked(s *settings) { s.links = true }

type settings struct {
	session session.Options
	pool    pool.Options
	watch   lagwatch.Options
	loops   int
	links   bool // the proxy reaches the servers over links that can be cut

	addresses []string // of servers, if there is no pgcluster.Cluster
}

// startProxy starts a proxy in front of the cluster's nodes and stops it, whole,
// when the test ends.
func startProxy(t testing.TB, c *pgcluster.Cluster, change func(*settings)) *proxy {
	t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	o := settings{
		session: session.Options{
			LoginTimeout: 10 * time.Second, Policy: route.Policy{Wait: 50 * time.Millisecond}, LeaderWait: 5 * time.Second,
			Statements: 200, Replications: 10, Log: log,
		},
		pool:  pool.Options{Limits: pool.Limits{Size: 20, Wait: 20 * time.Second}, Connect: 5 * time.Second, Log: log},
		watch: lagwatch.Options{User: "postgres", Database: "postgres", Interval: 50 * time.Millisecond, Log: log},
		loops: 1,
	}
	if change != nil {
		change(&o)
	}
	p := &proxy{}
	addresses := o.addresses
	for _, n := range nodesOf(c) {
		if !o.links {
			addresses = append(addresses, n.Addr())
			continue
		}
		link, err := pgcluster.NewLink(n.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(link.Close)
		p.links = append(p.links, link)
		addresses = append(addresses, link.Addr())
	}
	p.board = topology.NewBoard(addresses)
	engine, err := reactor.New(reactor.Options{Loops: o.loops, BufferSize: session.BufferSize, Stall: time.Second, Log: o.session.Log})
	if err != nil {
		t.Fatal(err)
	}
	p.engine = engine
	p.watch = lagwatch.New(p.board, engine, o.watch)
	p.watch.Start()
	p.pool = pool.New(o.pool)
	p.server = session.NewServer(o.session, engine, p.pool, p.board, p.watch)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = ln.Addr().String()
	if err := p.server.Serve(ln); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.server.Close(5 * time.Second)
		p.pool.Close()
		p.watch.Close()
		engine.Close()
	})
	return p
}

func nodesOf(c *pgcluster.Cluster) []*pgcluster.Node {
	if c == nil {
		return nil
	}
	return c.Nodes()
}

// awaitFollowers waits until n followers are usable.
func (p *proxy) awaitFollowers(t testing.TB, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d usable followers", n), func() bool {
		v := p.board.View()
		usable := 0
		for i := range v.Nodes {
			if v.Nodes[i].State == topology.Usable && v.Nodes[i].Role == topology.RoleFollower {
				usable++
			}
		}
		return usable == n && v.Leader != topology.NoLeader
	})
}

// awaitDefinitions waits until it is known what the names in the database stand for.
func (p *proxy) awaitDefinitions(t testing.TB) {
	t.Helper()
	conn := p.connect(t, "")
	defer func() { _ = conn.Close(t.Context()) }()
	awaitFollower(t, conn, "select from pg_catalog.pg_class limit 1")
}

// awaitFollower repeats a read until a follower serves it.
func awaitFollower(t testing.TB, conn *pgx.Conn, read string) {
	t.Helper()
	eventually(t, "on a follower: "+read, func() bool {
		must(t, conn, read)
		return servedByFollower(t, conn)
	})
}

// servedByFollower reports whether a follower served the statement before.
func servedByFollower(t testing.TB, conn *pgx.Conn) bool {
	t.Helper()
	return strings.Contains(shown(t, conn, "SHOW lsnproxy.node"), " follower:")
}

// eventually waits for something that other processes bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	eventuallyWithin(t, 20*time.Second, what, ok)
}

func eventuallyWithin(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (p *proxy) url(extra string) string {
	return fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable&%s", p.addr, extra)
}

// connect opens a pgx connection through the proxy.
func (p *proxy) connect(t testing.TB, extra string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.url(extra))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// raw is a client that says exactly what it is told to.
type raw struct {
	t testing.TB
	*pgproto3.Frontend
	conn net.Conn
	sent chan struct{} // closed when the last turn has been written
}

// dialRaw logs in by hand.
func (p *proxy) dialRaw(t testing.TB, params map[string]string) *raw {
	t.Helper()
	return dialRaw(t, p.addr, params)
}

func dialTCP(t testing.TB, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func dialRaw(t testing.TB, addr string, params map[string]string) *raw {
	t.Helper()
	conn := dialTCP(t, addr)
	r := &raw{t: t, Frontend: pgproto3.NewFrontend(conn, conn), conn: conn}
	all := map[string]string{"user": "postgres", "database": "postgres"}
	for k, v := range params {
		all[k] = v
	}
	r.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: all})
	r.flush()
	r.untilReady()
	return r
}

func (r *raw) flush() {
	r.t.Helper()
	if err := r.Flush(); err != nil {
		r.t.Fatal(err)
	}
}

// untilReady collects what comes up to ReadyForQuery, one line a message.
func (r *raw) untilReady() []string {
	r.t.Helper()
	return r.until("ReadyForQuery")
}

// until collects what comes up to a message of the given kind.
func (r *raw) until(kind string) []string {
	r.t.Helper()
	_ = r.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	var lines []string
	for {
		msg, err := r.Receive()
		if err != nil {
			r.t.Fatalf("after %q: %v", lines, err)
		}
		line := describe(msg)
		if line == "ParameterStatus lsnproxy.token" {
			continue // a test of its own looks at it
		}
		lines = append(lines, line)
		if len(line) >= len(kind) && line[:len(kind)] == kind {
			return lines
		}
	}
}

// describe tells a message in one line.
func describe(msg pgproto3.BackendMessage) string {
	switch m := msg.(type) {
	case *pgproto3.ReadyForQuery:
		return "ReadyForQuery " + string(m.TxStatus)
	case *pgproto3.CommandComplete:
		return "CommandComplete " + string(m.CommandTag)
	case *pgproto3.ErrorResponse:
		return "ErrorResponse " + m.Code + " " + m.Message
	case *pgproto3.ParameterStatus:
		if m.Name == "lsnproxy.token" {
			return "ParameterStatus " + m.Name
		}
		return "ParameterStatus " + m.Name + " " + m.Value
	case *pgproto3.DataRow:
		line := "DataRow"
		for _, v := range m.Values {
			if len(v) > 200 {
				line += fmt.Sprintf(" (%d bytes)", len(v))
			} else {
				line += " " + string(v)
			}
		}
		return line
	case *pgproto3.NoticeResponse:
		return "NoticeResponse " + m.Message
	case *pgproto3.NotificationResponse:
		return "NotificationResponse " + m.Channel + " " + m.Payload
	}
	return fmt.Sprintf("%T", msg)[len("*pgproto3."):]
}

// testWriter logs to the test, dropping what comes after its end.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(string(p[:len(p)-1]))
	}
	return len(p), nil
}

var _ io.Writer = testWriter{}

// shared is a cluster that tests use which do not disturb its nodes.
var shared struct {
	cluster *pgcluster.Cluster
	err     error
}

func TestMain(m *testing.M) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	shared.cluster, shared.err = pgcluster.Start(ctx, pgcluster.Options{Followers: 2})
	if shared.err == nil {
		shared.err = shared.cluster.WaitStreaming(ctx)
	}
	cancel()
	if shared.err != nil {
		fmt.Fprintln(os.Stderr, shared.err)
		os.Exit(1)
	}
	code := m.Run()
	if err := shared.cluster.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
