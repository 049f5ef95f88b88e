package election

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// gossip is membership and the way for messages. It says who is there, which
// informs people and decides nothing.
type gossip struct {
	id      string
	list    *memberlist.Memberlist
	join    []string
	log     *slog.Logger
	receive func([]byte) // a message, which is the callee's; must not block
	changed func()       // the members have; must not block
	stop    chan struct{}
	wait    sync.WaitGroup

	mu struct {
		sync.Mutex
		meta    meta
		address string
		members map[string]*member
		again   chan struct{} // meta is to be told anew
	}
}

// member is what gossip knows of another proxy.
type member struct {
	node   memberlist.Node // a copy
	meta   meta
	health Health
	since  time.Time
	// Large messages, on their way by a goroutine of its own: a connection that is
	// not answered must hold up nobody else.
	large chan []byte
}

// meta is what members tell of themselves, in at most memberlist.MetaMaxSize bytes.
type meta struct {
	Version     string `json:"v,omitempty"`
	Client      string `json:"c,omitempty"`
	Cancel      string `json:"x,omitempty"`
	HTTP        string `json:"h,omitempty"`
	Number      uint64 `json:"n"`
	Cluster     uint64 `json:"k,omitempty"`
	Incarnation uint64 `json:"i"`
	Leaving     bool   `json:"l,omitempty"` // memberlist does not tell who left from who failed
}

const (
	maxText     = 80   // bytes of each text in meta
	maxDatagram = 1200 // bytes of a message that goes as one datagram
	maxLarge    = 64   // messages that wait for a connection
	joinEvery   = 2 * time.Second
)

// startGossip opens the port and begins to look for the others.
func startGossip(o Options, m meta, receive func([]byte), changed func()) (*gossip, error) {
	if largest := marshalJSON(meta{m.Version, m.Client, m.Cancel, m.HTTP, math.MaxUint64, math.MaxUint64, math.MaxUint64, true}); len(largest) > memberlist.MetaMaxSize {
		return nil, errors.New("version and addresses are too long to tell the others") // memberlist would panic
	}
	g := &gossip{id: o.ID, join: o.Join, log: o.Log, receive: receive, changed: changed, stop: make(chan struct{})}
	g.mu.meta, g.mu.members, g.mu.again = m, map[string]*member{}, make(chan struct{}, 1)
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label, c.SecretKey = o.ID, o.Label, o.Key
	c.Delegate, c.Events, c.Conflict = g, g, g
	c.EnableCompression = false // messages are small
	c.TCPTimeout = 2 * time.Second
	c.DeadNodeReclaimTime = 10 * time.Second // a proxy may come back with another address
	c.Logger = log.New(lines{o.Log}, "", 0)
	var err error
	if c.BindAddr, c.BindPort, err = splitAddress(o.Bind); err != nil {
		return nil, err
	}
	c.AdvertisePort = c.BindPort
	if o.Advertise != "" {
		if c.AdvertiseAddr, c.AdvertisePort, err = splitAddress(o.Advertise); err != nil {
			return nil, err
		}
	}
	if o.transport != nil {
		if c.Transport, err = o.transport(c.BindAddr, c.BindPort); err != nil {
			return nil, err
		}
	}
	if g.list, err = memberlist.Create(c); err != nil {
		return nil, fmt.Errorf("open the port for gossip: %w", err)
	}
	// Ended by close, which waits for it.
	g.wait.Go(g.seek)
	return g, nil
}

// splitAddress splits host:port. memberlist wants addresses, not names.
func splitAddress(address string) (string, int, error) {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return "", 0, err
	}
	host := "0.0.0.0"
	if a.IP != nil {
		host = a.IP.String()
	}
	return host, a.Port, nil
}

// address is where others reach this proxy's gossip. memberlist's own answer,
// LocalNode, is a pointer to what it changes.
func (g *gossip) address() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.address
}

// seek joins the others, again and again while some are missing, and tells them
// what has changed about this proxy.
func (g *gossip) seek() {
	every := time.NewTicker(joinEvery)
	defer every.Stop()
	for quiet := false; ; {
		if len(g.join) > 0 && g.lonely() {
			if _, err := g.list.Join(g.join); err != nil && !quiet {
				g.log.Warn("no other proxy found; going on trying", "join", g.join, "error", err)
				quiet = true
			} else if err == nil {
				quiet = false
			}
		}
		select {
		case <-g.mu.again:
			if err := g.list.UpdateNode(time.Second); err != nil {
				g.log.Debug("gossip about this proxy was not confirmed", "error", err)
			}
		case <-every.C:
		case <-g.stop:
			return
		}
	}
}

// lonely reports whether anybody is missing, as far as is known.
func (g *gossip) lonely() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	missing := len(g.mu.members) < len(g.join)
	for _, m := range g.mu.members {
		missing = missing || m.health != Alive
	}
	return missing
}

// tell changes what this proxy tells of itself.
func (g *gossip) tell(cluster uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.meta.Cluster != cluster {
		g.mu.meta.Cluster = cluster
		select {
		case g.mu.again <- struct{}{}:
		default:
		}
	}
}

// send sends a message to a member, by a datagram if it fits in one. It may be
// lost in either case, and nobody learns of it.
func (g *gossip) send(to string, body []byte) {
	g.mu.Lock()
	m := g.mu.members[to]
	if m == nil {
		g.mu.Unlock()
		return
	}
	if len(body) > maxDatagram {
		g.sendLarge(m, body)
		g.mu.Unlock()
		return
	}
	node := m.node
	g.mu.Unlock()
	_ = g.list.SendBestEffort(&node, body)
}

// sendLarge puts a message in the member's line; mu is held.
func (g *gossip) sendLarge(m *member, body []byte) {
	if m.large == nil {
		m.large = make(chan []byte, maxLarge)
		// Ended by close, which waits for it.
		g.wait.Go(func() { g.deliver(m) })
	}
	select {
	case m.large <- body:
	default: // raft sends again what is missing
	}
}

func (g *gossip) deliver(m *member) {
	for {
		select {
		case body := <-m.large:
			g.mu.Lock()
			node := m.node
			g.mu.Unlock()
			if err := g.list.SendReliable(&node, body); err != nil {
				g.log.Debug("message not delivered", "to", node.Name, "error", err)
			}
		case <-g.stop:
			return
		}
	}
}

// close says goodbye, for at most as long as patience, and waits for all that
// startGossip began.
func (g *gossip) close(patience time.Duration) {
	close(g.stop)
	g.mu.Lock()
	g.mu.meta.Leaving = true
	g.mu.Unlock()
	patience = max(patience, time.Millisecond)
	if err := errors.Join(g.list.UpdateNode(patience/2), g.list.Leave(patience/2)); err != nil {
		g.log.Debug("goodbye was not heard by all", "error", err)
	}
	_ = g.list.Shutdown() // errors are of ports that are closed by then
	g.wait.Wait()
}

// NodeMeta, NotifyMsg, GetBroadcasts, LocalState and MergeRemoteState make gossip
// a memberlist.Delegate.
func (g *gossip) NodeMeta(int) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return marshalJSON(g.mu.meta)
}

// NotifyMsg must neither keep b nor block.
func (g *gossip) NotifyMsg(b []byte) {
	if len(b) <= maxMessage {
		g.receive(append([]byte(nil), b...))
	}
}

func (g *gossip) GetBroadcasts(int, int) [][]byte { return nil }
func (g *gossip) LocalState(bool) []byte          { return nil }
func (g *gossip) MergeRemoteState([]byte, bool)   {}

// NotifyJoin, NotifyLeave and NotifyUpdate make it an EventDelegate.
func (g *gossip) NotifyJoin(n *memberlist.Node)   { g.note(n, Alive) }
func (g *gossip) NotifyLeave(n *memberlist.Node)  { g.note(n, Failed) }
func (g *gossip) NotifyUpdate(n *memberlist.Node) { g.note(n, Alive) }

// NotifyConflict makes it a ConflictDelegate.
func (g *gossip) NotifyConflict(existing, other *memberlist.Node) {
	g.log.Error("two proxies have the same id", "id", existing.Name, "one", existing.Address(), "other", other.Address())
}

// maxMembers bounds who is remembered, those who are gone included.
const maxMembers = 256

// note takes what memberlist says of a member; its locks are held.
func (g *gossip) note(n *memberlist.Node, health Health) {
	if n.Name == g.id {
		g.mu.Lock()
		g.mu.address = n.Address()
		g.mu.Unlock()
		return
	}
	if n.Name == "" || len(n.Name) > MaxID {
		return
	}
	var t meta
	if json.Unmarshal(n.Meta, &t) != nil || len(t.Version) > maxText || len(t.Client) > maxText || len(t.Cancel) > maxText || len(t.HTTP) > maxText {
		return
	}
	g.mu.Lock()
	m := g.mu.members[n.Name]
	if m == nil {
		if len(g.mu.members) >= maxMembers {
			g.mu.Unlock()
			return
		}
		m = &member{}
		g.mu.members[n.Name] = m
	}
	if health == Failed && t.Leaving {
		health = Left
	}
	if m.health != health {
		m.since = time.Now()
	}
	m.node, m.meta, m.health = *n, t, health
	g.mu.Unlock()
	g.changed()
}

// picture gives the other members, for people and for core.
func (g *gossip) picture() (map[string]Member, map[string]peer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	people, peers := map[string]Member{}, map[string]peer{}
	for id, m := range g.mu.members {
		people[id] = Member{
			ID: id, Address: m.node.Address(), Version: m.meta.Version, Client: m.meta.Client,
			Cancel: m.meta.Cancel, HTTP: m.meta.HTTP, Health: m.health, Since: m.since,
		}
		peers[id] = peer{id: id, number: m.meta.Number, cluster: m.meta.Cluster, incarnation: m.meta.Incarnation, gone: m.health != Alive}
	}
	return people, peers
}

// lines takes memberlist's log, a line at a time.
type lines struct{ log *slog.Logger }

func (l lines) Write(b []byte) (int, error) {
	text := strings.TrimSpace(string(b))
	level := slog.LevelDebug
	if strings.HasPrefix(text, "[ERR]") || strings.HasPrefix(text, "[WARN]") {
		level = slog.LevelInfo // such as a member that does not answer, which State tells too
	}
	_, text, _ = strings.Cut(text, "] ")
	l.log.Log(context.Background(), level, text, "from", "gossip")
	return len(b), nil
}
