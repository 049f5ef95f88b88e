package election

import (
	"bytes"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// What is encoded is decoded to the same, and a message cut short is refused.
func TestHeader(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := header{
			kind: kind(rapid.Byte().Draw(t, "kind")), cluster: rapid.Uint64().Draw(t, "cluster"),
			sender: rapid.Uint64().Draw(t, "sender"), name: string(rapid.SliceOfN(rapid.Byte(), 1, MaxID).Draw(t, "name")),
		}
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		b := encode(h, body)
		if got, rest, err := decode(b); err != nil || got != h || !bytes.Equal(rest, body) {
			t.Fatalf("%+v, %v, %v", got, rest, err)
		}
		for cut := range headerMin + len(h.name) {
			if _, _, err := decode(b[:cut]); err == nil {
				t.Fatalf("%d bytes of %d are taken for a message", cut, len(b))
			}
		}
	})
}

// lively is a core in the middle of its life: founded, coordinating, with a log.
func lively(seed uint64) (*world, *proxy) {
	w := &world{Rand: rand.New(rand.NewPCG(seed, 3)), disks: map[uint64]*kept{}}
	p := &proxy{id: "p0", disk: &kept{founding: founding{Number: 7}}}
	s := w.settings()
	s.voters = []string{"p0"}
	p.core = newCore(s, peer{id: "p0", number: 7, incarnation: 9}, kept{founding: p.disk.founding})
	for range 3 {
		w.now += simHeartbeat
		p.core.step(w.now, nil)
	}
	return w, p
}

// FuzzReceive feeds a coordinator what the network may hold. It must go on, and
// whoever is not there must not have changed who votes or what stands.
func FuzzReceive(f *testing.F) {
	_, p := lively(1)
	c := p.core
	if !c.coordinates() {
		f.Fatal("does not coordinate")
	}
	h := header{cluster: c.self.cluster, sender: 8, name: "p1"}
	add := func(k kind, body []byte) {
		h.kind = k
		f.Add(encode(h, body))
	}
	for _, m := range []*pb.Message{
		{Type: pb.MsgHeartbeat.Enum(), Commit: new(uint64(math.MaxUint64))},
		{Type: pb.MsgHeartbeatResp.Enum(), Context: []byte{1}},
		{Type: pb.MsgApp.Enum(), Index: new(uint64(1)), LogTerm: new(uint64(1)), Entries: []*pb.Entry{{Index: new(uint64(2)), Term: new(uint64(9))}}, Commit: new(uint64(9))},
		{Type: pb.MsgApp.Enum(), Index: new(uint64(math.MaxUint64)), Entries: []*pb.Entry{{}}},
		{Type: pb.MsgSnap.Enum(), Snapshot: &pb.Snapshot{Data: []byte("{}"), Metadata: &pb.SnapshotMetadata{Index: new(uint64(99)), Term: new(uint64(9)), ConfState: &pb.ConfState{Voters: []uint64{7, 8}}}}},
		{Type: pb.MsgVote.Enum(), Index: new(uint64(99)), LogTerm: new(uint64(9))},
		{Type: pb.MsgTimeoutNow.Enum()},
		{Type: pb.MsgProp.Enum(), Entries: []*pb.Entry{{Data: []byte("x")}}},
		{Type: pb.MsgAppResp.Enum(), Index: new(uint64(math.MaxUint64))},
		{Type: pb.MsgAppResp.Enum(), Reject: new(true), RejectHint: new(uint64(math.MaxUint64))},
	} {
		m.To, m.From, m.Term = new(uint64(7)), new(uint64(8)), new(uint64(10))
		add(kindRaft, marshal(m))
	}
	add(kindAsk, []byte(`{"nonce":1,"incarnation":2,"acknowledged":18446744073709551615,"report":{}}`))
	add(kindGrant, []byte(`{"nonce":10,"lease":9223372036854775807,"decree":{"epoch":18446744073709551615,"leader":"x"}}`))
	add(kindNotice, []byte(`{"term":99,"decree":{"epoch":9},"voters":{"8":"p1"}}`))
	add(kindPropose, []byte(`{"serial":1,"voters":{}}`))
	add(kindPromise, []byte(`{"serial":1}`))
	add(kindForward, []byte("anything"))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, p := lively(1)
		for range 3 { // the same again, and time goes on
			w.now += simHeartbeat
			p.core.step(w.now, func() { p.core.receive(b) })
		}
		w.now += 10 * simElection
		p.core.step(w.now, nil)
	})
}

// TestReceiveMangled is what fuzzing does, on messages that proxies really sent:
// each with a few bytes changed, to a proxy in the middle of its life.
func TestReceiveMangled(t *testing.T) {
	w := newWorld(t, 3)
	var seen [][]byte
	for _, p := range w.proxies {
		p.spy = func(m outgoing) {
			if len(seen) < 4000 {
				seen = append(seen, m.body)
			}
		}
	}
	w.run(6000)
	w.calm = true
	for i, body := range seen {
		p := w.proxies[i%len(w.proxies)]
		if p.core == nil || p.frozen {
			continue
		}
		b := slices.Clone(body)
		for range 1 + w.IntN(3) {
			b[18+w.IntN(len(b)-18)] = byte(w.IntN(256))
		}
		p.core.step(w.clock(p), func() { p.core.receive(b) })
		p.core.step(w.clock(p)+simHeartbeat, nil)
	}
}

// What raft would panic at is refused before it comes there.
func TestDecodeRaft(t *testing.T) {
	good := func() *pb.Message {
		return &pb.Message{Type: pb.MsgApp.Enum(), To: new(uint64(7)), From: new(uint64(8)), Term: new(uint64(3)), Index: new(uint64(4)), LogTerm: new(uint64(2)), Entries: []*pb.Entry{
			{Index: new(uint64(5)), Term: new(uint64(2)), Data: marshalJSON(command{Record: &Failover{Epoch: 1}})},
			{Index: new(uint64(6)), Term: new(uint64(3))},
		}}
	}
	if m, err := decodeRaft(marshal(good()), 7, 8, 4); err != nil || !proto.Equal(m, good()) {
		t.Fatal(m, err)
	}
	for name, spoil := range map[string]func(*pb.Message){
		"to another":         func(m *pb.Message) { m.To = new(uint64(9)) },
		"from another":       func(m *pb.Message) { m.From = new(uint64(9)) },
		"without a term":     func(m *pb.Message) { m.Term = nil },
		"of local type":      func(m *pb.Message) { m.Type = pb.MsgHup.Enum() },
		"of unknown type":    func(m *pb.Message) { m.Type = pb.MessageType(77).Enum() },
		"with a gap":         func(m *pb.Message) { m.Entries[1].Index = new(uint64(7)) },
		"with falling terms": func(m *pb.Message) { m.Entries[0].Term = new(uint64(1)) },
		"of the future":      func(m *pb.Message) { m.Entries[1].Term = new(uint64(4)) },
		"not ours":           func(m *pb.Message) { m.Entries[0].Data = []byte("x") },
		"joint":              func(m *pb.Message) { m.Entries[0].Type = pb.EntryConfChangeV2.Enum() },
	} {
		m := good()
		spoil(m)
		if _, err := decodeRaft(marshal(m), 7, 8, 4); err == nil {
			t.Errorf("taken: a message %s", name)
		}
	}
}

// A record goes through its encoding unchanged, and the log of failovers is bounded.
func TestRecord(t *testing.T) {
	r := record{Voters: map[uint64]string{1: "a"}, Hold: time.Second}
	for epoch := range uint64(maxFailovers + 5) {
		must(r.apply(command{Record: &Failover{Epoch: epoch + 1, New: "x"}}))
	}
	must(r.apply(command{Record: &Failover{Epoch: 10, New: "y"}}))
	if n := len(r.Failovers); n != maxFailovers || r.Failovers[n-1].New != "y" {
		t.Errorf("%d failovers, the last %v", n, r.Failovers[n-1])
	}
	must(r.apply(command{Decide: &decision{Decree{}, Decree{Epoch: 1, Leader: "x", Plan: []byte(`{"a":1}`)}}}))
	if err := r.apply(command{Decide: &decision{Decree{}, Decree{Epoch: 1}}}); err != ErrChanged {
		t.Errorf("decided twice: %v", err)
	}
	shorter := time.Millisecond
	must(r.apply(command{Hold: &shorter}))
	got, err := decodeRecord(r.encode())
	if err != nil || got.Hold != time.Second || !got.Decree.Equal(r.Decree) || !maps.Equal(got.Voters, r.Voters) || len(got.Failovers) != maxFailovers {
		t.Errorf("%+v, %v", got, err)
	}
}

// Two groups that share a member are never both founded, whoever proposes first.
func TestFoundingOnce(t *testing.T) {
	times := 0
	for range 60 {
		w := &world{Rand: rand.New(rand.NewPCG(1, rand.Uint64())), disks: map[uint64]*kept{}}
		s := w.settings()
		s.voters, s.expect = nil, 3
		cores := map[string]*core{}
		for i, id := range []string{"a", "b", "c", "d", "e"} {
			cores[id] = newCore(s, peer{id: id, number: uint64(i + 1)}, kept{founding: founding{Number: uint64(i + 1)}})
		}
		var mail []outgoing
		step := func(id string, do func(c *core)) {
			c := cores[id]
			mail = append(mail, c.step(w.now, func() { do(c) }).send...)
		}
		for range 400 {
			w.now += simHeartbeat / 4
			for id, c := range cores {
				sees := map[string]peer{} // gossip is incomplete
				for other, o := range cores {
					if other != id && w.IntN(3) > 0 {
						sees[other] = o.self
					}
				}
				if w.IntN(4) == 0 {
					step(id, func(*core) { c.meet(sees) })
				}
			}
			for len(mail) > 0 && w.IntN(8) > 0 {
				i := w.IntN(len(mail))
				m := mail[i]
				mail = slices.Delete(mail, i, i+1)
				if w.IntN(4) > 0 {
					step(m.to, func(c *core) { c.receive(m.body) })
				}
			}
		}
		founded := map[uint64]bool{}
		for _, c := range cores {
			if c.self.cluster != 0 {
				founded[c.self.cluster] = true
			}
		}
		if len(founded) > 1 {
			t.Fatalf("%d clusters are founded", len(founded))
		}
		times += len(founded)
	}
	if times == 0 {
		t.Error("no cluster was ever founded")
	}
}

// What is on disk is read back: after any writes, a new process has what the last
// one had.
func TestDisk(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir := t.TempDir()
		d, k, err := openDisk(dir)
		if err != nil {
			r.Fatal(err)
		}
		want := k
		index, term := uint64(1), uint64(1)
		begin := record{Voters: map[uint64]string{k.founding.Number: "a"}}
		snapshot := func() *pb.Snapshot {
			return &pb.Snapshot{Data: begin.encode(), Metadata: &pb.SnapshotMetadata{
				Index: new(index), Term: new(term), ConfState: &pb.ConfState{Voters: []uint64{k.founding.Number}, AutoLeave: new(false)},
			}}
		}
		all := []write{{snapshot: snapshot(), cleared: true, hard: &pb.HardState{Term: new(term), Vote: new(uint64), Commit: new(index)}}}
		if err := d.write(all); err != nil {
			r.Fatal(err)
		}
		want.keep(all)
		for range rapid.IntRange(0, 8).Draw(r, "writes") {
			all = nil
			switch rapid.IntRange(0, 3).Draw(r, "kind") {
			case 0: // entries, perhaps in the place of others
				term++
				first := want.snapshot.GetMetadata().GetIndex() + 1
				if n := len(want.entries); n > 0 {
					first += uint64(rapid.IntRange(0, n).Draw(r, "kept"))
				}
				var w write
				for i := range uint64(rapid.IntRange(1, 5).Draw(r, "entries")) {
					w.entries = append(w.entries, &pb.Entry{Index: new(first + i), Term: new(term), Data: marshalJSON(command{})})
				}
				all = append(all, w)
			case 1:
				all = append(all, write{hard: &pb.HardState{Term: new(term), Vote: new(uint64(3)), Commit: new(index)}})
			case 2:
				if n := len(want.entries); n > 0 {
					index = want.entries[rapid.IntRange(0, n-1).Draw(r, "snapshot")].GetIndex()
					all = append(all, write{snapshot: snapshot()})
				}
			default:
				f := want.founding
				f.Serial++
				all = append(all, write{founding: &f})
			}
			if err := d.write(all); err != nil {
				r.Fatal(err)
			}
			want.keep(all)
		}
		if err := d.close(); err != nil {
			r.Fatal(err)
		}
		d, got, err := openDisk(dir)
		if err != nil {
			r.Fatal(err)
		}
		defer d.close()
		same := got.founding == want.founding && proto.Equal(got.hard, want.hard) && proto.Equal(got.snapshot, want.snapshot) && len(got.entries) == len(want.entries)
		for i := range got.entries {
			same = same && proto.Equal(got.entries[i], want.entries[i])
		}
		if !same {
			r.Fatalf("got %+v, want %+v", got, want)
		}
	})
}
