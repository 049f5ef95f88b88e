package session

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"

	"github.com/lsnproxy/lsnproxy/wire"
)

// A server may fail to read a message: it has no end, or bytes that are no characters
// (pq_getmsgstring and pq_getmsgend in libpq/pqformat.c). Then it has done nothing, not
// even ended the unnamed statement. What it runs may fail with the same SQLSTATEs, so the
// message itself has to be looked at.

// unfit reports whether a server fails to read messages with this SQLSTATE.
func unfit(code string) bool {
	switch code {
	case "08P01", "22021", "22P05":
		return true
	}
	return false
}

// legibleQuery reports whether a server can read the body of a Query, as far as that can be
// told from here.
func (s *session) legibleQuery(body []byte) bool {
	text, rest, ok := wire.CString(body)
	return ok && len(rest) == 0 && s.legible(text)
}

// legibleParse is the same of the body of a Parse behind the name: the text, and a list of
// types.
func (s *session) legibleParse(body []byte) bool {
	text, rest, ok := wire.CString(body)
	return ok && len(rest) >= 2 && len(rest) == 2+4*int(binary.BigEndian.Uint16(rest)) && s.legible(text)
}

// legible reports whether a text is one in the client's encoding: what is not ASCII can be told
// in UTF8 only, and only if the server does not convert it.
func (s *session) legible(text []byte) bool {
	if !bytes.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return true
	}
	client := s.params["client_encoding"]
	return s.params["server_encoding"] == "UTF8" && (client == "UTF8" || client == "SQL_ASCII") && utf8.Valid(text)
}
