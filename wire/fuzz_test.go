package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgproto3/v2"

	"github.com/lsnproxy/lsnproxy/wire"
)

// message makes a whole message of any body.
func message(typ byte, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{typ}, uint32(4+len(body))), body...)
}

// FuzzHeader walks a stream of messages as the relay does: it ends at the end,
// at a message cut off, or at a length that cannot be.
func FuzzHeader(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		for rest := b; ; {
			typ, size, ok, err := wire.Header(rest)
			if err != nil {
				n := binary.BigEndian.Uint32(rest[1:])
				if ok || !errors.Is(err, wire.ErrFraming) || n >= 4 && n <= wire.MaxMessage {
					t.Fatalf("Header(%x): %v, %v", rest[:5], ok, err)
				}
				return
			}
			if ok != (len(rest) >= wire.HeaderLen) {
				t.Fatalf("Header of %d bytes: %v", len(rest), ok)
			}
			if !ok || size > len(rest) {
				return
			}
			if size < wire.HeaderLen || typ != rest[0] {
				t.Fatalf("Header(%x) = %q, %d", rest[:5], typ, size)
			}
			if !bytes.Equal(message(typ, wire.Body(rest[:size])), rest[:size]) {
				t.Fatalf("type and body of %x do not make it up", rest[:size])
			}
			rest = rest[size:]
		}
	})
}

// FuzzStartup reads what a stranger may send first. What is taken for a startup
// message, the oracle takes for the same.
func FuzzStartup(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		size, ok, err := wire.StartupLen(b)
		if err != nil || !ok {
			if ok || err != nil && !errors.Is(err, wire.ErrFraming) {
				t.Fatalf("StartupLen: %v, %v", ok, err)
			}
			return
		}
		if size < 8 || size > wire.MaxStartup {
			t.Fatalf("StartupLen = %d", size)
		}
		if size > len(b) {
			return
		}
		packet := b[:size]
		s, err := wire.ParseStartup(packet)
		if s.Version != wire.StartupCode(packet) {
			t.Fatalf("version %x, code %x", s.Version, wire.StartupCode(packet))
		}
		if err != nil || s.Version>>16 != 3 {
			return
		}
		if s.User == "" || s.Database == "" {
			t.Fatalf("user %q, database %q", s.User, s.Database)
		}
		if s.Version != wire.Version30 {
			return // the oracle speaks no other
		}
		theirs, err := asListener(packet)
		if err != nil {
			t.Fatalf("pgproto3 does not take what was taken: %v", err)
		}
		given := theirs.(*pgproto3.StartupMessage).Parameters
		if diff := cmp.Diff(given, parameters(s), ignoreDefault(given)); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzCancelRequest(f *testing.F) {
	f.Fuzz(func(t *testing.T, rest []byte) {
		packet := packet(wire.CancelRequestCode, string(rest))
		pid, key, ok := wire.CancelRequest(packet)
		if want := len(rest) >= 8 && len(rest) <= 4+256; ok != want {
			t.Fatalf("%d bytes of process id and key: %v", len(rest), ok)
		}
		if ok && !bytes.Equal(wire.AppendCancelRequest(nil, pid, key), packet) {
			t.Fatalf("%d and %x do not make up %x", pid, key, packet)
		}
	})
}

func FuzzCString(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		s, rest, ok := wire.CString(b)
		switch {
		case ok != bytes.Contains(b, []byte{0}):
			t.Fatalf("CString(%x): %v", b, ok)
		case !ok && !bytes.Equal(rest, b):
			t.Fatalf("CString(%x) took something", b)
		case ok && (bytes.Contains(s, []byte{0}) || !bytes.Equal(append(append(bytes.Clone(s), 0), rest...), b)):
			t.Fatalf("CString(%x) = %x, %x", b, s, rest)
		}
	})
}

// FuzzField: where the oracle can read an ErrorResponse, and each field is in it
// once, both read the same.
func FuzzField(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		msg := message(wire.ErrorResponse, body)
		var found [256][]byte
		for field := range 256 {
			found[field] = wire.Field(msg, byte(field))
		}
		if found[0] != nil {
			t.Fatalf("the terminator as a field: %q", found[0])
		}
		theirs, err := asClient(msg)
		if err != nil || repeats(body) {
			return
		}
		e := theirs.(*pgproto3.ErrorResponse)
		for field, want := range map[byte]string{
			'S': e.Severity, 'V': e.SeverityUnlocalized, 'C': e.Code, 'M': e.Message, 'D': e.Detail, 'H': e.Hint,
			'q': e.InternalQuery, 'W': e.Where, 's': e.SchemaName, 't': e.TableName, 'c': e.ColumnName,
			'd': e.DataTypeName, 'n': e.ConstraintName, 'F': e.File, 'R': e.Routine,
		} {
			if string(found[field]) != want {
				t.Fatalf("field %q is %q, pgproto3 reads %q", field, found[field], want)
			}
		}
		for field, want := range e.UnknownFields {
			if string(found[field]) != want {
				t.Fatalf("field %q is %q, pgproto3 reads %q", field, found[field], want)
			}
		}
	})
}

// repeats reports whether a field type is there twice.
func repeats(body []byte) bool {
	var seen [256]bool
	for _, field := range bytes.Split(body, []byte{0}) {
		if len(field) == 0 {
			return false
		}
		if seen[field[0]] {
			return true
		}
		seen[field[0]] = true
	}
	return false
}

// FuzzReplaceField: whatever the message, the result is a whole one, and where
// the message is sound only the one field differs.
func FuzzReplaceField(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte, field byte, value string) {
		if bytes.Contains([]byte(value), []byte{0}) {
			return // no field can hold it
		}
		msg := message(wire.ErrorResponse, body)
		out := wire.ReplaceField(msg, field, func(string) string { return value })
		framed(t, out, wire.ErrorResponse)
		if _, err := asClient(msg); err != nil {
			return
		}
		if _, err := asClient(out); err != nil {
			t.Fatalf("%x became %x: %v", msg, out, err)
		}
		for other := range 256 {
			was, is := wire.Field(msg, byte(other)), wire.Field(out, byte(other))
			want := string(was)
			if byte(other) == field && was != nil {
				want = value
			}
			if string(is) != want {
				t.Fatalf("field %q is %q, want %q", byte(other), is, want)
			}
		}
	})
}

// FuzzFunctionResult: NULL aside, which the oracle does not know on a machine of
// 64 bits, both read the same.
func FuzzFunctionResult(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		msg := message(wire.FunctionCallResponse, body)
		value, err := wire.FunctionResult(msg)
		if bytes.HasPrefix(body, []byte{0xff, 0xff, 0xff, 0xff}) {
			if value != nil || (err == nil) != (len(body) == 4) {
				t.Fatalf("NULL and %d bytes: %x, %v", len(body)-4, value, err)
			}
			return
		}
		theirs, theirErr := asClient(msg)
		if (err == nil) != (theirErr == nil) {
			t.Fatalf("FunctionResult(%x): %v, pgproto3: %v", body, err, theirErr)
		}
		if err == nil && !bytes.Equal(value, theirs.(*pgproto3.FunctionCallResponse).Result) {
			t.Fatalf("FunctionResult(%x) = %x", body, value)
		}
	})
}
