// Package report is how the programs written in Go say what works: one line for
// each feature, "feature ok|FAIL|none detail".
package report

import (
	"cmp"
	"fmt"
	"os"
	"strings"
)

// Feature is one thing a client can do. Try answers with what was seen, which must
// be the same on every run, or with why it is wrong.
type Feature struct {
	Name string
	Try  func() (seen string, err error)
}

// Run tries the features in turn and prints a line for each.
func Run(features []Feature) {
	for _, f := range features {
		seen, err := f.Try()
		if err != nil {
			fmt.Println(f.Name, "FAIL", strings.Join(strings.Fields(err.Error()), " "))
			continue
		}
		fmt.Println(f.Name, "ok", strings.TrimSpace(seen))
	}
}

// Name gives a name for a table or the like that no other program uses, nor
// another copy of this one.
func Name(of string) string {
	return cmp.Or(os.Getenv("COMPAT_NAME"), "compat") + "_" + of
}

// Equal says in an error what was wanted instead of what was seen.
func Equal[T comparable](what string, seen, want T) error {
	if seen != want {
		return fmt.Errorf("%s: %v instead of %v", what, seen, want)
	}
	return nil
}
