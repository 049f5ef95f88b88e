package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lsnproxy/lsnproxy/session"
)

// check finds the values that make no sense.
func (c *config) check(found *problems) {
	address := func(key, value string, least int) {
		if err := checkAddress(value, least); err != nil {
			found.add(key, "%v", err)
		}
	}
	address("listen", c.Listen, 0)
	if c.HTTP != "" {
		address("http", c.HTTP, 0)
	}
	if n := len(c.Nodes); n > session.MaxNodes {
		found.add("nodes", "%d servers; the most is %d", n, session.MaxNodes)
	}
	for i, n := range c.Nodes {
		key := fmt.Sprintf("nodes[%d]", i)
		address(key, n, 1)
		if slices.Contains(c.Nodes[:i], n) {
			found.add(key, "%s is there twice", n)
		}
	}
	c.checkLogins(found)
	c.checkCluster(found)
	c.checkFailover(found)
	c.checkConsole(found)

	positive := func(key string, d time.Duration) {
		if d <= 0 {
			found.add(key, "must be more than 0, not %v", d)
		}
	}
	orNone := func(key string, d time.Duration) {
		if d < 0 {
			found.add(key, "must not be negative: %v", d)
		}
	}
	least := func(key string, n, least int) {
		if n < least {
			found.add(key, "must be at least %d, not %d", least, n)
		}
	}
	positive("monitor.interval", c.Monitor.Interval)
	positive("monitor.timeout", c.Monitor.Timeout)
	c.checkPools(found)
	positive("pool.connect", c.Pool.Connect)
	c.checkReads(found)
	least("replication.max_connections", c.Replication.MaxConnections, 0)
	c.TCP.check(found)
	orNone("leader_wait", c.LeaderWait)
	positive("login_timeout", c.LoginTimeout)
	least("max_clients", c.MaxClients, 0)
	least("max_prepared_statements", c.MaxPreparedStatements, 1)
	least("engine.loops", c.Engine.Loops, 0)
	orNone("shutdown_grace", c.ShutdownGrace)
	if c.Log.Format != "text" && c.Log.Format != "json" {
		found.add("log.format", "want text or json, not %q", c.Log.Format)
	}
}

// check finds what the kernel would not take (do_tcp_setsockopt in net/ipv4/tcp.c): times to
// ask at in whole seconds up to MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL and MAX_TCP_KEEPCNT.
func (c tcpConfig) check(found *problems) {
	const most = 32767 * time.Second
	for key, d := range map[string]time.Duration{"tcp.keepidle": c.KeepIdle, "tcp.keepintvl": c.KeepIntvl} {
		if d < 0 || d > most || d%time.Second != 0 {
			found.add(key, "want whole seconds up to %v, not %v", most, d)
		}
	}
	if c.KeepCnt < 0 || c.KeepCnt > 127 {
		found.add("tcp.keepcnt", "want a number up to 127, not %d", c.KeepCnt)
	}
	if d := c.UserTimeout; d < 0 || d > 24*24*time.Hour || d%time.Millisecond != 0 {
		found.add("tcp.user_timeout", "want whole milliseconds up to 24 days, not %v", d)
	}
}

// checkAddress checks host:port. The host may be empty where one listens: that
// is every address. Port 0, where it is allowed, is any free one.
func checkAddress(address string, leastPort int) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("want host:port, not %q", address)
	}
	if host == "" && leastPort > 0 {
		return fmt.Errorf("want host:port, not %q: there is no host", address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < leastPort || n > 65535 {
		return fmt.Errorf("want host:port, not %q: a port is a number from %d to 65535", address, leastPort)
	}
	return nil
}

func (c *config) checkLogins(found *problems) {
	if c.Monitor.User == "" {
		found.add("monitor.user", "must not be empty")
	}
	if c.Monitor.Database == "" {
		found.add("monitor.database", "must not be empty")
	}
	for i, u := range c.Users {
		key := fmt.Sprintf("users[%d].name", i)
		if u.Name == "" {
			found.add(key, "must not be empty")
		} else if slices.ContainsFunc(c.Users[:i], func(o userConfig) bool { return o.Name == u.Name }) {
			found.add(key, "%s is there twice", u.Name)
		}
	}
	for i, d := range c.Databases {
		key := fmt.Sprintf("databases[%d].name", i)
		if d.Name == "" {
			found.add(key, "must not be empty")
		} else if slices.ContainsFunc(c.Databases[:i], func(o databaseConfig) bool { return o.Name == d.Name }) {
			found.add(key, "%s is there twice", d.Name)
		}
	}
}

// readPasswords reads the passwords, and the key, that stand in files.
func (c *config) readPasswords(found *problems) {
	read := func(key string, password *string, file string) {
		_, what, _ := strings.Cut(key, ".")
		switch {
		case file == "":
		case *password != "":
			found.add(key+"_file", "there is a %s too: give one of them", what)
		default:
			text, err := os.ReadFile(file)
			if err != nil {
				found.add(key+"_file", "%v", err)
			}
			*password = strings.TrimRight(string(text), "\r\n")
		}
	}
	read("monitor.password", &c.Monitor.Password, c.Monitor.PasswordFile)
	read("failover.password", &c.Failover.Password, c.Failover.PasswordFile)
	read("cluster.key", &c.Cluster.Key, c.Cluster.KeyFile)
	for i := range c.Users {
		u := &c.Users[i]
		read(fmt.Sprintf("users[%d].password", i), &u.Password, u.PasswordFile)
	}
}

// warnings are what is allowed and yet worth a second look.
func (c *config) warnings() []string {
	var all []string
	if !loopback(c.Listen) {
		all = append(all, "listen: "+c.Listen+" is not on loopback only, and clients are not authenticated: "+
			"whoever can reach it can act as any user that the servers let this proxy log in as")
	}
	all = append(all, c.clusterWarnings()...)
	if c.Test.IgnorePositions {
		all = append(all, "test.ignore_positions: reads may miss what was written; every promise is off")
	}
	return all
}

// warn logs the warnings.
func (c *config) warn(log *slog.Logger) {
	for _, w := range c.warnings() {
		log.Warn(w)
	}
}

// loopback reports whether only this machine can reach address.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
