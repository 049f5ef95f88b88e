// Package wire frames PostgreSQL protocol messages and decodes the few the
// proxy decides on ("Message Formats" in the manual). It starts no goroutine,
// reads no socket and holds no policy.
package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Message types a frontend sends.
const (
	Bind         = 'B'
	Close        = 'C'
	CopyData     = 'd'
	CopyDone     = 'c'
	CopyFail     = 'f'
	Describe     = 'D'
	Execute      = 'E'
	Flush        = 'H'
	FunctionCall = 'F'
	Parse        = 'P'
	Password     = 'p'
	Query        = 'Q'
	Sync         = 'S'
	Terminate    = 'X'
)

// Message types a backend sends.
const (
	Authentication           = 'R'
	BackendKeyData           = 'K'
	BindComplete             = '2'
	CloseComplete            = '3'
	CommandComplete          = 'C'
	CopyBothResponse         = 'W'
	CopyInResponse           = 'G'
	CopyOutResponse          = 'H'
	DataRow                  = 'D'
	EmptyQueryResponse       = 'I'
	ErrorResponse            = 'E'
	FunctionCallResponse     = 'V'
	NegotiateProtocolVersion = 'v'
	NoData                   = 'n'
	NoticeResponse           = 'N'
	NotificationResponse     = 'A'
	ParameterDescription     = 't'
	ParameterStatus          = 'S'
	ParseComplete            = '1'
	PortalSuspended          = 's'
	ReadyForQuery            = 'Z'
	RowDescription           = 'T'
)

// Transaction states in ReadyForQuery.
const (
	Idle   = 'I'
	InTx   = 'T'
	Failed = 'E'
)

// HeaderLen is the length of a message's type byte and length word.
const HeaderLen = 5

// MaxMessage is the greatest length word PostgreSQL sends: a body is built in a
// StringInfo, which holds less than MaxAllocSize bytes (enlargeStringInfo in
// common/stringinfo.c), and the word counts itself. What it takes from a
// frontend is 4 less (PQ_LARGE_MESSAGE_LIMIT in libpq/libpq.h); that it says
// itself.
const MaxMessage = 0x3ffffffe + 4

// ErrFraming says that a peer sent a length that cannot be: from there on the
// stream has no message boundaries and the connection must be dropped.
var ErrFraming = errors.New("invalid message length")

// Header reads the header at the start of b: the message's type and its whole
// size, header included. ok is false while b is too short to tell.
func Header(b []byte) (typ byte, size int, ok bool, err error) {
	if len(b) < HeaderLen {
		return 0, 0, false, nil
	}
	n := binary.BigEndian.Uint32(b[1:])
	if n < 4 || n > MaxMessage {
		return 0, 0, false, fmt.Errorf("%w: %d in a message of type %q", ErrFraming, n, b[0])
	}
	return b[0], int(n) + 1, true, nil
}

// Body returns the body of the whole message msg.
func Body(msg []byte) []byte { return msg[HeaderLen:] }

// CString cuts the zero-terminated string at the start of b; rest is what
// follows the zero. ok is false if there is no zero.
func CString(b []byte) (s, rest []byte, ok bool) {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i], b[i+1:], true
	}
	return nil, b, false
}

// begin appends a header of type typ with the length still to be filled in by
// end, which gets the offset that begin was called at.
func begin(dst []byte, typ byte) []byte {
	return append(dst, typ, 0, 0, 0, 0)
}

func end(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1))
	return dst
}

// AppendQuery appends a Query message.
func AppendQuery(dst []byte, sql string) []byte {
	start := len(dst)
	dst = append(begin(dst, Query), sql...)
	return end(append(dst, 0), start)
}

// AppendTerminate appends a Terminate message.
func AppendTerminate(dst []byte) []byte { return AppendEmpty(dst, Terminate) }

// AppendFunctionCall appends a FunctionCall without arguments whose result
// comes back in binary.
func AppendFunctionCall(dst []byte, oid uint32) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(begin(dst, FunctionCall), oid)
	dst = append(dst, 0, 0, 0, 0, 0, 1) // no argument formats, no arguments, binary result
	return end(dst, start)
}

// FunctionResult returns the value in a whole FunctionCallResponse; nil is NULL.
func FunctionResult(msg []byte) ([]byte, error) {
	b := Body(msg)
	if len(b) < 4 {
		return nil, errors.New("short FunctionCallResponse")
	}
	n := int32(binary.BigEndian.Uint32(b))
	switch {
	case n == -1 && len(b) == 4:
		return nil, nil
	case n < 0 || int(n) != len(b)-4:
		return nil, errors.New("FunctionCallResponse with a wrong length")
	}
	return b[4:], nil
}

// AppendReadyForQuery appends a ReadyForQuery of the given transaction state.
func AppendReadyForQuery(dst []byte, status byte) []byte {
	return append(dst, ReadyForQuery, 0, 0, 0, 5, status)
}

// AppendEmpty appends a message that has no body.
func AppendEmpty(dst []byte, typ byte) []byte { return append(dst, typ, 0, 0, 0, 4) }

// AppendParameterStatus appends a ParameterStatus message.
func AppendParameterStatus(dst []byte, name, value string) []byte {
	start := len(dst)
	dst = append(begin(dst, ParameterStatus), name...)
	dst = append(append(dst, 0), value...)
	return end(append(dst, 0), start)
}

// AppendBackendKeyData appends the process id and secret key that a frontend
// may cancel with.
func AppendBackendKeyData(dst []byte, pid uint32, key []byte) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(begin(dst, BackendKeyData), pid)
	return end(append(dst, key...), start)
}

// AppendAuthenticationOk appends AuthenticationOk.
func AppendAuthenticationOk(dst []byte) []byte {
	return append(dst, Authentication, 0, 0, 0, 8, 0, 0, 0, 0)
}

// AppendNegotiate appends NegotiateProtocolVersion: the newest minor version
// that is spoken and the options that are not known.
func AppendNegotiate(dst []byte, version uint32, unknown []string) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(begin(dst, NegotiateProtocolVersion), version)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(unknown)))
	for _, o := range unknown {
		dst = append(append(dst, o...), 0)
	}
	return end(dst, start)
}

// AppendParse appends a Parse message under another statement name; rest is
// the original's body after its name.
func AppendParse(dst []byte, name string, rest []byte) []byte {
	start := len(dst)
	dst = append(append(begin(dst, Parse), name...), 0)
	return end(append(dst, rest...), start)
}

// AppendTarget appends a Describe or Close of the statement name.
func AppendTarget(dst []byte, typ byte, name string) []byte {
	start := len(dst)
	dst = append(append(begin(dst, typ), 'S'), name...)
	return end(append(dst, 0), start)
}

// AppendClosePortal appends a Close of a portal.
func AppendClosePortal(dst []byte, portal string) []byte {
	start := len(dst)
	dst = append(append(begin(dst, Close), 'P'), portal...)
	return end(append(dst, 0), start)
}

// AppendExecute appends an Execute of a portal to its end.
func AppendExecute(dst []byte, portal string) []byte {
	start := len(dst)
	dst = append(append(begin(dst, Execute), portal...), 0)
	return end(append(dst, 0, 0, 0, 0), start)
}

// AppendBindHead appends the head of a Bind message: portal and statement
// name. rest is the number of bytes of the body that will follow.
func AppendBindHead(dst, portal []byte, name string, rest int) []byte {
	start := len(dst)
	dst = append(append(begin(dst, Bind), portal...), 0)
	dst = append(append(dst, name...), 0)
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1+rest))
	return dst
}
