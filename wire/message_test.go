package wire_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lsnproxy/lsnproxy/wire"
)

func TestHeaderLimits(t *testing.T) {
	for _, c := range []struct {
		length uint32
		ok     bool
	}{
		{0, false},
		{3, false},
		{4, true},
		{5, true},
		{wire.MaxMessage, true},
		{wire.MaxMessage + 1, false},
		{0x7fffffff, false},
		{0x80000000, false},
		{0xffffffff, false},
	} {
		b := binary.BigEndian.AppendUint32([]byte{'Q'}, c.length)
		for n := range b {
			if _, _, ok, err := wire.Header(b[:n]); ok || err != nil {
				t.Errorf("%d bytes of a header: %v, %v", n, ok, err)
			}
		}
		typ, size, ok, err := wire.Header(b)
		switch {
		case c.ok && (err != nil || !ok || typ != 'Q' || size != int(c.length)+1):
			t.Errorf("length %d: %q, %d, %v, %v", c.length, typ, size, ok, err)
		case !c.ok && (!errors.Is(err, wire.ErrFraming) || ok):
			t.Errorf("length %d: %v, %v", c.length, ok, err)
		}
	}
}

func TestStartupLimits(t *testing.T) {
	for _, c := range []struct {
		length uint32
		ok     bool
	}{{0, false}, {4, false}, {7, false}, {8, true}, {wire.MaxStartup, true}, {wire.MaxStartup + 1, false}, {0xffffffff, false}} {
		b := binary.BigEndian.AppendUint32(nil, c.length)
		if _, ok, err := wire.StartupLen(b[:3]); ok || err != nil {
			t.Errorf("3 bytes: %v, %v", ok, err)
		}
		size, ok, err := wire.StartupLen(b)
		switch {
		case c.ok && (err != nil || !ok || size != int(c.length)):
			t.Errorf("length %d: %d, %v, %v", c.length, size, ok, err)
		case !c.ok && (!errors.Is(err, wire.ErrFraming) || ok):
			t.Errorf("length %d: %v, %v", c.length, ok, err)
		}
	}
}

// packet makes a startup packet of raw bytes behind the version.
func packet(version uint32, rest string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(rest)))
	return append(binary.BigEndian.AppendUint32(b, version), rest...)
}

func TestParseStartup(t *testing.T) {
	for _, c := range []struct {
		rest string
		want wire.Startup
	}{
		{"user\x00u\x00\x00", wire.Startup{User: "u", Database: "u"}},
		{"user\x00u\x00database\x00\x00\x00", wire.Startup{User: "u", Database: "u"}},
		{"database\x00d\x00user\x00u\x00\x00", wire.Startup{User: "u", Database: "d"}},
		{"user\x00u\x00user\x00v\x00\x00", wire.Startup{User: "v", Database: "v"}}, // the last one counts, as in PostgreSQL
		{"user\x00u\x00a\x00\x00a\x001\x00b\x002\x00\x00", wire.Startup{
			User: "u", Database: "u", Params: []wire.Param{{"a", ""}, {"a", "1"}, {"b", "2"}},
		}},
		{"_pq_.x\x001\x00user\x00u\x00_pq_.y\x00\x00\x00", wire.Startup{User: "u", Database: "u", Options: []string{"_pq_.x", "_pq_.y"}}},
	} {
		c.want.Version = wire.Version30
		got, err := wire.ParseStartup(packet(wire.Version30, c.rest))
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%q: %v %s", c.rest, err, diff)
		}
	}
}

func TestParseStartupRefuses(t *testing.T) {
	for rest, want := range map[string]string{
		"":                              "layout", // no terminator
		"user":                          "layout",
		"user\x00":                      "layout", // a name without a value
		"user\x00u":                     "layout",
		"user\x00u\x00":                 "layout",
		"user\x00u\x00a\x00\x00":        "layout", // the terminator is taken for a's value
		"user\x00u\x00\x00\x00":         "layout", // something behind the terminator
		"user\x00u\x00\x00a\x00b\x00":   "layout",
		"\x00user\x00u\x00\x00":         "layout",
		"\x00":                          "no PostgreSQL user name",
		"user\x00\x00\x00":              "no PostgreSQL user name",
		"database\x00d\x00\x00":         "no PostgreSQL user name",
		"user\x00u\x00user\x00\x00\x00": "no PostgreSQL user name",
	} {
		if _, err := wire.ParseStartup(packet(wire.Version30, rest)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", rest, err, want)
		}
	}
}

// TestOtherMajorVersion: of a packet that is laid out otherwise only the version
// is read, so that it can be refused by its name.
func TestOtherMajorVersion(t *testing.T) {
	for _, version := range []uint32{2 << 16, 4<<16 | 1, 0} {
		got, err := wire.ParseStartup(packet(version, strings.Repeat("\x01", 288)))
		if diff := cmp.Diff(wire.Startup{Version: version}, got); err != nil || diff != "" {
			t.Errorf("version %x: %v %s", version, err, diff)
		}
	}
}

func TestCancelRequestLengths(t *testing.T) {
	for n, want := range map[int]bool{0: false, 3: false, 4: true, 32: true, 256: true, 257: false} {
		packet := wire.AppendCancelRequest(nil, 7, make([]byte, n))
		if pid, key, ok := wire.CancelRequest(packet); ok != want || ok && (pid != 7 || len(key) != n) {
			t.Errorf("key of %d bytes: %d, %d bytes, %v", n, pid, len(key), ok)
		}
	}
	if _, _, ok := wire.CancelRequest(nil); ok {
		t.Error("nothing is a cancel request")
	}
}

// TestNegotiate follows the manual, "NegotiateProtocolVersion", since pgproto3
// does not know the message. The version goes in whole, as PostgreSQL sends it
// (SendNegotiateProtocolVersion in postmaster.c).
func TestNegotiate(t *testing.T) {
	got := wire.AppendNegotiate(nil, wire.Version32, []string{"_pq_.a", "_pq_.bc"})
	want := "v\x00\x00\x00\x1b\x00\x03\x00\x02\x00\x00\x00\x02_pq_.a\x00_pq_.bc\x00"
	if string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestLongKey: from protocol 3.2 on a key may be longer than the 4 bytes that
// pgproto3 knows.
func TestLongKey(t *testing.T) {
	if got, want := string(wire.AppendBackendKeyData(nil, 7, []byte("0123456789abcdef"))),
		"K\x00\x00\x00\x18\x00\x00\x00\x070123456789abcdef"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestErrorText(t *testing.T) {
	e := &wire.Error{Code: "57P03", Message: "there is no leader"}
	if got := e.Error(); got != "there is no leader (SQLSTATE 57P03)" {
		t.Error(got)
	}
}

// TestNoAllocation: what runs for every message allocates nothing, given memory
// that is large enough.
func TestNoAllocation(t *testing.T) {
	mem := make([]byte, 0, 1024)
	e := &wire.Error{Code: "57P03", Message: "message", Detail: "detail", Hint: "hint"}
	response := e.Append(nil)
	result := []byte("V\x00\x00\x00\x10\x00\x00\x00\x0812345678")
	cancel := wire.AppendCancelRequest(nil, 1, []byte("1234"))
	name, portal, rest, options := "lsnproxy:12", []byte("portal"), []byte("SELECT 1\x00\x00\x00"), []string{"_pq_.a"}
	var buffer wire.Buffer
	for what, f := range map[string]func(){
		"Header":                 func() { _, _, _, _ = wire.Header(response) },
		"Body":                   func() { _ = wire.Body(response) },
		"CString":                func() { _, _, _ = wire.CString(rest) },
		"Field":                  func() { _ = wire.Field(response, 'H') },
		"FunctionResult":         func() { _, _ = wire.FunctionResult(result) },
		"StartupLen":             func() { _, _, _ = wire.StartupLen(cancel) },
		"StartupCode":            func() { _ = wire.StartupCode(cancel) },
		"CancelRequest":          func() { _, _, _ = wire.CancelRequest(cancel) },
		"AppendQuery":            func() { _ = wire.AppendQuery(mem, name) },
		"AppendTerminate":        func() { _ = wire.AppendTerminate(mem) },
		"AppendEmpty":            func() { _ = wire.AppendEmpty(mem, wire.Sync) },
		"AppendFunctionCall":     func() { _ = wire.AppendFunctionCall(mem, 3821) },
		"AppendReadyForQuery":    func() { _ = wire.AppendReadyForQuery(mem, wire.Idle) },
		"AppendParameterStatus":  func() { _ = wire.AppendParameterStatus(mem, name, name) },
		"AppendBackendKeyData":   func() { _ = wire.AppendBackendKeyData(mem, 1, portal) },
		"AppendAuthenticationOk": func() { _ = wire.AppendAuthenticationOk(mem) },
		"AppendNegotiate":        func() { _ = wire.AppendNegotiate(mem, wire.Version30, options) },
		"AppendParse":            func() { _ = wire.AppendParse(mem, name, rest) },
		"AppendTarget":           func() { _ = wire.AppendTarget(mem, wire.Describe, name) },
		"AppendClosePortal":      func() { _ = wire.AppendClosePortal(mem, name) },
		"AppendExecute":          func() { _ = wire.AppendExecute(mem, name) },
		"AppendBindHead":         func() { _ = wire.AppendBindHead(mem, portal, name, len(rest)) },
		"AppendCancelRequest":    func() { _ = wire.AppendCancelRequest(mem, 1, portal) },
		"Error.Append":           func() { _ = e.Append(mem) },
		"Buffer": func() {
			buffer.Attach(mem[:cap(mem)])
			buffer.Filled(len(buffer.Space()))
			buffer.Consume(10)
			_ = buffer.Space()
			_ = buffer.Detach()
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", what, n)
		}
	}
}
