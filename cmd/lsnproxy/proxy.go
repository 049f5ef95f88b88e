package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/lsnproxy/lsnproxy/admin"
	"github.com/lsnproxy/lsnproxy/election"
	"github.com/lsnproxy/lsnproxy/failover"
	"github.com/lsnproxy/lsnproxy/lagwatch"
	"github.com/lsnproxy/lsnproxy/pool"
	"github.com/lsnproxy/lsnproxy/reactor"
	"github.com/lsnproxy/lsnproxy/session"
	"github.com/lsnproxy/lsnproxy/topology"
)

// proxy is the graph of everything that runs, from the bottom to the top.
type proxy struct {
	log    *slog.Logger
	board  *topology.Board
	engine *reactor.Engine
	watch  *lagwatch.Watcher
	pool   *pool.Pool
	server *session.Server

	clients  net.Listener
	http     *admin.Port      // nil without one
	election *election.Node   // nil for one proxy alone
	mandate  mandate          // that election gives this proxy
	failover *failover.Runner // nil if nobody need say who leads
	stage    atomic.Int32
}

// The stages of a proxy's life, for /readyz.
const (
	starting int32 = iota
	serving
	stopping
)

// startProxy opens both ports, the one for HTTP first, and serves until close.
func startProxy(c config, log *slog.Logger) (*proxy, error) {
	p := &proxy{log: log, board: topology.NewBoard(c.Nodes)}
	var err error
	if p.clients, err = net.Listen("tcp", c.Listen); err != nil {
		return nil, fmt.Errorf("open the client port: %w", err)
	}
	loops := c.Engine.Loops
	if loops == 0 {
		loops = max(1, runtime.GOMAXPROCS(0)/2)
	}
	p.engine, err = reactor.New(reactor.Options{Loops: loops, BufferSize: session.BufferSize, Keepalive: c.TCP.keepalive(), Log: log})
	if err != nil {
		p.clients.Close()
		return nil, err
	}
	p.watch = lagwatch.New(p.board, p.engine, watchOptions(c, log))
	p.pool = pool.New(poolOptions(c, log))
	o := sessionOptions(c, log)
	if c.needsElection() {
		o.Mandate, o.Elsewhere = &p.mandate, p.mandate.elsewhere
	}
	o.Console = p.console(c)
	p.server = session.NewServer(o, p.engine, p.pool, p.board, p.watch)
	if err := p.open(c); err != nil {
		p.close(0)
		return nil, err
	}
	return p, nil
}

func (p *proxy) open(c config) (err error) {
	if c.HTTP != "" {
		p.http, err = admin.Listen(c.HTTP, admin.Handler(p.source(c), versionText(), p.log), p.log)
		if err != nil {
			return err
		}
	}
	if err := p.startElection(c); err != nil {
		return err
	}
	p.watch.Start()
	p.startFailover(c)
	if err := p.server.Serve(p.clients); err != nil {
		return err
	}
	p.stage.Store(serving)
	return nil
}

// close ends what startProxy began, from the top to the bottom. Clients may
// finish their transactions for as long as grace.
func (p *proxy) close(grace time.Duration) {
	p.stage.Store(stopping)
	p.clients.Close() // first, so that new clients are refused at once and go elsewhere
	p.server.Close(grace)
	p.pool.Close()
	p.stopFailover()
	p.stopElection()
	p.watch.Close()
	p.engine.Close()
	if p.http != nil {
		p.http.Close()
	}
}

// ready says in what way the proxy can serve, or why it cannot.
func (p *proxy) ready() (string, error) {
	switch p.stage.Load() {
	case starting:
		return "", errors.New("the client port is not open yet")
	case stopping:
		return "", errors.New("shutting down")
	}
	v := p.board.View()
	followers := usableFollowers(v)
	switch {
	case v.Leader != topology.NoLeader:
		return fmt.Sprintf("leader %s, usable followers: %d of %d", v.Nodes[v.Leader].Address, followers, len(v.Nodes)-1), nil
	case followers > 0:
		return fmt.Sprintf("no leader, usable followers: %d", followers), nil
	default:
		return "", errors.New("neither a leader nor a usable follower" + nodesText(v))
	}
}

func usableFollowers(v *topology.View) int {
	count := 0
	for i := range v.Nodes {
		if v.Nodes[i].Role == topology.RoleFollower && v.Nodes[i].State == topology.Usable {
			count++
		}
	}
	return count
}

// nodesText says what is known of every node, on a line for each.
func nodesText(v *topology.View) string {
	text := ""
	for i := range v.Nodes {
		n := &v.Nodes[i]
		text += fmt.Sprintf("\n%s: %s, %s", n.Address, n.Role, n.State)
		if n.Detail != "" {
			text += ": " + n.Detail
		}
	}
	return text
}

func (c tcpConfig) keepalive() reactor.Keepalive {
	return reactor.Keepalive{On: c.Keepalive, Idle: c.KeepIdle, Interval: c.KeepIntvl, Count: c.KeepCnt, UserTimeout: c.UserTimeout}
}

func watchOptions(c config, log *slog.Logger) lagwatch.Options {
	return lagwatch.Options{
		User: c.Monitor.User, Password: c.Monitor.Password, Database: c.Monitor.Database,
		Interval: c.Monitor.Interval, Timeout: c.Monitor.Timeout,
		MaxLag: c.Reads.MaxLag, MaxLagBytes: uint64(c.Reads.MaxLagBytes),
		Weights: c.weights(), SlowStart: c.Reads.SlowStart,
		Log: log,
	}
}

func poolOptions(c config, log *slog.Logger) pool.Options {
	return pool.Options{
		LimitsOf: c.limitsOf, Connect: c.Pool.Connect, Log: log,
	}
}

func sessionOptions(c config, log *slog.Logger) session.Options {
	passwords := make(map[string]string, len(c.Users))
	for _, u := range c.Users {
		passwords[u.Name] = u.Password
	}
	return session.Options{
		Passwords:    passwords,
		LoginTimeout: c.LoginTimeout, Policy: c.Reads.policy(), Nearest: c.Reads.Prefer == "nearest", Return: c.Reads.ReturnAfter, Silence: c.Reads.Silence, LeaderWait: c.LeaderWait,
		Clients: c.MaxClients, Replications: c.Replication.MaxConnections, Statements: c.MaxPreparedStatements,
		PolicyOf:        c.policyOf,
		IgnorePositions: c.Test.IgnorePositions,
		Log:             log,
	}
}

// newLog makes the log that the configuration asks for.
func newLog(c logConfig, level slog.Leveler, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
