package main

import (
	"fmt"
	"strconv"
	"strings"
)

// size is a number of bytes, written with PostgreSQL's units: 1 kB is 1024 bytes
// ("Parameter Names and Values" in the manual).
type size uint64

var sizeUnits = []struct {
	name  string
	shift uint
}{{"kB", 10}, {"MB", 20}, {"GB", 30}, {"TB", 40}, {"B", 0}, {"", 0}}

// UnmarshalText reads a size like 16MB; a number without a unit is bytes.
func (s *size) UnmarshalText(text []byte) error {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(string(text), u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 64-int(u.shift))
		if err != nil {
			break
		}
		*s = size(n << u.shift)
		return nil
	}
	return fmt.Errorf("want a size like 512kB, 16MB or 1GB, not %q", text)
}

func (s size) String() string {
	for _, u := range []int{3, 2, 1, 0} {
		if unit := sizeUnits[u]; s != 0 && s%(1<<unit.shift) == 0 {
			return strconv.FormatUint(uint64(s)>>unit.shift, 10) + unit.name
		}
	}
	return strconv.FormatUint(uint64(s), 10)
}
