package history

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// splitter is what the checker exists to catch: it sends SELECTs outside
// transactions to a follower chosen at random, with no thought of what the
// follower has applied, and everything else to the leader.
type splitter struct {
	nodes    []string // the leader first
	listener net.Listener
	sessions sync.WaitGroup
}

func startSplitter(t *testing.T, leader string, followers ...string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &splitter{nodes: append([]string{leader}, followers...), listener: listener}
	s.sessions.Go(s.accept) // ends when the listener is closed, below
	t.Cleanup(func() {
		listener.Close()
		s.sessions.Wait()
	})
	return listener.Addr().String()
}

func (s *splitter) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.sessions.Go(func() { // ends when either side closes; awaited with accept
			defer conn.Close()
			s.serve(conn)
		})
	}
}

func (s *splitter) serve(conn net.Conn) {
	client := pgproto3.NewBackend(conn, conn)
	if _, err := client.ReceiveStartupMessage(); err != nil {
		return
	}
	var servers []*pgconn.HijackedConn
	for _, address := range s.nodes {
		server, err := dial(address)
		if err != nil {
			return
		}
		defer server.Conn.Close()
		servers = append(servers, server)
	}
	client.Send(&pgproto3.AuthenticationOk{})
	client.Send(&pgproto3.BackendKeyData{ProcessID: servers[0].PID, SecretKey: servers[0].SecretKey})
	client.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	status, names := byte('I'), make(map[string]string)
	for client.Flush() == nil {
		flight, text, named, err := receive(client, names)
		if err != nil {
			return
		}
		targets := servers[:1]
		if named {
			targets = servers // a statement may run anywhere later
		} else if status == 'I' && strings.HasPrefix(text, "SELECT") {
			i := 1 + rand.IntN(len(servers)-1)
			targets = servers[i : i+1]
		}
		for i, server := range targets {
			to := client
			if i > 0 {
				to = nil
			}
			at, err := exchange(server, flight, to)
			if err != nil {
				return
			}
			if server == servers[0] {
				status = at
			}
		}
	}
}

func dial(address string) (*pgconn.HijackedConn, error) {
	conn, err := pgconn.Connect(context.Background(), "postgres://postgres@"+address+"/postgres?sslmode=disable")
	if err != nil {
		return nil, err
	}
	return conn.Hijack()
}

// receive collects what the client sends up to a Query or a Sync. It tells the
// text of the statement and whether a named one was prepared.
func receive(client *pgproto3.Backend, names map[string]string) (flight []byte, text string, named bool, err error) {
	for {
		message, err := client.Receive()
		if err != nil {
			return nil, "", false, err
		}
		if flight, err = message.Encode(flight); err != nil {
			return nil, "", false, err
		}
		switch m := message.(type) {
		case *pgproto3.Query:
			return flight, m.String, false, nil
		case *pgproto3.Parse:
			text, names[m.Name] = m.Query, m.Query
			named = named || m.Name != ""
		case *pgproto3.Bind:
			text = names[m.PreparedStatement]
		case *pgproto3.Sync:
			return flight, text, named, nil
		case *pgproto3.Terminate:
			return nil, "", false, errors.New("client left")
		}
	}
}

// exchange sends a flight to a server and its answer to the client, if any.
func exchange(server *pgconn.HijackedConn, flight []byte, client *pgproto3.Backend) (status byte, err error) {
	if _, err := server.Conn.Write(flight); err != nil {
		return 0, err
	}
	for {
		message, err := server.Frontend.Receive()
		if err != nil {
			return 0, err
		}
		if client != nil {
			client.Send(message)
		}
		if m, ok := message.(*pgproto3.ReadyForQuery); ok {
			return m.TxStatus, nil
		}
	}
}
