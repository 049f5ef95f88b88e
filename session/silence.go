package session

import (
	"errors"
	"time"

	"github.com/lsnproxy/lsnproxy/topology"
)

// A host that vanishes ends no connection: whoever waits for an answer from there waits until
// TCP gives up, which is a quarter of an hour for what was not acknowledged. The watcher asks
// every server all the time, so it knows sooner. Reads that wait for a follower which has
// fallen silent run elsewhere then. The leader's connections are left to whoever says that
// another leads (warden), and to TCP: there it counts what has been carried out.

// errSilent is the cause of a connection's loss when it was cut because its server is silent.
var errSilent = errors.New("the server neither answers nor refuses")

// attendant gives up connections to followers that have fallen silent. It is a goroutine of the
// server, which ends with its context; Close waits for it.
func (s *Server) attendant() {
	defer s.loads.Done()
	if s.options.Silence == 0 {
		return
	}
	look := time.NewTicker(max(s.options.Silence/10, 10*time.Millisecond))
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-s.ctx.Done():
			return
		}
		v := s.board.View()
		for i := range v.Nodes {
			if n := &v.Nodes[i]; n.Silent != 0 && topology.Now().Since(n.Silent) >= s.options.Silence {
				for _, h := range s.homes {
					h.loop.Post(func() { h.giveUp(i) })
				}
			}
		}
	}
}

// giveUp closes the connections of one loop's sessions to a follower, unless something has come
// over them lately.
func (h *home) giveUp(node int) {
	for x := range h.sessions {
		if x.conn == nil || x.conn.Node != node || x.onLeader || x.cut != nil || x.conn.Net.Quiet() < x.srv.options.Silence {
			continue
		}
		x.srv.metrics.silent.Add(1)
		x.cut = errSilent
		_ = x.conn.Net.Close() // which wakes the session
	}
}
