package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Request codes in place of a protocol version ("Message Formats", and
// libpq/pqcomm.h).
const (
	CancelRequestCode = 1234<<16 | 5678
	SSLRequestCode    = 1234<<16 | 5679
	GSSENCRequestCode = 1234<<16 | 5680
)

// Protocol versions.
const (
	Version30 = 3 << 16
	Version32 = 3<<16 | 2
)

// MaxStartup is the greatest length word of a startup packet that PostgreSQL
// takes: MAX_STARTUP_PACKET_LENGTH in libpq/pqcomm.h and the word itself, which
// ProcessStartupPacket in postmaster.c does not count.
const MaxStartup = 10000 + 4

// StartupLen reads the length word of a startup packet, which has no type
// byte. ok is false while b is too short to tell.
func StartupLen(b []byte) (size int, ok bool, err error) {
	if len(b) < 4 {
		return 0, false, nil
	}
	n := binary.BigEndian.Uint32(b)
	if n < 8 || n > MaxStartup {
		return 0, false, fmt.Errorf("%w: %d in a startup packet", ErrFraming, n)
	}
	return int(n), true, nil
}

// StartupCode returns the version or request code of a whole startup packet.
func StartupCode(packet []byte) uint32 { return binary.BigEndian.Uint32(packet[4:]) }

// Param is one startup parameter.
type Param struct{ Name, Value string }

// Startup is a decoded StartupMessage.
type Startup struct {
	Version  uint32
	User     string
	Database string   // the user's name if none was given, as PostgreSQL does
	Params   []Param  // everything else, in the order given, without _pq_ options
	Options  []string // names of the _pq_. protocol options
}

// errLayout is what PostgreSQL says of a startup packet that does not end where
// its terminator is (ProcessStartupPacket in postmaster.c).
var errLayout = errors.New("invalid startup packet layout: expected terminator as last byte")

// ParseStartup decodes a whole startup packet that carries a protocol version.
// Of a major version other than 3 only the version is decoded: what follows it
// there is laid out otherwise.
func ParseStartup(packet []byte) (Startup, error) {
	s := Startup{Version: StartupCode(packet)}
	if s.Version>>16 != 3 {
		return s, nil
	}
	b := packet[8:]
	for {
		name, rest, ok := CString(b)
		if !ok {
			return s, errLayout
		}
		if len(name) == 0 {
			if len(rest) != 0 {
				return s, errLayout
			}
			break
		}
		value, rest, ok := CString(rest)
		if !ok {
			return s, errLayout
		}
		b = rest
		switch n, v := string(name), string(value); {
		case n == "user":
			s.User = v
		case n == "database":
			s.Database = v
		case strings.HasPrefix(n, "_pq_."):
			s.Options = append(s.Options, n)
		default:
			s.Params = append(s.Params, Param{n, v})
		}
	}
	if s.User == "" {
		return s, errors.New("no PostgreSQL user name specified in startup packet")
	}
	if s.Database == "" {
		s.Database = s.User
	}
	return s, nil
}

// CancelRequest returns the process id and key of a whole cancel packet.
func CancelRequest(packet []byte) (pid uint32, key []byte, ok bool) {
	if len(packet) < 16 || len(packet) > 12+256 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint32(packet[8:]), packet[12:], true
}

// AppendCancelRequest appends a cancel packet.
func AppendCancelRequest(dst []byte, pid uint32, key []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(12+len(key)))
	dst = binary.BigEndian.AppendUint32(dst, CancelRequestCode)
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return append(dst, key...)
}
