package route

import (
	"slices"
	"strings"

	"github.com/lsnproxy/lsnproxy/route/internal/lex"
)

// AllSettings stands in Class.Sets for whatever the session has set: RESET ALL.
const AllSettings = "all"

// AnySetting stands in Class.Sets for what is not told: a function is called that
// the catalog does not know.
const AnySetting = "?"

// Union joins two lists of settings as Class has them: names in order, separated
// by blanks.
func Union(a, b string) string {
	switch {
	case b == "" || a == b:
		return a
	case a == "":
		return b
	}
	names := append(strings.Fields(a), strings.Fields(b)...)
	slices.Sort(names)
	return strings.Join(slices.Compact(names), " ")
}

// Without takes a name out of a list of settings.
func Without(list, name string) string {
	if !slices.Contains(strings.Fields(list), name) {
		return list
	}
	return strings.Join(slices.DeleteFunc(strings.Fields(list), func(s string) bool { return s == name }), " ")
}

// characteristics are what SET SESSION CHARACTERISTICS may set.
const characteristics = "default_transaction_deferrable default_transaction_isolation default_transaction_read_only"

// changed returns what a statement changes that sets or resets the named
// setting, in lower case, and whether the setting can be carried to another
// connection: its value has to be told by SHOW, and its name to be plain.
func changed(name string) (string, bool) {
	switch name {
	case "session_authorization": // ends SET ROLE, too
		return "role session_authorization", true
	case "seed": // SHOW tells nothing of it
		return "", false
	}
	plain := name != "" && len(name) <= lex.MaxName && strings.Trim(name, plainName) == ""
	return name, plain
}

// plainName are the bytes of names that need no care in whatever encoding.
const plainName = "abcdefghijklmnopqrstuvwxyz0123456789_.$"

// sets notes that the statement changes a setting for longer than a transaction.
func (w *walker) sets(name string) {
	names, ok := changed(name)
	if !ok {
		w.pin(PinSetting)
		return
	}
	w.class.Sets = Union(w.class.Sets, names)
}

// custom reports whether a name, in lower case, is one of a setting that
// sessions make for themselves ("Customized Options" in the manual). An
// extension's looks alike.
func custom(name string) bool {
	_, ok := changed(name)
	return ok && strings.Contains(name, ".")
}

// reads notes the setting that current_setting or SHOW asks for. It reports
// false if only the leader can tell.
func (w *walker) reads(name string) bool {
	if !custom(name) {
		return sameSettings[name].reason == ReasonRead
	}
	w.class.Reads = Union(w.class.Reads, name)
	return true
}

// setCommand reads the name behind SET, or behind RESET, in a function's source.
func setCommand(rest string) (string, bool) {
	words := strings.FieldsFunc(strings.ToLower(rest[:min(len(rest), 100)]), func(c rune) bool {
		return strings.ContainsRune(" \t\r\n\f=;'\"$()", c)
	})
	if len(words) > 1 && words[0] == "session" {
		switch words[1] {
		case "authorization":
			return changed("session_authorization")
		case "characteristics":
			return characteristics, true
		}
		words = words[1:]
	}
	if len(words) == 0 {
		return "", false
	}
	switch words[0] {
	case "time":
		return "timezone", true
	case "names":
		return "client_encoding", true
	case "schema":
		return "search_path", true
	case "xml":
		return "xmloption", true
	}
	return changed(words[0])
}

// firstString returns the name that a call's first argument is, if it is a string
// that holds nothing else; text begins with the parenthesis. The source may itself
// be inside a string, so the quotes may be doubled.
func firstString(text string) string {
	rest := strings.TrimLeft(text[1:], " \t\r\n\f")
	name := strings.TrimLeft(rest, "'")
	if len(name) == len(rest) {
		return ""
	}
	name, rest, ok := strings.Cut(name, "'")
	if rest = strings.TrimLeft(rest, "' \t\r\n\f"); !ok || rest == "" || rest[0] != ',' && rest[0] != ')' {
		return ""
	}
	return strings.ToLower(name)
}
