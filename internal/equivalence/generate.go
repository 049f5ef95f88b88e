package equivalence

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/lsnproxy/lsnproxy/wire"
)

// Options say what scene to make.
type Options struct {
	Seed     uint64
	Sessions int // at most MaxSessions
	Steps    int
	Notify   bool     // sessions notify each other: for a scene that is not played together
	Only     []string // topics by name; nil: all
	Without  []string // topics by name
}

// Generate makes a scene. The same options give the same scene.
func Generate(o Options) Scene {
	rng := rand.New(rand.NewPCG(o.Seed, 1))
	speakers := make([]speaker, o.Sessions)
	for i := range speakers {
		speakers[i] = speaker{Rand: rng, me: i}
		if o.Notify {
			speakers[i].others = o.Sessions - 1
		}
	}
	var topics []topic
	for _, t := range allTopics {
		if (o.Only == nil || slices.Contains(o.Only, t.name)) && !slices.Contains(o.Without, t.name) {
			topics = append(topics, t)
		}
	}
	queues := make([][][]message, o.Sessions)
	var scene Scene
	for len(scene) < o.Steps {
		i := rng.IntN(o.Sessions)
		if len(queues[i]) == 0 {
			queues[i] = speakers[i].turn(topics)
		}
		scene = append(scene, Step{Session: i, messages: queues[i][0]})
		queues[i] = queues[i][1:]
	}
	return scene
}

// speaker makes up what one session says. It does not follow what has become of
// it: a name that does not exist any more is as good a test as one that does.
type speaker struct {
	*rand.Rand
	me     int
	others int // how many more may be notified
}

// topic is one kind of thing to say, in one or several steps.
type topic struct {
	name   string
	weight int
	say    func(*speaker) [][]message
}

var allTopics = []topic{
	{"simple", 20, (*speaker).simple},
	{"extended", 30, (*speaker).extended},
	{"pipeline", 20, (*speaker).pipeline},
	{"transaction", 22, bySQL(transactions)},
	{"readonly", 5, (*speaker).readOnly},
	{"copy", 6, (*speaker).copies},
	{"function", 3, (*speaker).functionCall},
	{"malformed", 3, (*speaker).malformed},
	{"cursor", 6, bySQL(cursors)},
	{"settings", 12, bySQL(settings)},
	{"prepare", 6, bySQL(prepares)},
	{"temporary", 4, bySQL(temporaries)},
	{"notify", 4, bySQL(notifies)},
	{"locks", 2, bySQL(locks)},
	{"sequence", 3, bySQL(sequences)},
	{"objects", 2, bySQL(objects)},
	{"discard", 1, bySQL(discards)},
	{"anew", 1, (*speaker).anew},
}

// turn makes up what to say next.
func (s *speaker) turn(topics []topic) [][]message {
	total := 0
	for _, t := range topics {
		total += t.weight
	}
	n := s.IntN(total)
	for _, t := range topics {
		if n -= t.weight; n < 0 {
			return t.say(s)
		}
	}
	panic("bug: weights")
}

// one is a turn of a single step.
func one(messages ...message) [][]message { return [][]message{messages} }

func query(sql string) message { return message{wire.Query, sql + "\x00"} }

// bySQL says one of the texts, by a simple Query or by the extended protocol.
func bySQL(texts []string) func(*speaker) [][]message {
	return func(s *speaker) [][]message {
		sql := s.text(texts)
		if s.IntN(3) > 0 {
			return one(query(sql))
		}
		return one(append(s.run("", sql, nil), message{wire.Sync, ""})...)
	}
}

// readOnly is a transaction that may be on a follower, whole. At READ COMMITTED it
// may hold anything; else what followers take, since the proxy refuses to take a
// snapshot elsewhere.
func (s *speaker) readOnly() [][]message {
	begin, lists := "begin read only, isolation level read committed", [][]string{readings, readings, refusedByFollowers}
	if s.IntN(3) == 0 {
		begin, lists = "start transaction isolation level repeatable read, read only", [][]string{readings, cursors[:2], {"fetch %d from c", "close c"}}
	}
	steps := bySQL([]string{begin})(s)
	for range s.IntN(6) {
		steps = append(steps, bySQL(pick(s, lists))(s)...)
	}
	return append(steps, bySQL([]string{"commit", "rollback", "commit and chain; rollback"})(s)...)
}

// text chooses a text and fills in what it leaves open: %s is a setting and %v a
// value for it, %d a small number, %N the session's own number, %P that of one it
// may notify and %C a channel of all such.
func (s *speaker) text(texts []string) string {
	sql := pick(s, texts)
	if strings.Contains(sql, "%s") {
		set := pick(s, values)
		sql = strings.ReplaceAll(sql, "%s", set.name)
		sql = strings.ReplaceAll(sql, "%v", pick(s, set.values))
	}
	channel := fmt.Sprintf("chan%d", s.me)
	if s.others > 0 {
		channel = "common"
	}
	sql = strings.NewReplacer("%N", fmt.Sprint(s.me), "%C", channel).Replace(sql)
	for strings.Contains(sql, "%P") {
		to := s.me
		if s.others > 0 {
			to = s.IntN(s.others + 1)
		}
		sql = strings.Replace(sql, "%P", fmt.Sprint(to), 1)
	}
	for strings.Contains(sql, "%d") {
		sql = strings.Replace(sql, "%d", fmt.Sprint(s.IntN(9)), 1)
	}
	return sql
}

func pick[T any](s *speaker, list []T) T { return list[s.IntN(len(list))] }

// any chooses a text of any topic.
func (s *speaker) any() string {
	if s.IntN(3) > 0 {
		return s.text(statements)
	}
	return s.text(pick(s, [][]string{transactions, cursors, settings, temporaries, sequences}))
}

// simple is a Query of one statement or several, or none.
func (s *speaker) simple() [][]message {
	n := 1
	if s.IntN(4) == 0 {
		n = s.IntN(5)
	}
	var texts []string
	for range n {
		texts = append(texts, s.text(statements))
		if s.IntN(6) == 0 {
			texts = append(texts, s.text(transactions))
		}
	}
	return one(query(strings.Join(texts, "; ")))
}

// anew ends the session and begins another in its place.
func (s *speaker) anew() [][]message {
	return one(startup(pick(s, [][]string{
		nil, nil,
		{"application_name", "anew"},
		{"options", "-c datestyle=German -c extra_float_digits=0"},
		{"options", "-csearch_path=s" + fmt.Sprint(s.me) + ",eq", "DateStyle", "SQL, DMY"},
		{"TimeZone", "Asia/Tokyo", "client_encoding", "LATIN1"},
		{"client_min_messages", "error", "default_transaction_isolation", "repeatable read"},
		{"default_transaction_read_only", "on"},
		{"no_such_setting", "1"},
	})))
}
