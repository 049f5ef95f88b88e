package session_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// settingSteps are what the random sessions do. Each shows something that settings
// decide.
var settingSteps = []string{
	"set work_mem = '5MB'", "set work_mem = '6MB'", "set local work_mem = '7MB'", "reset work_mem", "show work_mem", "show work_mem",
	"set datestyle = 'German'", "set datestyle = 'SQL, DMY'", "set local datestyle = 'Postgres'", "reset datestyle", "select date '2001-02-03'",
	"set time zone 'Asia/Tokyo'", "set time zone -3", "set local timezone = 'UTC'", "reset time zone", "select timestamptz '2001-01-01 00:00:00Z'",
	"set application_name = 'a b'", "set application_name to default", "show application_name",
	"set search_path = pg_catalog, public", "select set_config('search_path', 'sr, Public', false)", "select set_config('search_path', 'x', true)", "reset search_path",
	"show search_path", "select current_schemas(true)::text",
	"set role ra", "set role rb", "set local role ra", "reset role", "set role none", "select current_user, session_user", "show role", "show is_superuser",
	"set session authorization ra", "reset session authorization", "select current_user, session_user",
	"set app.x = 'one'", "set app.x = 'zwölf'", "set local app.x = 'three'", "reset app.x", "select coalesce(current_setting('app.x', true), '')",
	"select set_config('app.x', 'it''s \\ it', false)", "select 'a\\b'", "set standard_conforming_strings = off", "set standard_conforming_strings = on",
	"set client_encoding = 'latin1'", "reset client_encoding", "select length('ä')", "set escape_string_warning = off",
	"set session characteristics as transaction isolation level repeatable read", "set default_transaction_isolation = 'serializable'",
	"set default_transaction_read_only = on", "reset default_transaction_read_only", "reset default_transaction_isolation", "show transaction_isolation", "show transaction_read_only",
	"reset all", "discard all", "do $$ begin set work_mem = '8MB'; end $$", "select sets_random('9MB')", "set work_mem = 'nonsense'", "set nothing = 1",
	"begin", "begin", "begin read only", "set transaction read only", "commit", "commit", "rollback", "commit and chain", "rollback and chain",
	"savepoint s", "rollback to s", "release s", "select 1/0", "select 1", "update pg_description set objoid = objoid where false",
	"set work_mem = '10MB'; select 1/0", "begin; set work_mem = '11MB'; commit; show work_mem", "set work_mem = '12MB'; show work_mem",
	"show timezone; show datestyle; show intervalstyle", "set intervalstyle = 'iso_8601'", "select interval '1 day 2 hours'", "set intervalstyle to default",
	"set bytea_output = 'escape'", "reset bytea_output", "select 'ab'::bytea", "set extra_float_digits = -5", "select 0.1::float8 * 3", "set statement_timeout = '1min'", "show statement_timeout",
}

const settingsShown = "select current_setting('timezone'), current_setting('datestyle'), current_setting('work_mem'), current_setting('search_path')," +
	" current_setting('role'), session_user, current_setting('application_name'), current_setting('intervalstyle'), current_setting('default_transaction_isolation')"

// TestRandomSettings says the same at every run.
func TestRandomSettings(t *testing.T) { saySettings(t, 1, 1500) }

// saySettings drives several sessions at once, through as many connections, and each
// also directly: what they see has to be the same.
func saySettings(t *testing.T, seed uint64, statements int) {
	random := rand.New(rand.NewPCG(seed, 0))
	leader := shared.cluster.Nodes()[0]
	onNode(t, leader, "drop function if exists sets_random(text)", "drop role if exists ra", "drop role if exists rb", "create role ra superuser", "create role rb", "drop schema if exists sr", "create schema sr",
		"create function sets_random(v text) returns text language plpgsql as $$ begin return set_config('work_mem', v, false); end $$")
	p := startProxy(t, shared.cluster, func(s *settings) { s.pool.Size = 3 })
	p.awaitFollowers(t, 2)
	type pair struct {
		proxied, direct *raw
		said            []string
	}
	var pairs []*pair
	for i := range 3 {
		params := map[string]string{}
		if i == 2 {
			params["options"] = "-c work_mem=2MB -c datestyle=SQL"
		}
		pairs = append(pairs, &pair{proxied: p.dialRaw(t, params), direct: dialRaw(t, leader.Addr(), params)})
	}
	for range statements {
		one := pairs[random.IntN(len(pairs))]
		sql := settingSteps[random.IntN(len(settingSteps))]
		turn := query(sql)
		if random.IntN(3) == 0 {
			turn = flight(append(inOne(sql), &pgproto3.Sync{})...)
		}
		one.said = append(one.said, sql)
		got, want := one.proxied.say(turn), one.direct.say(turn)
		if idle := got[len(got)-1] == "ReadyForQuery I"; idle && random.IntN(8) == 0 {
			got = append(got, one.proxied.say(query(settingsShown))...)
			want = append(want, one.direct.say(query(settingsShown))...)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d\nproxy  %q\ndirect %q\nsaid %q", seed, got, want, one.said[max(0, len(one.said)-25):])
		}
	}
}
