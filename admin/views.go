package admin

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Client is one client.
type Client struct {
	Address, User, Database, State string
	PID                            uint32 // that it was told
	Begun                          time.Time
	Pinned                         string // why it holds its server connection beyond the transaction
	Node                           string // of that connection; "" if it holds none
	ServerPID                      uint32
	Token                          string
}

// Server is one connection to a server.
type Server struct {
	Node, Database, User, State string // active or idle
	PID                         uint32 // of the server's process
	Begun                       time.Time
	Client                      string // who uses it
}

// Setting is one of the configuration.
type Setting struct{ Key, Value, Default string }

// views are what SHOW shows, in the order of SHOW HELP.
var views = []view{
	{
		"nodes", "the servers, and who leads",
		[]string{"node", "role", "state", "leader", "timeline", "position", "received", "lag_bytes", "lag", "age", "reads", "writes"},
		nodeRows,
	},
	{
		"pools", "the server connections, by node, database and user",
		[]string{"node", "database", "user", "open", "idle", "active", "waiting", "opened", "failed", "destroyed", "timed_out", "lent", "waited"},
		poolRows,
	},
	{
		"clients", "the clients of this proxy",
		[]string{"address", "user", "database", "state", "pid", "connected", "pinned", "node", "server_pid", "token"},
		clientRows,
	},
	{
		"servers", "the server connections of this proxy, one by one",
		[]string{"node", "database", "user", "state", "pid", "connected", "client"},
		serverRows,
	},
	{"version", "the version of this proxy", []string{"version"}, func(s *Source) [][]string { return [][]string{{s.status().Version}} }},
	{"config", "the configuration of this proxy", []string{"key", "value", "default"}, configRows},
	{
		"members", "the proxies",
		[]string{"id", "votes", "health", "since", "address", "client", "http", "version", "coordinates"},
		memberRows,
	},
	{
		"lease", "who leads as the proxies have agreed, and this one's right to write",
		[]string{"proxy", "epoch", "leader", "timeline", "lease_epoch", "lease_seconds", "retiring", "coordinator", "term", "quorum", "trouble"},
		leaseRows,
	},
	{
		"failover", "how far a change of the leader has come, as this proxy sees it",
		[]string{"coordinates", "phase", "blocked", "why"},
		failoverRows,
	},
	{
		"failovers", "the changes of the leader so far, also when the database is down",
		[]string{"epoch", "old_leader", "new_leader", "trigger", "timeline", "began", "promoted_at", "lag_at_promotion"},
		changeRows,
	},
}

func (s *Source) status() Status {
	if s.Status == nil {
		return Status{}
	}
	return s.Status()
}

// cluster is what the proxies have agreed; false: this one is alone.
func (s *Source) cluster() (*Cluster, bool) {
	c := s.status().Cluster
	return c, c != nil
}

func nodeRows(s *Source) (rows [][]string) {
	snapshot := s.Snapshot()
	reads := make(map[string]uint64)
	for _, r := range snapshot.Sessions.Reads {
		reads[r.Node] += r.Count
	}
	positions := make(map[string]string)
	for _, n := range s.status().Nodes {
		positions[n.Address] = n.Position
	}
	for _, n := range snapshot.Nodes {
		lagBytes, lag, age := "", "", ""
		if n.Follows && n.LagKnown {
			lagBytes, lag = digits(n.LagBytes), n.Lag.Round(time.Millisecond).String()
		}
		if n.AgeKnown {
			age = n.Age.Round(time.Millisecond).String()
		}
		rows = append(rows, []string{
			n.Address, n.Role, n.State, yes(n.Leader), digits(n.Timeline), positions[n.Address],
			fmt.Sprintf("%X/%X", n.Received>>32, uint32(n.Received)), lagBytes, lag, age, digits(reads[n.Address]), digits(n.Writes),
		})
	}
	return rows
}

func poolRows(s *Source) (rows [][]string) {
	for _, p := range s.Snapshot().Pools {
		rows = append(rows, []string{
			p.Node, p.Database, p.User, digits(p.Open), digits(p.Idle), digits(p.Open - p.Idle), digits(p.Waiting),
			digits(p.Opened), digits(p.Failed), digits(p.Destroyed), digits(p.TimedOut), digits(p.Lent), p.Waited.String(),
		})
	}
	return ordered(rows)
}

func clientRows(s *Source) (rows [][]string) {
	if s.Clients == nil {
		return nil
	}
	all := s.Clients()
	slices.SortFunc(all, func(a, b Client) int { return a.Begun.Compare(b.Begun) })
	for _, c := range all {
		server := ""
		if c.Node != "" {
			server = digits(c.ServerPID)
		}
		rows = append(rows, []string{c.Address, c.User, c.Database, c.State, digits(c.PID), moment(c.Begun), c.Pinned, c.Node, server, c.Token})
	}
	return rows
}

func serverRows(s *Source) (rows [][]string) {
	if s.Servers == nil {
		return nil
	}
	for _, c := range s.Servers() {
		rows = append(rows, []string{c.Node, c.Database, c.User, c.State, digits(c.PID), moment(c.Begun), c.Client})
	}
	return ordered(rows)
}

func configRows(s *Source) (rows [][]string) {
	if s.Config == nil {
		return nil
	}
	for _, c := range s.Config() {
		rows = append(rows, []string{c.Key, c.Value, c.Default})
	}
	return rows
}

func memberRows(s *Source) (rows [][]string) {
	c, ok := s.cluster()
	if !ok {
		return nil
	}
	for _, m := range c.Members {
		rows = append(rows, []string{m.ID, yes(m.Votes), m.Health, moment(m.Since), m.Address, m.Client, m.HTTP, m.Version, yes(m.ID == c.Coordinator)})
	}
	return rows
}

func leaseRows(s *Source) [][]string {
	c, ok := s.cluster()
	if !ok {
		return nil
	}
	return [][]string{{
		c.Self, digits(c.Decree.Epoch), c.Decree.Leader, digits(c.Decree.Timeline), digits(c.Lease.Epoch),
		strconv.FormatFloat(c.Lease.Seconds, 'f', 3, 64), yes(c.Lease.Retiring), c.Coordinator, digits(c.Term), yes(c.Quorum), c.Trouble,
	}}
}

func failoverRows(s *Source) [][]string {
	f := s.status().Failover
	if f == nil {
		return nil
	}
	return [][]string{{yes(f.Coordinates), f.Phase, yes(f.Blocked), f.Why}}
}

func changeRows(s *Source) (rows [][]string) {
	c, ok := s.cluster()
	if !ok {
		return nil
	}
	for _, f := range c.Failovers {
		rows = append(rows, []string{
			digits(f.Epoch), f.Old, f.New, f.Trigger, digits(f.Timeline), moment(f.Began), moment(f.PromotedAt), digits(f.LostAtMost),
		})
	}
	return rows
}

// ordered sorts rows by their columns, the first first.
func ordered(rows [][]string) [][]string {
	slices.SortFunc(rows, slices.Compare[[]string])
	return rows
}

func digits[T cmp.Ordered](n T) string { return fmt.Sprint(n) }

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000Z07:00") }
