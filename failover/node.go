package failover

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lsnproxy/lsnproxy/lsn"
	"github.com/lsnproxy/lsnproxy/topology"
)

// Node is what a look at one node has shown. What could not be seen, for want of
// rights, is left out, and Refused says so.
type Node struct {
	Address string
	Seen    topology.Instant // just before the latest look that was answered began; 0: never
	Failed  string           // why the latest look was not answered; "" if it was

	System   uint64
	Follower bool
	Timeline uint32           // the newest it has shown
	Received lsn.LSN          // by a follower: the greater of received and replayed; flushed, by a leader
	Replayed lsn.LSN          // by a follower; inserted, by a leader
	Still    topology.Instant // since when Received has been what it is
	Calm     topology.Instant // since when Replayed has been what it is
	Switched lsn.LSN          // of a leader: where its timeline began; 0 if not known

	// Of a follower.
	Quieted   bool             // it was made to receive from nobody
	QuietedIn uint64           // in this epoch
	Alone     topology.Instant // since when it has not been streaming; 0: it streams
	Streaming bool             // its receiver streams
	Receiving bool             // it has a receiver, streaming or not
	Heard     time.Duration    // how old the receiver's last message is; meaningless without Receiving
	Sender    string           // host:port that the receiver is connected to
	Held      bool             // it does not replay at once what it receives: paused, or by recovery_min_apply_delay
	Upstream  string           // host:port of primary_conninfo; "" if it cannot be seen
	Name      string           // by which its leader knows it: application_name
	Slot      string           // primary_slot_name
	Unused    []string         // physical slots on it that nobody uses and that hold log

	Fenced bool   // default_transaction_read_only was set by ALTER SYSTEM
	Names  string // synchronous_standby_names

	// What the agent of Patroni beside it says against its leading, and since when; "" if
	// nothing.
	Denial string
	Denied topology.Instant

	// Refused is what this node would not let itself be done, and why.
	Refused map[Do]string
}

func (n *Node) ok() bool { return n.Failed == "" && n.Seen != 0 }

// Sync is what a leader says of its synchronous standbys.
type Sync struct {
	Seen  bool     `json:"seen"`            // it could be asked
	Names string   `json:"names,omitempty"` // synchronous_standby_names
	Now   []string `json:"now,omitempty"`   // names of those that were synchronous
}

// rule is synchronous_standby_names read: so many of these must have each commit
// ("Synchronous Replication" in the manual; the grammar is syncrep_gram.y).
type rule struct {
	any   bool // ANY; else FIRST
	count int
	names []string // lower case, as they are compared; "*" for everyone
}

// parseRule reads synchronous_standby_names. ok is false if nobody is synchronous.
func parseRule(text string) (r rule, ok bool) {
	text = strings.TrimSpace(text)
	if text == "" {
		return rule{}, false
	}
	r.count = 1
	list := text
	if open := unquotedParen(text); open >= 0 {
		words := strings.Fields(text[:open])
		number := ""
		switch {
		case len(words) == 2:
			r.any = strings.EqualFold(words[0], "any")
			number = words[1]
		case len(words) == 1:
			number = words[0]
		}
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			return rule{}, false
		}
		r.count = n
		list = strings.TrimSuffix(strings.TrimSpace(text[open+1:]), ")")
	}
	r.names = splitNames(list)
	return r, len(r.names) > 0
}

func unquotedParen(text string) int {
	quoted := false
	for i := range len(text) {
		switch {
		case text[i] == '"':
			quoted = !quoted
		case text[i] == '(' && !quoted:
			return i
		}
	}
	return -1
}

// splitNames parts a list of identifiers, some of them quoted. They are compared
// without regard to case (pg_strcasecmp in syncrep.c), so all are made lower case.
func splitNames(list string) []string {
	var names []string
	for list != "" {
		list = strings.TrimLeft(list, ", \t\n")
		name := ""
		if quoted, ok := strings.CutPrefix(list, `"`); ok {
			for {
				part, rest, _ := strings.Cut(quoted, `"`)
				name, list = name+part, rest
				if quoted, ok = strings.CutPrefix(rest, `"`); !ok {
					break
				}
				name += `"`
			}
		} else {
			end := strings.IndexAny(list+",", ", \t\n")
			name, list = list[:end], list[end:]
		}
		if name != "" {
			names = append(names, strings.ToLower(name))
		}
	}
	return names
}

// lists reports whether the rule names a standby.
func (r rule) lists(name string) bool {
	return slices.Contains(r.names, "*") || slices.Contains(r.names, strings.ToLower(name))
}

// without is the rule as the new leader needs it: in its own place stands the old
// leader, which will be its follower. A rule for everyone stays as it is.
func (r rule) without(own, old string) string {
	names := slices.Clone(r.names)
	if i := slices.Index(names, strings.ToLower(own)); i >= 0 {
		if old = strings.ToLower(old); old != "" && !slices.Contains(names, old) {
			names[i] = old
		} else {
			names = slices.Delete(names, i, i+1)
		}
	}
	if len(names) == 0 {
		return "*"
	}
	how := "FIRST"
	if r.any {
		how = "ANY"
	}
	for i, n := range names {
		if n != "*" {
			names[i] = `"` + strings.ReplaceAll(n, `"`, `""`) + `"`
		}
	}
	return how + " " + strconv.Itoa(min(r.count, len(names))) + " (" + strings.Join(names, ", ") + ")"
}
