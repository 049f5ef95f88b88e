package wire_test

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgproto3/v2"
	"pgregory.net/rapid"

	"github.com/lsnproxy/lsnproxy/wire"
)

// pgproto3 is the oracle: an encoder and decoder by other hands. It panics on
// some input, so it is given nothing but what these tests make, and watched.

// asClient decodes one message as a frontend does; what is behind it is an error.
func asClient(msg []byte) (_ pgproto3.BackendMessage, err error) {
	defer caught(&err)
	r := bytes.NewReader(msg)
	m, err := pgproto3.NewFrontend(pgproto3.NewChunkReader(r), nil).Receive()
	return m, wholly(r, err)
}

// asServer decodes one message as a backend does.
func asServer(msg []byte) (_ pgproto3.FrontendMessage, err error) {
	defer caught(&err)
	r := bytes.NewReader(msg)
	m, err := pgproto3.NewBackend(pgproto3.NewChunkReader(r), nil).Receive()
	return m, wholly(r, err)
}

// asListener decodes the packet that a connection begins with.
func asListener(packet []byte) (_ pgproto3.FrontendMessage, err error) {
	defer caught(&err)
	r := bytes.NewReader(packet)
	m, err := pgproto3.NewBackend(pgproto3.NewChunkReader(r), nil).ReceiveStartupMessage()
	return m, wholly(r, err)
}

func wholly(r *bytes.Reader, err error) error {
	if err == nil && r.Len() > 0 {
		err = fmt.Errorf("%d bytes left", r.Len())
	}
	return err
}

func caught(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("the oracle panicked: %v", v)
	}
}

// encoded is what pgproto3 makes of a message.
func encoded(t testing.TB, m interface {
	Encode(dst []byte) ([]byte, error)
},
) []byte {
	t.Helper()
	msg, err := m.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// framed checks that msg is one whole message of type typ.
func framed(t rapid.TB, msg []byte, typ byte) {
	t.Helper()
	got, size, ok, err := wire.Header(msg)
	if err != nil || !ok || got != typ || size != len(msg) {
		t.Fatalf("Header(%x) = %q, %d, %v, %v; want %q, %d", msg, got, size, ok, err, typ, len(msg))
	}
}

var (
	// text is what may stand in a zero-terminated string.
	text = rapid.Map(rapid.SliceOfN(rapid.ByteRange(1, 255), 0, 40), func(b []byte) string { return string(b) })
	word = rapid.Map(rapid.SliceOfN(rapid.ByteRange(1, 255), 1, 40), func(b []byte) string { return string(b) })
	blob = rapid.SliceOfN(rapid.Byte(), 0, 40)
	// full is what is in a buffer already, which appending must not touch.
	full = rapid.SliceOfN(rapid.Byte(), 0, 8)
)

// TestFrontendMessages: what wire appends for a server, the oracle reads as
// meant, and writes itself in the same bytes.
func TestFrontendMessages(t *testing.T) {
	for name, draw := range map[string]func(*rapid.T) (func([]byte) []byte, pgproto3.FrontendMessage){
		"Query": func(t *rapid.T) (func([]byte) []byte, pgproto3.FrontendMessage) {
			sql := text.Draw(t, "sql")
			return func(b []byte) []byte { return wire.AppendQuery(b, sql) }, &pgproto3.Query{String: sql}
		},
		"Sync": func(*rapid.T) (func([]byte) []byte, pgproto3.FrontendMessage) {
			return func(b []byte) []byte { return wire.AppendEmpty(b, wire.Sync) }, &pgproto3.Sync{}
		},
		"Flush": func(*rapid.T) (func([]byte) []byte, pgproto3.FrontendMessage) {
			return func(b []byte) []byte { return wire.AppendEmpty(b, wire.Flush) }, &pgproto3.Flush{}
		},
		"Terminate": func(*rapid.T) (func([]byte) []byte, pgproto3.FrontendMessage) {
			return wire.AppendTerminate, &pgproto3.Terminate{}
		},
		"FunctionCall": func(t *rapid.T) (func([]byte) []byte, pgproto3.FrontendMessage) {
			oid := rapid.Uint32().Draw(t, "oid")
			return func(b []byte) []byte { return wire.AppendFunctionCall(b, oid) },
				&pgproto3.FunctionCall{Function: oid, ArgFormatCodes: []uint16{}, Arguments: [][]byte{}, ResultFormatCode: 1}
		},
		"Parse": func(t *rapid.T) (func([]byte) []byte, pgproto3.FrontendMessage) {
			m := &pgproto3.Parse{
				Name: text.Draw(t, "name"), Query: text.Draw(t, "query"),
				ParameterOIDs: rapid.SliceOfN(rapid.Uint32(), 0, 5).Draw(t, "types"),
			}
			if len(m.ParameterOIDs) == 0 {
				m.ParameterOIDs = nil
			}
			_, rest, _ := wire.CString(wire.Body(mustEncode(t, m)))
			m.Name = text.Draw(t, "other name")
			return func(b []byte) []byte { return wire.AppendParse(b, m.Name, rest) }, m
		},
		"Describe": func(t *rapid.T) (func([]byte) []byte, pgproto3.FrontendMessage) {
			name := text.Draw(t, "name")
			return func(b []byte) []byte { return wire.AppendTarget(b, wire.Describe, name) },
				&pgproto3.Describe{ObjectType: 'S', Name: name}
		},
		"Close": func(t *rapid.T) (func([]byte) []byte, pgproto3.FrontendMessage) {
			name := text.Draw(t, "name")
			return func(b []byte) []byte { return wire.AppendTarget(b, wire.Close, name) },
				&pgproto3.Close{ObjectType: 'S', Name: name}
		},
		"Close of a portal": func(t *rapid.T) (func([]byte) []byte, pgproto3.FrontendMessage) {
			name := text.Draw(t, "name")
			return func(b []byte) []byte { return wire.AppendClosePortal(b, name) },
				&pgproto3.Close{ObjectType: 'P', Name: name}
		},
		"Execute": func(t *rapid.T) (func([]byte) []byte, pgproto3.FrontendMessage) {
			name := text.Draw(t, "name")
			return func(b []byte) []byte { return wire.AppendExecute(b, name) }, &pgproto3.Execute{Portal: name}
		},
		"Bind": func(t *rapid.T) (func([]byte) []byte, pgproto3.FrontendMessage) {
			m := anyBind(t)
			portal, rest, _ := wire.CString(wire.Body(mustEncode(t, m)))
			_, rest, _ = wire.CString(rest)
			m.PreparedStatement = text.Draw(t, "other name")
			return func(b []byte) []byte {
				return append(wire.AppendBindHead(b, portal, m.PreparedStatement, len(rest)), rest...)
			}, m
		},
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				add, want := draw(t)
				msg := appended(t, add)
				theirs := mustEncode(t, want)
				if !bytes.Equal(msg, theirs) {
					t.Fatalf("%x, pgproto3 writes %x", msg, theirs)
				}
				framed(t, msg, msg[0])
				got, err := asServer(msg)
				if diff := cmp.Diff(want, got); err != nil || diff != "" {
					t.Fatalf("pgproto3 reads %x: %v %s", msg, err, diff)
				}
			})
		})
	}
}

func anyBind(t *rapid.T) *pgproto3.Bind {
	m := &pgproto3.Bind{DestinationPortal: text.Draw(t, "portal"), PreparedStatement: text.Draw(t, "name")}
	if n := rapid.IntRange(0, 4).Draw(t, "parameters"); n > 0 {
		m.ParameterFormatCodes = rapid.SliceOfN(rapid.Int16Range(0, 1), n, n).Draw(t, "formats")
		m.Parameters = rapid.SliceOfN(blob, n, n).Draw(t, "values")
	}
	m.ResultFormatCodes = rapid.SliceOfN(rapid.Int16Range(0, 1), 1, 3).Draw(t, "results")
	return m
}

// TestBackendMessages is the same for what wire appends for a client.
func TestBackendMessages(t *testing.T) {
	for name, draw := range map[string]func(*rapid.T) (func([]byte) []byte, pgproto3.BackendMessage){
		"ReadyForQuery": func(t *rapid.T) (func([]byte) []byte, pgproto3.BackendMessage) {
			status := rapid.SampledFrom([]byte{wire.Idle, wire.InTx, wire.Failed}).Draw(t, "status")
			return func(b []byte) []byte { return wire.AppendReadyForQuery(b, status) }, &pgproto3.ReadyForQuery{TxStatus: status}
		},
		"ParseComplete": func(*rapid.T) (func([]byte) []byte, pgproto3.BackendMessage) {
			return func(b []byte) []byte { return wire.AppendEmpty(b, wire.ParseComplete) }, &pgproto3.ParseComplete{}
		},
		"CloseComplete": func(*rapid.T) (func([]byte) []byte, pgproto3.BackendMessage) {
			return func(b []byte) []byte { return wire.AppendEmpty(b, wire.CloseComplete) }, &pgproto3.CloseComplete{}
		},
		"ParameterStatus": func(t *rapid.T) (func([]byte) []byte, pgproto3.BackendMessage) {
			name, value := text.Draw(t, "name"), text.Draw(t, "value")
			return func(b []byte) []byte { return wire.AppendParameterStatus(b, name, value) },
				&pgproto3.ParameterStatus{Name: name, Value: value}
		},
		"BackendKeyData": func(t *rapid.T) (func([]byte) []byte, pgproto3.BackendMessage) {
			pid, key := rapid.Uint32().Draw(t, "pid"), rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "key")
			return func(b []byte) []byte { return wire.AppendBackendKeyData(b, pid, key) },
				&pgproto3.BackendKeyData{ProcessID: pid, SecretKey: uint32(key[0])<<24 | uint32(key[1])<<16 | uint32(key[2])<<8 | uint32(key[3])}
		},
		"RowDescription": func(t *rapid.T) (func([]byte) []byte, pgproto3.BackendMessage) {
			columns, m := rapid.SliceOfN(text, 1, 5).Draw(t, "columns"), &pgproto3.RowDescription{}
			for _, name := range columns {
				m.Fields = append(m.Fields, pgproto3.FieldDescription{Name: []byte(name), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1})
			}
			return func(b []byte) []byte { return wire.AppendRowDescription(b, columns) }, m
		},
		"DataRow": func(t *rapid.T) (func([]byte) []byte, pgproto3.BackendMessage) {
			values, m := rapid.SliceOfN(text, 1, 5).Draw(t, "values"), &pgproto3.DataRow{}
			for _, v := range values {
				m.Values = append(m.Values, []byte(v))
			}
			return func(b []byte) []byte { return wire.AppendDataRow(b, values...) }, m
		},
		"CommandComplete": func(t *rapid.T) (func([]byte) []byte, pgproto3.BackendMessage) {
			tag := text.Draw(t, "tag")
			return func(b []byte) []byte { return wire.AppendCommandComplete(b, tag) }, &pgproto3.CommandComplete{CommandTag: []byte(tag)}
		},
		"AuthenticationOk": func(*rapid.T) (func([]byte) []byte, pgproto3.BackendMessage) {
			return wire.AppendAuthenticationOk, &pgproto3.AuthenticationOk{}
		},
		"ErrorResponse": func(t *rapid.T) (func([]byte) []byte, pgproto3.BackendMessage) {
			e := wire.Error{
				Severity: rapid.SampledFrom([]string{"", "ERROR", "FATAL"}).Draw(t, "severity"),
				Code:     word.Draw(t, "code"), Message: word.Draw(t, "message"),
				Detail: text.Draw(t, "detail"), Hint: text.Draw(t, "hint"),
			}
			severity := e.Severity
			if severity == "" {
				severity = "ERROR"
			}
			return e.Append, &pgproto3.ErrorResponse{
				Severity: severity, SeverityUnlocalized: severity, Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint,
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				add, want := draw(t)
				msg := appended(t, add)
				theirs := mustEncode(t, want)
				if !bytes.Equal(msg, theirs) {
					t.Fatalf("%x, pgproto3 writes %x", msg, theirs)
				}
				framed(t, msg, msg[0])
				got, err := asClient(msg)
				if diff := cmp.Diff(want, got); err != nil || diff != "" {
					t.Fatalf("pgproto3 reads %x: %v %s", msg, err, diff)
				}
			})
		})
	}
}

// appended calls add on a buffer that holds something, and returns what it added.
func appended(t *rapid.T, add func([]byte) []byte) []byte {
	before := full.Draw(t, "before")
	all := add(bytes.Clone(before))
	if !bytes.HasPrefix(all, before) {
		t.Fatalf("appending to %x made %x", before, all)
	}
	return all[len(before):]
}

func mustEncode(t *rapid.T, m interface {
	Encode(dst []byte) ([]byte, error)
},
) []byte {
	msg, err := m.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// TestEveryType: the constants are the letters that pgproto3 gives the messages
// of those names.
func TestEveryType(t *testing.T) {
	for typ, m := range map[byte]pgproto3.FrontendMessage{
		wire.Bind: &pgproto3.Bind{}, wire.Close: &pgproto3.Close{}, wire.CopyData: &pgproto3.CopyData{},
		wire.CopyDone: &pgproto3.CopyDone{}, wire.CopyFail: &pgproto3.CopyFail{}, wire.Describe: &pgproto3.Describe{},
		wire.Execute: &pgproto3.Execute{}, wire.Flush: &pgproto3.Flush{}, wire.FunctionCall: &pgproto3.FunctionCall{},
		wire.Parse: &pgproto3.Parse{}, wire.Password: &pgproto3.PasswordMessage{}, wire.Query: &pgproto3.Query{},
		wire.Sync: &pgproto3.Sync{}, wire.Terminate: &pgproto3.Terminate{},
	} {
		if msg := encoded(t, m); msg[0] != typ {
			t.Errorf("%v begins with %q, not %q", reflect.TypeOf(m), msg[0], typ)
		}
	}
	for typ, m := range map[byte]pgproto3.BackendMessage{
		wire.Authentication: &pgproto3.AuthenticationOk{}, wire.BackendKeyData: &pgproto3.BackendKeyData{},
		wire.BindComplete: &pgproto3.BindComplete{}, wire.CloseComplete: &pgproto3.CloseComplete{},
		wire.CommandComplete: &pgproto3.CommandComplete{}, wire.CopyBothResponse: &pgproto3.CopyBothResponse{},
		wire.CopyInResponse: &pgproto3.CopyInResponse{}, wire.CopyOutResponse: &pgproto3.CopyOutResponse{},
		wire.DataRow: &pgproto3.DataRow{}, wire.EmptyQueryResponse: &pgproto3.EmptyQueryResponse{},
		wire.ErrorResponse: &pgproto3.ErrorResponse{}, wire.FunctionCallResponse: &pgproto3.FunctionCallResponse{},
		wire.NoData: &pgproto3.NoData{}, wire.NoticeResponse: &pgproto3.NoticeResponse{},
		wire.NotificationResponse: &pgproto3.NotificationResponse{}, wire.ParameterDescription: &pgproto3.ParameterDescription{},
		wire.ParameterStatus: &pgproto3.ParameterStatus{}, wire.ParseComplete: &pgproto3.ParseComplete{},
		wire.PortalSuspended: &pgproto3.PortalSuspended{}, wire.ReadyForQuery: &pgproto3.ReadyForQuery{},
		wire.RowDescription: &pgproto3.RowDescription{},
	} {
		if msg := encoded(t, m); msg[0] != typ {
			t.Errorf("%v begins with %q, not %q", reflect.TypeOf(m), msg[0], typ)
		}
	}
}

// TestStartup: what the oracle writes as a client, wire reads.
func TestStartup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		user := word.Draw(t, "user")
		params := rapid.MapOfN(word, text, 0, 5).Draw(t, "params")
		params["user"] = user
		packet := mustEncode(t, &pgproto3.StartupMessage{ProtocolVersion: wire.Version30, Parameters: params})
		if size, ok, err := wire.StartupLen(packet); err != nil || !ok || size != len(packet) {
			t.Fatalf("StartupLen = %d, %v, %v for %d bytes", size, ok, err, len(packet))
		}
		s, err := wire.ParseStartup(packet)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(params, parameters(s), ignoreDefault(params)); diff != "" {
			t.Fatal(diff)
		}
		if s.Version != wire.Version30 || s.User != user {
			t.Fatalf("version %x, user %q", s.Version, s.User)
		}
	})
}

// parameters makes of a startup message the map that the oracle makes: the
// values of options, which wire drops, are empty.
func parameters(s wire.Startup) map[string]string {
	all := map[string]string{"user": s.User, "database": s.Database}
	for _, p := range s.Params {
		all[p.Name] = p.Value
	}
	for _, name := range s.Options {
		all[name] = ""
	}
	return all
}

// ignoreDefault leaves a database out of the comparison that was not given, and
// values of options.
func ignoreDefault(given map[string]string) cmp.Option {
	return cmp.FilterPath(func(p cmp.Path) bool {
		if len(p) < 2 {
			return false
		}
		name := p[1].(cmp.MapIndex).Key().String()
		return name == "database" && given["database"] == "" || len(name) >= 5 && name[:5] == "_pq_."
	}, cmp.Ignore())
}

func TestStartupRequests(t *testing.T) {
	for code, m := range map[uint32]pgproto3.FrontendMessage{
		wire.SSLRequestCode:    &pgproto3.SSLRequest{},
		wire.GSSENCRequestCode: &pgproto3.GSSEncRequest{},
		wire.CancelRequestCode: &pgproto3.CancelRequest{},
	} {
		packet := encoded(t, m)
		if size, ok, err := wire.StartupLen(packet); err != nil || !ok || size != len(packet) || wire.StartupCode(packet) != code {
			t.Errorf("%T: %d, %v, %v, code %d", m, size, ok, err, wire.StartupCode(packet))
		}
	}
}

func TestCancelRequest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := &pgproto3.CancelRequest{ProcessID: rapid.Uint32().Draw(t, "pid"), SecretKey: rapid.Uint32().Draw(t, "key")}
		packet := mustEncode(t, want)
		pid, key, ok := wire.CancelRequest(packet)
		if !ok || pid != want.ProcessID || len(key) != 4 {
			t.Fatalf("CancelRequest(%x) = %d, %x, %v", packet, pid, key, ok)
		}
		if again := appended(t, func(b []byte) []byte { return wire.AppendCancelRequest(b, pid, key) }); !bytes.Equal(again, packet) {
			t.Fatalf("%x, pgproto3 writes %x", again, packet)
		}
		got, err := asListener(packet)
		if diff := cmp.Diff(pgproto3.FrontendMessage(want), got); err != nil || diff != "" {
			t.Fatalf("pgproto3 reads %x: %v %s", packet, err, diff)
		}
	})
}

// TestField: every field of what the oracle writes as a server is found.
func TestField(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &pgproto3.ErrorResponse{
			Severity: text.Draw(t, "S"), SeverityUnlocalized: text.Draw(t, "V"), Code: text.Draw(t, "C"),
			Message: text.Draw(t, "M"), Detail: text.Draw(t, "D"), Hint: text.Draw(t, "H"), Where: text.Draw(t, "W"),
			ConstraintName: text.Draw(t, "n"), Routine: text.Draw(t, "R"),
		}
		msg := mustEncode(t, m)
		for field, want := range map[byte]string{
			'S': m.Severity, 'V': m.SeverityUnlocalized, 'C': m.Code, 'M': m.Message, 'D': m.Detail, 'H': m.Hint,
			'W': m.Where, 'n': m.ConstraintName, 'R': m.Routine, 'P': "", 'z': "",
		} {
			if got := wire.Field(msg, field); string(got) != want {
				t.Fatalf("field %q is %q, want %q", field, got, want)
			}
		}
		other := text.Draw(t, "other message")
		if m.Message == "" {
			other = "" // there is nothing to replace
		}
		changed := wire.ReplaceField(msg, 'M', func(old string) string {
			if old != m.Message {
				t.Fatalf("asked to replace %q, the message is %q", old, m.Message)
			}
			return other
		})
		framed(t, changed, wire.ErrorResponse)
		want := *m
		want.Message = other
		got, err := asClient(changed)
		if diff := cmp.Diff(pgproto3.BackendMessage(&want), got); err != nil || diff != "" {
			t.Fatalf("pgproto3 reads %x: %v %s", changed, err, diff)
		}
	})
}

func TestFunctionResult(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &pgproto3.FunctionCallResponse{Result: blob.Draw(t, "result")}
		if rapid.Bool().Draw(t, "null") {
			m.Result = nil
		}
		got, err := wire.FunctionResult(mustEncode(t, m))
		if err != nil || !bytes.Equal(got, m.Result) || (got == nil) != (m.Result == nil) {
			t.Fatalf("FunctionResult of %x = %x, %v", m.Result, got, err)
		}
	})
}
