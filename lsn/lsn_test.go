package lsn_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/lsnproxy/lsnproxy/lsn"
)

var anyLSN = rapid.Map(rapid.Uint64(), func(v uint64) lsn.LSN { return lsn.LSN(v) })

func TestLSNRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyLSN.Draw(t, "lsn")
		got, err := lsn.Parse(want.String())
		if err != nil || got != want {
			t.Fatalf("Parse(%q) = %v, %v", want, got, err)
		}
	})
}

// The texts are what PostgreSQL prints for these values as pg_lsn.
func TestLSNText(t *testing.T) {
	for text, want := range map[string]lsn.LSN{
		"0/0":               0,
		"0/3000028":         0x3000028,
		"16/B374D848":       0x16B374D848,
		"FFFFFFFF/FFFFFFFF": ^lsn.LSN(0),
		"1/0":               1 << 32,
	} {
		if got := want.String(); got != text {
			t.Errorf("%#x prints %s, want %s", uint64(want), got, text)
		}
		if got, err := lsn.Parse(text); err != nil || got != want {
			t.Errorf("Parse(%s) = %v, %v", text, got, err)
		}
	}
	for text, want := range map[string]lsn.LSN{"a/bc": 0xA000000BC, "00000001/00000002": 1<<32 | 2} {
		if got, err := lsn.Parse(text); err != nil || got != want {
			t.Errorf("Parse(%s) = %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestLSNMalformed(t *testing.T) {
	for _, text := range []string{
		"", "/", "0", "0/", "/0", "0/0/0", "g/0", "0x1/0", "+1/0", "-1/0", "1/+1", "1_0/0", " 0/0", "0/0 ",
		"123456789/0", "0/123456789", "0/0\n",
	} {
		if got, err := lsn.Parse(text); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", text, got)
		}
	}
}

// The sizes that XLogBytePosToRecPtr and XLogBytePosToEndRecPtr of
// access/transam/xlog.c calculate with.
const (
	block       = 8192
	longHeader  = 40
	shortHeader = 24
)

// insertAndEnd gives the two log positions the server makes of one usable byte
// position: what pg_current_wal_insert_lsn() returns, and what the end of a
// record there is called, which is what replay reports. It follows the two
// functions of xlog.c and shares nothing with Normalize.
func insertAndEnd(bytePos, segment uint64) (insert, end lsn.LSN) {
	perPage := uint64(block - shortHeader)
	perSegment := segment/block*perPage - (longHeader - shortHeader)
	full, left := bytePos/perSegment, bytePos%perSegment
	var in, inEnd uint64
	switch first := uint64(block - longHeader); {
	case left < first:
		in = left + longHeader
		if left > 0 {
			inEnd = in
		}
	default:
		left -= first
		page, rest := left/perPage, left%perPage
		in = block + page*block + rest + shortHeader
		inEnd = in
		if rest == 0 {
			inEnd = block + page*block
		}
	}
	return lsn.LSN(full*segment + in), lsn.LSN(full*segment + inEnd)
}

func TestNormalizeIsTheEndOfTheRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		segment := uint64(1) << rapid.IntRange(20, 30).Draw(t, "log2 of the segment")
		perPage := uint64(block - shortHeader)
		pos := rapid.OneOf(
			rapid.Uint64Range(0, 1<<40),
			// Page starts are rare among all positions and are what matters.
			rapid.Map(rapid.Uint64Range(1, 1<<20), func(page uint64) uint64 {
				perSegment := segment/block*perPage - (longHeader - shortHeader)
				pages := segment / block
				return page/pages*perSegment + max(page%pages*perPage, longHeader-shortHeader) - (longHeader - shortHeader)
			}),
		).Draw(t, "byte position")
		insert, end := insertAndEnd(pos, segment)
		if got := lsn.Normalize(insert, segment); got != end {
			t.Fatalf("Normalize(%v) = %v, want %v", insert, got, end)
		}
		if got := lsn.Normalize(end, segment); got != end {
			t.Fatalf("Normalize(%v) = %v: not idempotent", end, got)
		}
	})
}

// The positions were seen on PostgreSQL 15 with segments of 16 MB.
func TestNormalizeSeen(t *testing.T) {
	const segment = 16 << 20
	for _, c := range []struct{ insert, want string }{
		{"0/4160018", "0/4160000"}, // a record ended with a page
		{"0/5000028", "0/5000000"}, // after pg_switch_wal
		{"0/5000018", "0/5000018"}, // inside a segment's own header: never reported
		{"0/5002018", "0/5002000"},
		{"0/4160028", "0/4160028"}, // 40 into a page that does not begin a segment
		{"0/4160038", "0/4160038"},
		{"0/4160000", "0/4160000"},
	} {
		at, err := lsn.Parse(c.insert)
		if err != nil {
			t.Fatal(err)
		}
		if got := lsn.Normalize(at, segment).String(); got != c.want {
			t.Errorf("Normalize(%s) = %s, want %s", c.insert, got, c.want)
		}
	}
}

var anyToken = rapid.Custom(func(t *rapid.T) lsn.Token {
	return lsn.Token{
		System: rapid.Uint64Min(1).Draw(t, "system"),
		Position: lsn.Position{
			Timeline: rapid.Uint32Min(1).Draw(t, "timeline"),
			LSN:      anyLSN.Draw(t, "lsn"),
		},
	}
})

func TestTokenRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyToken.Draw(t, "token")
		got, err := lsn.ParseToken(want.String())
		if err != nil || got != want {
			t.Fatalf("ParseToken(%q) = %v, %v", want, got, err)
		}
	})
	if got, err := lsn.ParseToken(lsn.Token{}.String()); err != nil || got != (lsn.Token{}) {
		t.Errorf("the zero token comes back as %v, %v", got, err)
	}
}

func TestTokenMalformed(t *testing.T) {
	for _, text := range []string{
		" ", ":", "::", "1:1", "1:1:", "1:1:0", "1:1:0/0:", "1:1:0/0:1", "0:1:0/0", "1:0:0/0", "-1:1:0/0",
		"+1:1:0/0", "1:+1:0/0", "1:4294967296:0/0", "18446744073709551616:1:0/0", "1_0:1:0/0", "0x1:1:0/0",
		"1:1:0/0 ", "1: 1:0/0", "1:1:0/123456789", "1:1:0/0\x00",
	} {
		if got, err := lsn.ParseToken(text); err == nil {
			t.Errorf("ParseToken(%q) = %v, want an error", text, got)
		}
	}
}

// A token comes from clients. Whatever is taken must mean the same thing after
// it was printed, or two proxies would disagree about it.
func FuzzParseToken(f *testing.F) {
	for _, seed := range []string{"", "7711278194643005477:1:16/B374D848", "1:1:0/0", "01:02:0a/0B", "1:1:0/00000000"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := lsn.ParseToken(text)
		if err != nil {
			return
		}
		again, err := lsn.ParseToken(token.String())
		if err != nil || again != token {
			t.Fatalf("%q is %v, prints %q, which is %v, %v", text, token, token.String(), again, err)
		}
	})
}

func TestAppendDoesNotAllocate(t *testing.T) {
	token := lsn.Token{System: 7711278194643005477, Position: lsn.Position{Timeline: 3, LSN: 0x16B374D848}}
	buf := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { buf = token.Append(buf[:0]) }); n != 0 {
		t.Errorf("Append allocates %v times", n)
	}
}
