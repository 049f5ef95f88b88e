package session

import (
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/lsnproxy/lsnproxy/backend"
	"github.com/lsnproxy/lsnproxy/route"
	"github.com/lsnproxy/lsnproxy/wire"
)

// A session's settings go with it from connection to connection. What they are
// is asked once the session is idle after a statement that may have changed
// them: then SET and ROLLBACK have had their say. A connection that was last used
// with other settings is brought in line in front of the next statement.

// heedParameter notes a parameter that the server has reported to the client, in the place
// where it would stand on a direct connection.
func (s *session) heedParameter(name, value string) {
	s.dialect.heed(name, value)
	s.params = maps.Clone(s.params)
	s.params[strings.ToLower(name)] = value
	s.cycle.reported = true
}

// spelling returns the name as servers report it.
func spelling(name string) string {
	switch name {
	case "datestyle":
		return "DateStyle"
	case "intervalstyle":
		return "IntervalStyle"
	case "timezone":
		return "TimeZone"
	}
	return name
}

// unsettled reports whether the cycle may leave the session with other settings.
func (s *session) unsettled() bool {
	return s.touched != "" || s.cycle.class.Sets != "" || s.cycle.reported
}

// settingsAfter returns what is to be asked behind a batch that leaves the session
// idle, if nothing has to be known of its outcome first.
func (s *session) settingsAfter(b *batch) []string {
	sets := s.asked(b.class.Sets)
	if !b.complete || s.touched == "" && sets == "" || s.longName || !s.endsIdle(&b.class) {
		return nil
	}
	return s.unknown(route.Union(s.touched, sets))
}

// setsAlone reports whether a statement of this class, if it succeeds, has surely
// set what is to be asked: what a SET that fails leads to is not looked at.
func (s *session) setsAlone(class *route.Class) bool {
	return s.status == wire.Idle && s.cycle.binds && s.cycle.runs && s.touched == "" && class.Reason == route.ReasonSetting && class.Reset == route.ResetNone
}

// endsIdle reports whether the session will surely be idle after a statement of
// this class, and the server ready for a question of ours.
func (s *session) endsIdle(class *route.Class) bool {
	if class.CopyIn || class.Multi || class.Chain {
		return false
	}
	if s.status == wire.Idle {
		return class.Kind == route.Write
	}
	return class.Kind == route.Commit || class.Kind == route.Rollback
}

// unknown returns the names, of those that were touched, whose values the server
// does not report unasked.
func (s *session) unknown(touched string) []string {
	var names []string
	for name := range strings.FieldsSeq(touched) {
		if name == route.AllSettings || name == route.AnySetting { // what is not set any more is not listed
			names = append(append(names, slices.Collect(maps.Keys(s.conn.Set))...), slices.Collect(maps.Keys(s.settings.Values))...)
			if s.policy != s.base {
				for _, own := range policyNames {
					names = append(names, ownPrefix+own)
				}
			}
		}
		if name != route.AllSettings {
			names = append(names, name)
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		value, reported := s.params[name]
		return reported && ascii(value)
	})
	slices.Sort(names)
	return slices.Compact(names)
}

func ascii(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r > '~' }) < 0
}

// askSettings asks for the values of settings, in hexadecimal because a value may
// be in any encoding. AnySetting asks for all that the server lists as set. Unless
// they are known to have been set, one that the server lists otherwise has no
// value: a transaction that set it may have been rolled back, and what was never
// set here may be something that this session may not set.
func (s *session) askSettings(names []string, set bool) {
	value := "COALESCE('=' OPERATOR(pg_catalog.||)" +
		" pg_catalog.encode(pg_catalog.convert_to(pg_catalog.current_setting(n, true), pg_catalog.getdatabaseencoding()), 'hex'), '')"
	if !set && slices.ContainsFunc(names, listed) {
		value = "CASE WHEN n OPERATOR(pg_catalog.=) ANY (SELECT pg_catalog.lower(name) FROM pg_catalog.pg_settings" +
			" WHERE source OPERATOR(pg_catalog.<>) 'session') THEN '' ELSE " + value + " END"
	}
	others := ""
	if names[0] == route.AnySetting {
		others, names = " UNION SELECT pg_catalog.lower(name) FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session'", names[1:]
	}
	sql := "SELECT pg_catalog.concat(' ', pg_catalog.string_agg(n OPERATOR(pg_catalog.||) " + value + ", ' '))" +
		" FROM (SELECT n FROM pg_catalog.unnest('{" + strings.Join(names, ",") + "}'::pg_catalog.text[]) AS s(n)" + others + ") AS s(n)"
	if !s.onLeader { // which may not take the session's own default
		sql = "BEGIN ISOLATION LEVEL READ COMMITTED; " + sql + "; COMMIT"
	}
	s.up = wire.AppendQuery(s.up, sql)
	s.cycle.insert(step{typ: wire.Query, settings: true})
	s.cycle.sent = len(s.cycle.steps)
}

// listed reports whether pg_settings may tell where a setting has its value from:
// not for roles, nor for what sessions make for themselves.
func listed(name string) bool {
	return name != "role" && name != "session_authorization" && !strings.Contains(name, ".")
}

// learnSettings finds out, once the session is idle, which settings it has now.
func (s *session) learnSettings() error {
	c := &s.cycle
	s.touched = route.Union(s.touched, s.asked(c.class.Sets))
	if c.ready != wire.Idle || s.touched == "" && !c.reported {
		return nil
	}
	if s.undone() {
		c.settings, s.touched = nil, ""
		s.adopt(func(string) bool { return false }) // what the server has reported on the way
		return nil
	}
	if c.failed && c.completed { // it was taken to be set
		c.settings = nil
	}
	for try := 0; ; try++ {
		reset, names := s.wasReset(), s.unknown(s.touched)
		names = slices.DeleteFunc(names, reset)
		if len(names) == 0 || c.settings != nil {
			s.adopt(reset)
			return nil
		}
		if try == 2 || s.longName {
			s.repin(s.pinned | route.PinSetting) // they cannot be told: they stay where they are
			s.touched = ""
			return nil
		}
		s.startUp()
		s.askSettings(names, false)
		if err := s.exchangeOwn(); err != nil {
			return err
		}
	}
}

// undone reports whether the batch was one SET that failed: then nothing has
// changed, and its name may be one that cannot be set.
func (s *session) undone() bool {
	c := &s.cycle
	return s.status == wire.Idle && c.runs && c.nothing() && !c.class.Multi && c.class.Reason == route.ReasonSetting
}

// wasReset returns whether a setting is known to be back at the connection's own
// default. What a custom setting is then, the server has to tell.
func (s *session) wasReset() func(name string) bool {
	class := s.cycle.class
	whole := s.status == wire.Idle && s.cycle.runs && !class.Multi && !s.cycle.failed
	return func(name string) bool {
		role := name == "role" || name == "session_authorization"
		switch {
		case !whole || strings.Contains(name, "."):
			return false
		case class.Reset == route.ResetDiscardAll:
			return true
		default:
			return class.Reset == route.ResetSettings && (class.Name == name || class.Name == "" && !role)
		}
	}
}

// adopt makes what has been found out the session's settings, and the
// connection's.
func (s *session) adopt(reset func(name string) bool) {
	values, set := maps.Clone(s.settings.Values), maps.Clone(s.conn.Set)
	if values == nil {
		values = make(map[string]string)
	}
	if set == nil {
		set = make(map[string]string)
	}
	for _, all := range []map[string]string{values, set} {
		maps.DeleteFunc(all, func(name, _ string) bool { return reset(name) })
	}
	left := false
	for field := range strings.FieldsSeq(string(s.cycle.settings)) {
		name, coded, told := strings.Cut(field, "=")
		name = strings.ToLower(name) // pg_settings has DateStyle and the like
		value, err := hex.DecodeString(coded)
		switch own, ok := ownName(name); {
		case ok && (own == "token" || !s.adoptOwn(own, string(value))): // to be taken away before the connection's next use
			delete(values, name)
			set[name], left = "", true
			continue
		case ok:
			told = len(value) > 0
		}
		if !told || err != nil || name == "role" && string(value) == "none" {
			delete(values, name)
			delete(set, name)
			continue
		}
		values[name], set[name] = string(value), string(value)
	}
	for name, value := range s.params {
		switch {
		case value == s.settings.Begun[name]:
			delete(values, name)
			if _, ok := set[name]; ok {
				set[name] = value
			}
		case ascii(value):
			values[name], set[name] = value, value
		}
	}
	if !maps.Equal(values, s.settings.Values) {
		s.settings = &backend.Settings{Begun: s.settings.Begun, Values: values}
		s.resign()
	}
	s.conn.Settings, s.conn.Set = s.settings, set
	made(s.conn)
	if left {
		s.conn.Settings = nil
	}
	s.touched, s.cycle.reported = "", false
}

// understanding are the settings that decide what a statement means when it is
// prepared.
var understanding = []string{
	"array_nulls", "backslash_quote", "datestyle", "intervalstyle", "lc_monetary", "role", "search_path",
	"session_authorization", "standard_conforming_strings", "timezone", "transform_null_equals", "xmloption",
}

// resign works out anew what follows from the settings. Statements that were
// prepared under another search_path are prepared again where they are not known,
// under the present settings, since a server looks up their names anew for it
// (RevalidateCachedQuery in utils/cache/plancache.c). Nothing else changes them.
func (s *session) resign() {
	var b strings.Builder
	for _, name := range understanding {
		if value, ok := s.settings.Values[name]; ok {
			b.WriteString(name + "=" + value + "\x00")
		}
	}
	s.serializable = s.settings.Values["default_transaction_isolation"] == "serializable"
	same := s.path == s.settings.Values["search_path"]
	if s.meaning, s.path = b.String(), s.settings.Values["search_path"]; same {
		return
	}
	for name, st := range s.statements {
		meaning := s.meaning
		if st.explains() {
			meaning += explainMark
		}
		again := s.db.statements.take(meaning, s.settings, st.body, s.db.schema.Load())
		if params := st.params.Load(); params != nil {
			again.params.CompareAndSwap(nil, params) // which the server does not work out anew
		}
		s.statements[name] = again
		s.db.statements.drop(st)
	}
	if s.unnamed != nil {
		s.unnamed = newUnnamed(s.unnamed.meaning, s.unnamed.body)
	}
}

// localSettings reports whether a statement of this class may change settings until
// the end of the transaction.
func localSettings(class *route.Class) bool {
	switch class.Reason {
	case route.ReasonSetting, route.ReasonSessionState, route.ReasonCursor, route.ReasonMultiple, route.ReasonUnreadable:
		return true
	}
	return class.Local || class.Sets != ""
}

// meaningNow is what a statement that is prepared now depends on. In a transaction
// that may have settings of its own, or while it is not known which it has, nobody else's are known to be the same.
func (s *session) meaningNow() string {
	if s.localSet || s.doubts != nil {
		return s.meaning + "\x00" + itoa(int(s.pid))
	}
	return s.meaning
}

// carries reports whether all of the settings are the session's own, and so the
// same on every node.
func (s *session) carries(names string) bool {
	for name := range strings.FieldsSeq(names) {
		if _, ok := s.settings.Values[name]; !ok {
			return false
		}
	}
	return true
}

// retell returns what tells the client its settings again, where it has been told
// of some that went with a connection.
func (s *session) retell() (messages []byte) {
	s.touched = ""
	for _, name := range sortedKeys(s.params) {
		now := s.settings.Of(name)
		if now == s.params[name] || name == "in_hot_standby" {
			continue
		}
		s.heedParameter(spelling(name), now)
		messages = wire.AppendParameterStatus(messages, spelling(name), now)
	}
	s.cycle.reported = false
	return messages
}

// leavesUnsaid reports whether the client is to be told of a parameter only when its batch is
// over, because a Sync of ours has made the server report it, and notes what it was told last.
// passes says that no such Sync is due now.
func (s *session) leavesUnsaid(name string, passes bool) bool {
	name = strings.ToLower(name)
	if _, ok := s.unsaid[name]; ok || passes {
		return ok
	}
	if s.unsaid == nil {
		s.unsaid = make(map[string]string)
	}
	s.unsaid[name] = s.params[name]
	return true
}

// appendReady appends what the client has not been told of its settings yet, and that its
// batch is over.
func (s *session) appendReady(p []byte, status byte) []byte {
	p = append(p, s.untold...)
	if s.unsaid != nil {
		for _, name := range sortedKeys(s.unsaid) {
			if now := s.params[name]; now != s.unsaid[name] {
				p = wire.AppendParameterStatus(p, spelling(name), now)
			}
		}
	}
	s.untold, s.unsaid = nil, nil
	return wire.AppendReadyForQuery(p, status)
}
