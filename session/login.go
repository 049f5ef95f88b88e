package session

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/pool"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/topology"
	"github.com/lsnproxy/lsnproxy/wire"
)

// login speaks the start of the protocol ("Start-up" in the manual) until the
// client is ready to ask. Nobody has proved anything yet, so what it may send is
// short and the time it has is bounded.
func (s *session) login() error {
	_ = s.client.SetReadDeadline(s.begun.Add(s.srv.options.LoginTimeout))
	startup, err := s.readStartup()
	if err != nil {
		return err
	}
	if err := s.negotiate(startup); err != nil {
		return err
	}
	if limit := s.srv.options.Clients; limit > 0 && s.srv.count.Load() > int64(limit) {
		return &wire.Error{Code: "53300", Message: "sorry, too many clients already"}
	}
	if c := s.srv.options.Console; c != nil && startup.Database == c.Database {
		_ = s.client.SetReadDeadline(time.Time{})
		return s.console(startup)
	}
	replicates, err := replication(startup.Params)
	if err != nil {
		return err
	}
	if replicates {
		_ = s.client.SetReadDeadline(time.Time{})
		return s.replicate(startup)
	}
	if err := s.admit(startup); err != nil {
		return err
	}
	_ = s.client.SetReadDeadline(time.Time{})
	return nil
}

// loginOf is what the proxy logs in to servers with, in the client's name.
func (s *session) loginOf(startup wire.Startup) backend.Login {
	return backend.Login{
		User: startup.User, Password: s.srv.options.Passwords[startup.User], Database: startup.Database, Params: startup.Params,
	}
}

// readStartup reads packets until one carries a protocol version.
func (s *session) readStartup() (wire.Startup, error) {
	for {
		packet, err := s.readPacket()
		if err != nil {
			return wire.Startup{}, err
		}
		switch wire.StartupCode(packet) {
		case wire.SSLRequestCode, wire.GSSENCRequestCode:
			s.in.Consume(len(packet))
			if s.in.Len() > 0 { // bytes sent ahead of our answer: see CVE-2021-23214
				return wire.Startup{}, &wire.Error{Code: "08P01", Message: "received unencrypted data after SSL request"}
			}
			if _, err := s.client.Write([]byte{'N'}); err != nil {
				return wire.Startup{}, errEnd
			}
		case wire.CancelRequestCode:
			s.passCancel(packet)
			return wire.Startup{}, errEnd
		default:
			startup, err := wire.ParseStartup(packet)
			s.in.Consume(len(packet))
			if err != nil {
				return startup, &wire.Error{Code: "08P01", Message: err.Error()}
			}
			return startup, nil
		}
	}
}

// readPacket reads one packet of the start, which has no type byte. It stays in
// the buffer.
func (s *session) readPacket() ([]byte, error) {
	for {
		size, ok, err := wire.StartupLen(s.in.Bytes())
		if err != nil {
			return nil, errEnd // not PostgreSQL at all, most likely: say nothing, as PostgreSQL
		}
		if ok && s.in.Len() >= size {
			return s.in.Bytes()[:size], nil
		}
		if err := s.fill(); err != nil {
			return nil, err
		}
	}
}

// negotiate settles the protocol version: 3.0 and 3.2 are spoken, a newer minor
// version is talked down, and protocol options are declined.
func (s *session) negotiate(startup wire.Startup) error {
	if startup.Version>>16 != 3 {
		return &wire.Error{
			Code:    "0A000",
			Message: fmt.Sprintf("unsupported frontend protocol %d.%d: server supports 3.0 to 3.2", startup.Version>>16, startup.Version&0xffff),
		}
	}
	version := min(startup.Version, wire.Version32)
	if version == startup.Version && len(startup.Options) == 0 {
		return nil
	}
	_, err := s.client.Write(wire.AppendNegotiate(nil, version, startup.Options))
	if err != nil {
		return errEnd
	}
	return nil
}

// admit makes the session one of its database, and tells the client all that it
// is told before its first request. The first client with certain login data
// waits for a server connection to be opened with them: the server checks them,
// and what it reports is what the client is told.
func (s *session) admit(startup wire.Startup) error {
	policy := s.srv.policyOf(startup.Database, startup.User)
	s.policy = s.srv.readsOf(policy)
	s.base = s.policy
	params, own := ownParams(startup.Params)
	if err := s.startWith(own); err != nil {
		return err
	}
	startup.Params = params
	s.request = pool.Request{
		Login:       s.loginOf(startup),
		Fingerprint: fingerprint(startup, s.srv.defaults.Load()),
		Interrupted: func() bool { return s.cancelled || s.srv.closing.Load() || s.forsaken() },
	}
	s.lining = noNode
	for i, n := range s.srv.board.View().Nodes {
		s.groups = append(s.groups, s.srv.pool.Group(pool.Key{Node: i, Database: startup.Database, User: startup.User}, n.Address))
	}
	s.turn = randomSeed()
	var g *greeting
	d := s.srv.knownDatabase(startup.Database)
	if d != nil {
		g = d.greeting(s.request.Fingerprint)
	}
	if g == nil {
		params, err := s.firstConnection()
		if err != nil {
			return err
		}
		d = s.srv.database(startup.Database)
		g = d.greet(s.request.Fingerprint, params)
	}
	if err := s.moveIn(); err != nil {
		return err
	}
	if err := s.srv.register(s, policy, startup.Version >= wire.Version32); err != nil {
		return err
	}
	s.dialect, s.settings, s.params = g.dialect, g.settings, g.settings.Begun
	s.mode = policy.Mode
	s.user = d.use(s.request.Login)
	s.db = d

	if _, err := s.client.Write(s.hello(g)); err != nil {
		return errEnd
	}
	return nil
}

// hello is all that a client is told before its first request.
func (s *session) hello(g *greeting) []byte {
	hello := wire.AppendAuthenticationOk(nil)
	hello = append(hello, g.messages...)
	hello = wire.AppendBackendKeyData(hello, s.pid, s.key)
	return wire.AppendReadyForQuery(hello, wire.Idle)
}

// firstConnection opens a server connection for the login and returns what the
// server reported. Any node that serves will do.
func (s *session) firstConnection() (map[string]string, error) {
	s.request.Brief = true
	defer func() { s.request.Brief = false }()
	deadline := time.Now().Add(s.srv.options.LeaderWait)
	for {
		serving := func(v *topology.View) bool { return firstServing(v) != noNode }
		if !s.awaitView(needLeader, serving, deadline) {
			return nil, &wire.Error{Code: "57P03", Message: "no server is usable at the moment"}
		}
		v := s.srv.board.View()
		node := firstServing(v)
		c, g, err := s.borrow(node, node == v.Leader)
		if err == nil {
			params := c.Params
			g.Release(c)
			return params, nil
		}
		if !unreachable(err) && !errors.Is(err, errDeposed) || time.Now().After(deadline) {
			return nil, tellConnect(err)
		}
		if s.task.Sleep(leaderPause); s.srv.closing.Load() {
			return nil, errClosed
		}
	}
}

// firstServing returns the leader, or else a usable follower.
func firstServing(v *topology.View) int {
	if v.Leader != topology.NoLeader {
		return v.Leader
	}
	return route.Pick(v, route.Ask{Stay: noNode}).Node
}

// fingerprint tells logins apart whose server connections cannot be shared. What
// ALTER ROLE, ALTER DATABASE and the configuration say is taken up by a connection
// when it is opened, so changes that were made here count.
func fingerprint(startup wire.Startup, defaults uint64) string {
	params := slices.Clone(startup.Params)
	slices.SortStableFunc(params, func(a, b wire.Param) int { return strings.Compare(a.Name, b.Name) })
	var b strings.Builder
	b.WriteString(startup.User)
	for _, p := range params {
		b.WriteByte(0)
		b.WriteString(p.Name)
		b.WriteByte(0)
		b.WriteString(p.Value)
	}
	if defaults > 0 {
		b.WriteString("\x00\x00" + strconv.FormatUint(defaults, 10))
	}
	return b.String()
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
