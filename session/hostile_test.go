package session_test

import (
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// hostile is a proxy for clients that say anything, and a session of another
// client beside them.
type hostile struct {
	*proxy
	bystander *raw
}

func startHostile(t testing.TB) hostile {
	p := startProxy(t, shared.cluster, func(s *settings) {
		s.pool.Size = 4
		s.silence()
	})
	p.awaitFollowers(t, 2)
	return hostile{p, p.dialRaw(t, nil)}
}

// silence logs nothing: what is logged inside a fuzz target must not go to the
// fuzzer's test, and there is a lot of it.
func (s *settings) silence() {
	log := slog.New(slog.DiscardHandler)
	s.session.Log, s.pool.Log, s.watch.Log = log, log, log
}

// endure lets a client say data, after its login, and leave. Whatever it was, the
// client is answered or dropped, nothing panics and the other session is served.
func (h hostile) endure(t testing.TB, data []byte) {
	t.Helper()
	r := h.dialRaw(t, map[string]string{"options": "-c statement_timeout=1s"})
	go func() { // ends with the connection at the latest, which is closed below
		_, _ = r.conn.Write(data)
		if tcp, ok := r.conn.(interface{ CloseWrite() error }); ok {
			_ = tcp.CloseWrite()
		}
	}()
	_ = r.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.Copy(io.Discard, r.conn); isTimeout(err) {
		t.Fatalf("neither answered nor dropped: %q", data)
	}
	_ = r.conn.Close()
	h.bystander.t = t // the fuzzer has one for each stream
	h.bystander.expect(query("select 1"), "RowDescription", "DataRow 1", "CommandComplete SELECT 1", "ReadyForQuery I")
	if n := h.server.Stat().Panics; n > 0 {
		t.Fatalf("%d panics by %q", n, data)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(interface{ Timeout() bool })
	return ok && e.Timeout()
}

// streams are what is said on purpose, to be spoilt.
func streams() (all [][]byte) {
	for _, turns := range conversations {
		var b []byte
		for _, turn := range turns {
			if said := turn.bytes(); len(said) < 4<<10 {
				b = append(b, said...)
			}
		}
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b []byte) int { return slices.Compare(a, b) })
	return append(all, encoded(&pgproto3.FunctionCall{Function: 1598}, sync), []byte("Q\x00\x00\x00\x04"), []byte("B\x7f\xff\xff\xff"))
}

// TestHostileClients sends streams with bytes changed, left out and doubled.
func TestHostileClients(t *testing.T) { spoilStreams(t, rand.New(rand.NewPCG(3, 1)), 300) }

func spoilStreams(t *testing.T, rng *rand.Rand, times int) {
	h := startHostile(t)
	all := streams()
	for range times {
		h.endure(t, spoil(rng, all[rng.IntN(len(all))]))
	}
}

// spoil changes a few places of a stream.
func spoil(rng *rand.Rand, stream []byte) []byte {
	b := slices.Clone(stream)
	for range 1 + rng.IntN(4) {
		if len(b) < 2 {
			break
		}
		i := rng.IntN(len(b))
		j := i + rng.IntN(min(len(b)-i, 40))
		switch rng.IntN(4) {
		case 0:
			b[i] = byte(rng.Uint32())
		case 1:
			b[i] ^= 1 << rng.IntN(8)
		case 2:
			b = slices.Delete(b, i, j)
		default:
			b = slices.Insert(b, i, b[i:j]...)
		}
	}
	return b
}

// FuzzHostileClient looks for streams that do harm.
func FuzzHostileClient(f *testing.F) {
	for _, b := range streams() {
		f.Add(b)
	}
	h := startHostile(f)
	f.Fuzz(func(t *testing.T, data []byte) { h.endure(t, data) })
}
