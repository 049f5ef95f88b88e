package wire

import "bytes"

// Error is an ErrorResponse in the making: what the proxy itself tells a
// client, with the SQLSTATE that PostgreSQL would use ("Error and Notice
// Message Fields" in the manual).
type Error struct {
	Severity string // ERROR or FATAL; ERROR if empty
	Code     string // SQLSTATE
	Message  string
	Detail   string
	Hint     string
}

// Error makes the text of e.
func (e *Error) Error() string { return e.Message + " (SQLSTATE " + e.Code + ")" }

// Append appends e as an ErrorResponse.
func (e *Error) Append(dst []byte) []byte { return e.append(dst, ErrorResponse) }

// AppendNotice appends e as a NoticeResponse; its severity should be one of those.
func (e *Error) AppendNotice(dst []byte) []byte { return e.append(dst, NoticeResponse) }

func (e *Error) append(dst []byte, typ byte) []byte {
	severity := e.Severity
	if severity == "" {
		severity = "ERROR"
	}
	start := len(dst)
	dst = begin(dst, typ)
	for _, f := range []struct {
		field byte
		value string
	}{{'S', severity}, {'V', severity}, {'C', e.Code}, {'M', e.Message}, {'D', e.Detail}, {'H', e.Hint}} {
		if f.value != "" {
			dst = append(append(append(dst, f.field), f.value...), 0)
		}
	}
	return end(append(dst, 0), start)
}

// Field returns the value of one field of a whole ErrorResponse or
// NoticeResponse, empty if it is not there.
func Field(msg []byte, field byte) []byte {
	b := Body(msg)
	for len(b) > 0 && b[0] != 0 {
		value, rest, ok := CString(b[1:])
		if !ok {
			return nil
		}
		if b[0] == field {
			return value
		}
		b = rest
	}
	return nil
}

// ReplaceField returns a copy of the ErrorResponse msg with one field's value
// changed by the function f.
func ReplaceField(msg []byte, field byte, f func(string) string) []byte {
	out := begin(make([]byte, 0, len(msg)+32), msg[0])
	b := Body(msg)
	for len(b) > 0 && b[0] != 0 {
		value, rest, ok := CString(b[1:])
		if !ok {
			return msg
		}
		v := string(value)
		if b[0] == field {
			v = f(v)
		}
		out = append(append(append(out, b[0]), v...), 0)
		b = rest
	}
	return end(append(out, 0), 0)
}

// AddField returns a copy of a whole ErrorResponse or NoticeResponse with one more
// field.
func AddField(msg []byte, field byte, value string) []byte {
	out := append(begin(nil, msg[0]), bytes.TrimSuffix(Body(msg), []byte{0})...)
	out = append(append(out, field), value...)
	return end(append(out, 0, 0), 0)
}
