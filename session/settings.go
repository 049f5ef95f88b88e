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

// settable reports whether SET takes a parameter that servers report.
func settable(name string) bool {
	switch name {
	case "server_version", "server_encoding", "integer_datetimes", "in_hot_standby", "is_superuser":
		return false
	}
	return true
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

// align brings the held connection in line with the session before the batch runs
// on it, in the same flight where the batch cannot do anything if that fails.
func (s *session) align(b *batch) error {
	c := s.conn
	if c.Settings == s.settings {
		return nil
	}
	want := s.wantsOf(c)
	queries := difference(c.Set, want)
	c.Settings, c.Set = s.settings, want
	if len(queries) == 0 {
		return nil
	}
	s.srv.metrics.aligned.Add(1)
	if b.complete && endsNothing(b.class) {
		s.prelude = queries
		return nil
	}
	return s.apart(func() error {
		s.startUp()
		s.sendPrelude(queries)
		s.cycle.sent = len(s.cycle.steps)
		return s.exchangeOwn()
	})
}

// endsNothing reports whether the statement does nothing in a failed transaction:
// it has been read, it is the only one, and does not end the transaction.
func endsNothing(class route.Class) bool {
	return !class.Multi && class.Reason != route.ReasonUnreadable &&
		class.Kind != route.Commit && class.Kind != route.Rollback
}

// wantsOf returns what has to be set on a connection so that the client finds its
// own settings: what it has set, and what its server reports by default and the
// client was told otherwise at its login.
func (s *session) wantsOf(c *backend.Conn) map[string]string {
	want, own := s.settings.Values, false
	for name, value := range c.Params {
		name = strings.ToLower(name)
		told, ok := s.settings.Begun[name]
		if !ok || told == value || !settable(name) {
			continue
		}
		if _, ok := want[name]; ok {
			continue
		}
		if !own {
			want, own = maps.Clone(want), true
			if want == nil {
				want = make(map[string]string)
			}
		}
		want[name] = told
	}
	return want
}

// difference returns the queries that lead from what is set to what is wanted.
// Roles come first when they go and last when they come: the rest is set by who
// has logged in. An encoding is a query of its own, because a query is read in
// the encoding that it finds.
func difference(have, want map[string]string) []string {
	var encoding string
	var drops, sets, roles []string
	names := make(map[string]struct{}, len(have)+len(want))
	for name := range have {
		names[name] = struct{}{}
	}
	for name := range want {
		names[name] = struct{}{}
	}
	_, changesUser := names["session_authorization"]
	changesUser = changesUser && have["session_authorization"] != want["session_authorization"]
	for _, name := range slices.Sorted(maps.Keys(names)) {
		before, had := have[name]
		value, wanted := want[name]
		isRole := name == "role" || name == "session_authorization"
		if had == wanted && before == value && !(name == "role" && changesUser) || !settable(name) {
			continue
		}
		switch {
		case isRole:
			if had {
				drops = append([]string{"RESET " + name}, drops...) // in the reverse order: the role is the inner one
			}
			if wanted {
				roles = append([]string{assignment(name, value)}, roles...)
			}
		case !wanted:
			drops = append(drops, "RESET "+quotedName(name))
		case name == "client_encoding":
			encoding = assignment(name, value)
		default:
			sets = append(sets, assignment(name, value))
		}
	}
	var queries []string
	if encoding != "" {
		queries = append(queries, encoding)
	}
	rest := slices.Concat(drops, sets, roles)
	if len(rest) > 0 || encoding != "" {
		queries = append(queries, strings.Join(append(rest, "COMMIT"), "; "))
	}
	return queries
}

// assignment gives a setting its value. Lists of names that SET would quote anew
// and text that depends on the encoding are given by set_config.
func assignment(name, value string) string {
	if strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		return "SELECT pg_catalog.set_config('" + name + "', pg_catalog.convert_from(pg_catalog.decode('" +
			hex.EncodeToString([]byte(value)) + "', 'hex'), pg_catalog.getdatabaseencoding()), false) IS NULL" // the client's encoding may lack it
	}
	quoted := "'" + strings.ReplaceAll(value, "'", "''") + "'"
	if strings.Contains(value, `\`) {
		quoted = "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	switch name {
	case "search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries": // GUC_LIST_QUOTE in guc.h
		return "SELECT pg_catalog.set_config('" + name + "', " + quoted + ", false)"
	}
	return "SET " + quotedName(name) + " TO " + quoted
}

func quotedName(name string) string {
	return `"` + strings.ReplaceAll(name, ".", `"."`) + `"`
}

// opening begins a transaction by the extended protocol. If that fails the server
// skips all that follows, and if one of the queries behind it fails, what follows
// them meets a failed transaction: so a statement never runs with settings that
// are not the session's. The level keeps a default from asking for more.
var opening = func() []byte {
	b := wire.AppendParse(nil, "", []byte("BEGIN ISOLATION LEVEL READ COMMITTED\x00\x00\x00"))
	b = append(wire.AppendBindHead(b, nil, "", 6), 0, 0, 0, 0, 0, 0)
	return append(b, wire.Execute, 0, 0, 0, 9, 0, 0, 0, 0, 0)
}()

// sendPrelude sends what brings the connection in line.
func (s *session) sendPrelude(queries []string) {
	s.up = append(s.up, opening...)
	for _, typ := range [...]byte{wire.Parse, wire.Bind, wire.Execute} {
		s.cycle.insert(step{typ: typ, prelude: true})
	}
	for _, sql := range queries {
		s.up = wire.AppendQuery(s.up, sql)
		s.cycle.insert(step{typ: wire.Query, prelude: true})
	}
	s.conn.Statements.Unnamed = 0
}

// misfitError says that a connection could not be brought in line, and in the
// server's words why.
type misfitError struct{ cause *wire.Error }

func (e *misfitError) Error() string { return "settings not taken over: " + e.cause.Message }

// settingsAfter returns what is to be asked behind a batch that leaves the session
// idle, if nothing has to be known of its outcome first.
func (s *session) settingsAfter(b *batch) []string {
	if !b.complete || s.touched == "" && b.class.Sets == "" || s.longName || !s.endsIdle(b.class) {
		return nil
	}
	return s.unknown(route.Union(s.touched, b.class.Sets))
}

// endsIdle reports whether the session will surely be idle after a statement of
// this class, and the server ready for a question of ours.
func (s *session) endsIdle(class route.Class) bool {
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
		if name == route.AllSettings {
			names = append(append(names, slices.Collect(maps.Keys(s.conn.Set))...), slices.Collect(maps.Keys(s.settings.Values))...)
			if s.policy != s.base {
				for _, own := range policyNames {
					names = append(names, ownPrefix+own)
				}
			}
			continue
		}
		names = append(names, name)
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
// be in any encoding. AnySetting asks for all that the server lists as set.
func (s *session) askSettings(names []string) {
	others := ""
	if names[0] == route.AnySetting {
		others, names = " UNION SELECT name FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session'", names[1:]
	}
	sql := "SELECT pg_catalog.concat(' ', pg_catalog.string_agg(n OPERATOR(pg_catalog.||) COALESCE('=' OPERATOR(pg_catalog.||)" +
		" pg_catalog.encode(pg_catalog.convert_to(pg_catalog.current_setting(n, true), pg_catalog.getdatabaseencoding()), 'hex'), ''), ' '))" +
		" FROM (SELECT n FROM pg_catalog.unnest('{" + strings.Join(names, ",") + "}'::pg_catalog.text[]) AS s(n)" + others + ") AS s(n)"
	if !s.onLeader { // which may not take the session's own default
		sql = "BEGIN ISOLATION LEVEL READ COMMITTED; " + sql + "; COMMIT"
	}
	s.up = wire.AppendQuery(s.up, sql)
	s.cycle.insert(step{typ: wire.Query, settings: true})
	s.cycle.sent = len(s.cycle.steps)
	s.conn.Statements.Unnamed = 0
}

// learnSettings finds out, once the session is idle, which settings it has now.
func (s *session) learnSettings() error {
	c := &s.cycle
	s.touched = route.Union(s.touched, c.class.Sets)
	if c.ready != wire.Idle || s.touched == "" && !c.reported {
		return nil
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
		s.askSettings(names)
		if err := s.exchangeOwn(); err != nil {
			return err
		}
	}
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
// prepared under others are prepared again under these where they are not known.
func (s *session) resign() {
	var b strings.Builder
	for _, name := range understanding {
		if value, ok := s.settings.Values[name]; ok {
			b.WriteString(name + "=" + value + "\x00")
		}
	}
	s.serializable = s.settings.Values["default_transaction_isolation"] == "serializable"
	if b.String() == s.meaning {
		return
	}
	s.meaning = b.String()
	for name, st := range s.statements {
		s.statements[name] = s.db.statements.take(s.meaning, st.body, s.db.schema.Load())
		s.db.statements.drop(st)
	}
	if s.unnamed != nil {
		s.unnamed = newUnnamed(s.unnamed.body)
	}
}

// localSettings reports whether a statement of this class may change settings until
// the end of the transaction.
func localSettings(class route.Class) bool {
	switch class.Reason {
	case route.ReasonSetting, route.ReasonSessionState, route.ReasonMultiple, route.ReasonUnreadable:
		return true
	}
	return class.Local || class.Sets != ""
}

// meaningNow is what a statement that is prepared now depends on. In a transaction
// that may have settings of its own, nobody else's are known to be the same.
func (s *session) meaningNow() string {
	if s.localSet {
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
