// Package lsn parses, prints and compares log positions.
//
// An LSN is a byte offset in one history of the write-ahead log. It means
// nothing without the history it was taken on, so two more types carry that:
// Position adds the timeline, Token adds the system identifier. History says
// where each ancestor timeline ended and so lets a Position of an older
// timeline be compared on the present one.
package lsn

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the write-ahead log, in bytes from its beginning.
type LSN uint64

// String prints l as PostgreSQL prints a pg_lsn: two hexadecimal halves.
func (l LSN) String() string {
	return string(l.Append(nil))
}

// Append appends the text of l to dst and returns the longer slice.
func (l LSN) Append(dst []byte) []byte {
	dst = appendHex(dst, uint32(l>>32))
	dst = append(dst, '/')
	return appendHex(dst, uint32(l))
}

// appendHex prints v in upper case, as PostgreSQL's %X does.
func appendHex(dst []byte, v uint32) []byte {
	const digits = "0123456789ABCDEF"
	var buf [8]byte
	i := len(buf)
	for {
		i--
		buf[i] = digits[v&15]
		if v >>= 4; v == 0 {
			return append(dst, buf[i:]...)
		}
	}
}

// Parse reads the text form of a pg_lsn, such as 16/B374D848.
func Parse(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("lsn %q: want two hexadecimal numbers with a slash between", s)
	}
	h, err := parseHex(hi)
	if err != nil {
		return 0, fmt.Errorf("lsn %q: %w", s, err)
	}
	l, err := parseHex(lo)
	if err != nil {
		return 0, fmt.Errorf("lsn %q: %w", s, err)
	}
	return LSN(h)<<32 | LSN(l), nil
}

// parseHex takes 1 to 8 hexadecimal digits and nothing else: no sign, no
// underscore, no prefix, all of which strconv would let through in some base.
func parseHex(s string) (uint32, error) {
	if len(s) == 0 || len(s) > 8 {
		return 0, errors.New("want 1 to 8 hexadecimal digits")
	}
	v, err := strconv.ParseUint(s, 16, 32)
	if err != nil || s[0] == '+' {
		return 0, errors.New("want 1 to 8 hexadecimal digits")
	}
	return uint32(v), nil
}

// blockSize is XLOG_BLCKSZ. It is a build option of the server; SHOW
// wal_block_size tells it, and lagwatch refuses a server with another one.
const blockSize = 8192

// Sizes of the page headers that XLogBytePosToRecPtr adds at a page start
// (access/xlog_internal.h).
const (
	longHeader  = 40
	shortHeader = 24
)

// Normalize turns what pg_current_wal_insert_lsn() returns into the position
// that replay will report for the same byte.
//
// When the last record ends exactly on a page end, the insert position already
// points past the next page's header, and replay stays before that header
// until more is written: an unnormalised token would stall on a quiet leader.
// XLogBytePosToRecPtr and XLogBytePosToEndRecPtr (access/transam/xlog.c) differ
// in just this case, and no record can end on either header's end, so the
// mapping loses nothing. segment is wal_segment_size in bytes.
func Normalize(l LSN, segment uint64) LSN {
	if segment == 0 {
		return l
	}
	in := uint64(l) % segment
	if in == longHeader {
		return l - longHeader
	}
	if uint64(l)%blockSize == shortHeader && in > blockSize {
		return l - shortHeader
	}
	return l
}

// Position is a place on one timeline.
type Position struct {
	Timeline uint32
	LSN      LSN
}

// String prints p as timeline:lsn.
func (p Position) String() string {
	return string(p.append(nil))
}

func (p Position) append(dst []byte) []byte {
	dst = strconv.AppendUint(dst, uint64(p.Timeline), 10)
	dst = append(dst, ':')
	return p.LSN.Append(dst)
}

// IsZero reports whether p stands for nothing: every node covers it.
func (p Position) IsZero() bool { return p == Position{} }

// Later returns the later of two positions that lie on one history: whatever
// has applied it has applied both. Along one history only the LSN counts, also
// across timelines: a follower that already receives timeline 2 may still be
// replaying what timeline 2 inherited from 1, before a position taken on 1.
func Later(a, b Position) Position {
	if b.LSN > a.LSN || (b.LSN == a.LSN && b.Timeline > a.Timeline) {
		return b
	}
	return a
}

// Token is a Position of one database system. It is what a session carries and
// what a client may hand to another connection or another proxy.
type Token struct {
	System uint64
	Position
}

// String prints t as system:timeline:lsn, in characters that need no quoting in
// a header or a cookie.
func (t Token) String() string {
	return string(t.Append(nil))
}

// Append appends the text of t to dst. The zero token prints as nothing.
func (t Token) Append(dst []byte) []byte {
	if t == (Token{}) {
		return dst
	}
	dst = strconv.AppendUint(dst, t.System, 10)
	dst = append(dst, ':')
	return t.append(dst)
}

// ParseToken reads what Token.String prints. The empty string is the zero token.
func ParseToken(s string) (Token, error) {
	if s == "" {
		return Token{}, nil
	}
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return Token{}, fmt.Errorf("token %q: want system:timeline:lsn", s)
	}
	system, err := parseDecimal(parts[0], 64)
	if err != nil {
		return Token{}, fmt.Errorf("token %q: system identifier: %w", s, err)
	}
	timeline, err := parseDecimal(parts[1], 32)
	if err != nil {
		return Token{}, fmt.Errorf("token %q: timeline: %w", s, err)
	}
	l, err := Parse(parts[2])
	if err != nil {
		return Token{}, fmt.Errorf("token %q: %w", s, err)
	}
	return Token{System: system, Position: Position{Timeline: uint32(timeline), LSN: l}}, nil
}

func parseDecimal(s string, bits int) (uint64, error) {
	v, err := strconv.ParseUint(s, 10, bits)
	if err != nil || s[0] == '+' || v == 0 {
		return 0, errors.New("want a decimal number above 0")
	}
	return v, nil
}
