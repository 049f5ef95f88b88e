package lagwatch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/lsnproxy/lsnproxy/pgcluster"
	"github.com/lsnproxy/lsnproxy/pgcluster/pgtest"
)

// liar is a server that says something else than it should, at one place of each
// of the watcher's connections.
type liar struct {
	text  atomic.Pointer[[]byte] // nil: it tells the truth
	rows  bool                   // in the place of a row, and of no other message
	place atomic.Int32           // so many of them are left alone
	told  atomic.Int32
}

func (l *liar) meddle([]byte) pgtest.Meddler {
	left := l.place.Load()
	return func(proxy io.Writer, msg []byte) (spoilt bool, err error) {
		text := l.text.Load()
		if text == nil || l.rows && msg[0] != 'D' {
			_, err = proxy.Write(msg)
			return false, err
		}
		if left--; left >= 0 {
			_, err = proxy.Write(msg)
			return false, err
		}
		l.told.Add(1)
		_, err = proxy.Write(*text)
		return true, err
	}
}

// lies has the server say each of texts at each of places, and looks that the
// watcher comes through and believes the server again when it tells the truth.
func (l *liar) lies(t *testing.T, texts [][]byte, places int32) {
	c := pgtest.Start(t, pgcluster.Options{Followers: 1})
	leader := pgtest.NewSpoiler(t, c.Nodes()[0].Addr(), l.meddle)
	follower := pgtest.NewSpoiler(t, c.Nodes()[1].Addr(), l.meddle)
	o := Options{Interval: time.Millisecond, Timeout: time.Second}
	w := watchAddresses(t, o, leader.Addr(), follower.Addr())
	w.shows("leader 0: usable usable")
	for i, text := range texts {
		for place := range places {
			l.place.Store(place)
			l.told.Store(0)
			l.text.Store(&text)
			pgtest.Eventually(t, fmt.Sprintf("lie %d is told at place %d", i, place), func() bool { return l.told.Load() > 2 })
			l.text.Store(nil)
			w.shows("leader 0: usable usable")
		}
	}
}

// TestHostileRows: rows with other columns, of other types, null, none and many.
func TestHostileRows(t *testing.T) {
	var texts [][]byte
	for _, n := range []int{0, 1, 3, 4, 8, 500} {
		for _, value := range [][]byte{nil, {}, []byte("0"), []byte("99999999999999999999999"), make([]byte, 8), bytes.Repeat([]byte{0xff}, 8), []byte("NaN")} {
			row := &pgproto3.DataRow{Values: make([][]byte, n)}
			for i := range row.Values {
				row.Values[i] = value
			}
			b, err := row.Encode(nil)
			must(t, err)
			texts = append(texts, b)
		}
	}
	for i, text := range texts { // some of them more than once
		if i%7 == 0 {
			texts[i] = bytes.Repeat(text, 3)
		}
	}
	(&liar{rows: true}).lies(t, texts, 3)
}

// TestHostileMessages: messages that are none, that were not asked for, or do not
// end.
func TestHostileMessages(t *testing.T) {
	texts := [][]byte{nil, []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), make([]byte, 64), bytes.Repeat([]byte{0xff}, 64)}
	for _, typ := range "ZDTECS1232nRKAV" {
		for _, size := range []uint32{3, 4, 100, 1<<31 - 1} {
			texts = append(texts, binary.BigEndian.AppendUint32([]byte{byte(typ)}, size))
		}
	}
	flood, err := (&pgproto3.ParameterStatus{Name: "x", Value: "y"}).Encode(nil)
	must(t, err)
	texts = append(texts, bytes.Repeat(flood, 1<<17))
	(&liar{}).lies(t, texts, 2)
}
