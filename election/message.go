package election

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// A message is a header and a body: the format's version, the kind, the
// cluster's number (0: not founded), the sender's number and name.
//
//	version kind cluster(8) sender(8) length(1) name body
const (
	format    = 1
	headerMin = 19
	// maxMessage bounds what is decoded: a snapshot with every plan and failover in it.
	maxMessage = 1 << 20
)

// kind says what a message's body is.
type kind byte

const (
	kindRaft    kind = iota + 1 // one of raft's own, in its encoding
	kindAsk                     // ask
	kindGrant                   // grant
	kindNotice                  // notice
	kindPropose                 // proposal
	kindPromise                 // promise
	kindForward                 // bytes for Options.Received
)

type header struct {
	kind    kind
	cluster uint64
	sender  uint64
	name    string
}

// ask asks the coordinator for a write lease, and tells it how things are here.
type ask struct {
	Nonce        uint64          `json:"nonce"` // of this asking alone
	Incarnation  uint64          `json:"incarnation"`
	Acknowledged uint64          `json:"acknowledged"`       // nothing is written under earlier epochs
	Released     bool            `json:"released,omitempty"` // this process writes nothing any more, ever
	Report       json.RawMessage `json:"report,omitempty"`
}

// grant answers: the decree that stands, and a lease under it if it has a leader.
type grant struct {
	Nonce  uint64 `json:"nonce"`
	Lease  int64  `json:"lease"` // nanoseconds from the asking
	Decree Decree `json:"decree"`
}

// notice tells members that do not vote who coordinates, and what raft tells the
// voters.
type notice struct {
	Term   uint64            `json:"term"`
	Decree Decree            `json:"decree"`
	Voters map[uint64]string `json:"voters"`
}

// encode puts a header before a body. Names are at most MaxID long.
func encode(h header, body []byte) []byte {
	b := make([]byte, 0, headerMin+len(h.name)+len(body))
	b = append(b, format, byte(h.kind))
	b = binary.BigEndian.AppendUint64(b, h.cluster)
	b = binary.BigEndian.AppendUint64(b, h.sender)
	b = append(b, byte(len(h.name)))
	b = append(b, h.name...)
	return append(b, body...)
}

// decode takes the header off. What comes from the network is anybody's.
func decode(b []byte) (h header, body []byte, err error) {
	if len(b) < headerMin || len(b) > maxMessage {
		return h, nil, fmt.Errorf("a message of %d bytes", len(b))
	}
	if b[0] != format {
		return h, nil, fmt.Errorf("a message of format %d", b[0])
	}
	h.kind = kind(b[1])
	h.cluster = binary.BigEndian.Uint64(b[2:])
	h.sender = binary.BigEndian.Uint64(b[10:])
	name := int(b[18])
	if name == 0 || name > MaxID || len(b) < headerMin+name {
		return h, nil, fmt.Errorf("a name of %d bytes", name)
	}
	h.name = string(b[headerMin : headerMin+name])
	return h, b[headerMin+name:], nil
}

// fromNetwork are the types of raft's messages that come from others.
var fromNetwork = map[pb.MessageType]bool{
	pb.MsgApp: true, pb.MsgAppResp: true, pb.MsgVote: true, pb.MsgVoteResp: true, pb.MsgPreVote: true,
	pb.MsgPreVoteResp: true, pb.MsgSnap: true, pb.MsgHeartbeat: true, pb.MsgHeartbeatResp: true, pb.MsgTimeoutNow: true,
}

// decodeRaft decodes one of raft's messages to self and refuses what raft would
// panic at. last is the last index of our log.
func decodeRaft(body []byte, self, sender, last uint64) (*pb.Message, error) {
	m := new(pb.Message)
	if err := proto.Unmarshal(body, m); err != nil {
		return nil, err
	}
	switch {
	case !fromNetwork[m.GetType()]:
		return nil, fmt.Errorf("a message of type %v", m.GetType())
	case m.GetTo() != self || m.GetFrom() != sender || sender == self || raft.IsLocalMsgTarget(sender):
		return nil, errors.New("a message to or from somebody else")
	case m.GetTerm() == 0:
		return nil, errors.New("a message without a term")
	case m.GetType() == pb.MsgHeartbeat && m.GetCommit() > last:
		return nil, errors.New("a heartbeat that knows more of our log than we")
	case (m.GetType() == pb.MsgHeartbeat || m.GetType() == pb.MsgHeartbeatResp) && len(m.GetContext()) != 0 && len(m.GetContext()) != 8:
		return nil, errors.New("a heartbeat with a strange context")
	case m.GetType() == pb.MsgApp:
		return m, checkEntries(m)
	case m.GetType() == pb.MsgSnap:
		return m, checkSnapshot(m.GetSnapshot())
	}
	return m, nil
}

// checkEntries wants what is to be appended in a row and of terms that do not fall.
func checkEntries(m *pb.Message) error {
	index, term := m.GetIndex(), m.GetLogTerm()
	for _, e := range m.GetEntries() {
		if e == nil || e.GetIndex() != index+1 || e.GetTerm() < term || e.GetTerm() > m.GetTerm() {
			return errors.New("entries out of order")
		}
		if _, err := decodeEntry(e); err != nil {
			return err
		}
		index, term = e.GetIndex(), e.GetTerm()
	}
	return nil
}

func checkSnapshot(s *pb.Snapshot) error {
	meta := s.GetMetadata()
	if meta.GetIndex() == 0 || meta.GetTerm() == 0 || len(meta.GetConfState().GetVoters()) == 0 {
		return errors.New("a snapshot of nothing")
	}
	c := meta.GetConfState()
	if len(c.GetLearners())+len(c.GetLearnersNext())+len(c.GetVotersOutgoing()) > 0 || c.GetAutoLeave() {
		return errors.New("a snapshot of a kind that is never made")
	}
	_, err := decodeRecord(s.GetData())
	return err
}
