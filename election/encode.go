package election

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
)

// marshal encodes one of raft's own values, which cannot fail.
func marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	must(err)
	return b
}

// marshalJSON encodes one of ours. They hold numbers, text, and JSON that was
// checked when it came in.
func marshalJSON(v any) []byte {
	b, err := json.Marshal(v)
	must(err)
	return b
}

// sorted gives the members by name, so that what is done is the same each time.
func sorted(members map[string]peer) []peer {
	return slices.SortedFunc(maps.Values(members), func(a, b peer) int { return cmp.Compare(a.id, b.id) })
}

// quiet is raft's log, of which only what it panics at is of use.
type quiet struct{}

func (quiet) Debug(...any)            {}
func (quiet) Debugf(string, ...any)   {}
func (quiet) Info(...any)             {}
func (quiet) Infof(string, ...any)    {}
func (quiet) Warning(...any)          {}
func (quiet) Warningf(string, ...any) {}
func (quiet) Error(...any)            {}
func (quiet) Errorf(string, ...any)   {}

func (quiet) Fatal(v ...any)                 { panic(fmt.Sprint(v...)) }
func (quiet) Fatalf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
func (quiet) Panic(v ...any)                 { panic(fmt.Sprint(v...)) }
func (quiet) Panicf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
