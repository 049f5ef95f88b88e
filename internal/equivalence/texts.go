package equivalence

// statements run anywhere. What they answer depends on the session's own doing
// only, and rows come in a stated order.
var statements = []string{
	"select 1", "select 1 as one, 'two' as two, null as three", "values (1, 'a'), (2, 'b')", "", "select",
	"select * from eq.items where id < %d order by id", "table eq.cheap", "select count(*) from eq.items",
	"select made, price::float8 / 3, raw, tags, made - timestamptz '2020-01-01 UTC' from eq.items where id = %d",
	"select date '2020-02-03', interval '1 mon -2 days 03:04', 1e20::float8, 0.1::float4, '\\x00ff'::bytea, 12.3::money",
	"select 'calm'::eq.mood, row(%d, 'x')::eq.pair, array[1,2]", "select 'none'::eq.mood",
	"select generate_series(1, %d)", "select repeat('ab', %d00)", "select repeat('long', %d0000)",
	"select 1/0", "select 1/%d", "selec 1", "select nope", "select * from eq.nope", "select 'x'::int", "select eq.fails(%d)",
	"select id, 10 / (id - %d) from eq.items where id < 9 order by id",
	"select eq.noisy(%d)", "select 'unterminated", "select $1", "select 'a\\'||'b'", "select e'\\u00e9', 'é'",
	"select * from s%N.t order by a", "select count(*), sum(a) from s%N.u", "select b from s%N.t where a = %d", "select * from t order by a",
	"insert into s%N.t values (%d, 'new')", "insert into s%N.t values (%d, 'new') on conflict do nothing", "insert into s%N.u values (%d), (%d00) returning a, b",
	"insert into s%N.u values (5000)", "update s%N.t set b = b || '+' where a = %d returning a, b", "delete from s%N.t where a = %d",
	"with x as (delete from s%N.u where a = %d returning a) select count(*) from x", "insert into s%N.u select %d from generate_series(1, 3)",
	"create table s%N.made%d(i int)", "drop table s%N.made%d", "drop table if exists s%N.made%d", "alter table s%N.made%d add c%d text", "select * from s%N.made%d",
	"truncate s%N.u", "do $$begin raise notice 'done %', %d; end$$", "do $$begin raise exception 'undone'; end$$",
	"explain (costs off) select * from eq.items where id = %d", "copy eq.cheap to stdout", "copy (select * from eq.items where id < %d order by id) to stdout",
	"copy (select 1/%d) to stdout (format csv, header)", "select current_user, session_user, current_schemas(false)", "select v from eq.secret order by v",
	"lock table s%N.t in share mode", "select a from s%N.t where a = %d for update", "analyze s%N.t", "vacuum s%N.u",
	"select count(*) from pg_class where relname like 'made%' and relnamespace = 's%N'::regnamespace", "comment on table s%N.t is 'c%d'",
	"select name, is_holdable, is_scrollable from pg_cursors order by name",
	"select count(*) from pg_listening_channels()", "select * from (values (1),(2)) v(x) limit %d", "show transaction_isolation", "show transaction_read_only",
}

// transactions take care of two things: what is prepared holds only locks that
// nothing else wants. And one that is READ ONLY ends with its text, because it may be
// on a follower; others are for readOnly.
var transactions = []string{
	"begin", "begin", "begin", "begin read only; select * from eq.items where id < %d order by id; insert into s%N.u values (1); rollback", "begin read only; select 1; commit; select %d", "begin isolation level repeatable read", "begin isolation level serializable", "start transaction read write",
	"begin isolation level serializable read only; table eq.cheap; end", "begin isolation level repeatable read read only; select eq.noisy(%d); end", "begin; select %d; insert into s%N.u values (%d)",
	"commit", "commit", "commit", "rollback", "rollback", "end", "abort", "commit and chain", "rollback and chain",
	"savepoint a", "savepoint b", "release a", "release savepoint b", "rollback to a", "rollback to savepoint b",
	"set transaction read only", "set transaction isolation level serializable", "set transaction read write",
	"set session characteristics as transaction read only", "set session characteristics as transaction read write",
	"set constraints all deferred", "rollback; begin; insert into s%N.w(b) values (%d); prepare transaction 'eq%N_%d'",
	"commit prepared 'eq%N_%d'", "rollback prepared 'eq%N_%d'", "select count(*) from s%N.w",
}

// readings are what followers take.
var readings = []string{
	"select * from eq.items where id < %d order by id", "table eq.cheap", "select a, b from s%N.t order by a", "select 1/%d", "show transaction_read_only", "show transaction_isolation",
	"savepoint a", "rollback to a", "release a", "set local datestyle = 'German'", "set work_mem = '%d00kB'", "set extra_float_digits = '%d'", "show work_mem", "reset work_mem", "select current_setting('work_mem')",
	"select set_config('search_path', 's%N', true)", "select * from t order by a", "select id, 10 / (id - %d) from eq.items where id < 9 order by id", "set session characteristics as transaction read write",
}

// refusedByFollowers are what a leader takes in such a transaction, or refuses otherwise.
var refusedByFollowers = []string{
	"listen chan%N", "unlisten *", "notify %C, 'from %N'", "set transaction read write", "set transaction read only", "set transaction isolation level repeatable read", "begin read write",
	"insert into s%N.u values (%d)", "create table s%N.made%d(i int)", "select nextval('s%N.q')", "select pg_advisory_xact_lock(%N, %d)", "lock table s%N.t in share mode", "set local role eq_one",
	"commit prepared 'eq%N_%d'", "select eq.noisy(%d)", "select txid_current() is null", "select a from s%N.t for update", "select lastval()", "execute q", "prepare q as select %d",
	"create temp table tt(i int)", "insert into tt values (%d)", "select * from tt order by 1", "declare h cursor with hold for select id from eq.items order by id", "discard all",
}

var cursors = []string{
	"declare c cursor for select * from eq.items order by id", "declare c scroll cursor for select id from eq.items order by id",
	"declare h cursor with hold for select id, name from eq.items order by id", "declare d binary cursor for select id from eq.items order by id",
	"declare u cursor for select * from s%N.t order by a for update", "fetch %d from c", "fetch from h", "fetch backward %d from c", "fetch all from h", "fetch 2 from d",
	"move %d in c", "move forward all in h", "close c", "close h", "close all", "close nope", "fetch %d from p", "begin; declare c cursor for select 1/%d; fetch all from c",
	"update s%N.t set b = 'here' where current of u", "fetch 1 from u",
}

// value is a setting and what it may be set to.
var values = []struct {
	name   string
	values []string
}{
	{"datestyle", []string{"'German'", "'ISO, DMY'", "'SQL'", "default", "'nonsense'"}},
	{"timezone", []string{"'UTC'", "'Asia/Tokyo'", "'America/New_York'", "default", "'Nowhere/Land'"}},
	{"intervalstyle", []string{"'iso_8601'", "'postgres'", "default"}},
	{"extra_float_digits", []string{"'0'", "'3'", "default", "'100'"}},
	{"bytea_output", []string{"'escape'", "'hex'", "default"}},
	{"search_path", []string{"s%N", "eq", "public", "default", "'s%N', 'eq'"}},
	{"application_name", []string{"'one'", "'two'", "'a''b'", "default"}},
	{"client_min_messages", []string{"'warning'", "'notice'", "'error'", "default", "'debug1'"}},
	{"standard_conforming_strings", []string{"'on'", "'on'", "'off'", "default"}},
	{"client_encoding", []string{"'UTF8'", "'UTF8'", "'LATIN1'", "'SJIS'", "default"}},
	{"lc_monetary", []string{"'C'", "default", "'xx_XX'"}},
	{"work_mem", []string{"'1MB'", "'2MB'", "default", "'1'"}},
	{"default_transaction_read_only", []string{"'on'", "'off'", "'off'", "default"}},
	{"default_transaction_isolation", []string{"'serializable'", "'repeatable read'", "'read committed'", "default"}},
	{"statement_timeout", []string{"'60s'", "'90s'", "default"}},
	{"eq.mine", []string{"'1'", "'two'", "''"}},
	{"enable_seqscan", []string{"'off'", "'on'", "default"}},
	{"row_security", []string{"'on'", "'off'", "default"}},
	{"role", []string{"eq_one", "eq_two", "none", "nobody", "none"}},
	{"max_connections", []string{"'5'"}},
	{"transaction_isolation", []string{"'serializable'", "'read committed'"}},
	{"no_such_setting", []string{"'x'"}},
}

var settings = []string{
	"set %s = %v", "set %s = %v", "set %s = %v", "set local %s = %v", "set session %s to %v", "reset %s", "reset %s", "show %s", "show %s", "reset all",
	"select current_setting('%s', true)", "select set_config('%s', %v, false)", "select set_config('%s', 'on', true)", "select eq.settles('%s', 'off')",
	"begin; set %s = %v; show %s", "begin; set %s = %v; rollback", "begin; set %s = %v; savepoint a; reset %s; rollback to a; show %s; commit", "set %s = %v; select 1/0",
	"set session authorization eq_one", "reset session authorization", "set session authorization default", "reset role", "set time zone 'Europe/Paris'", "set names 'UTF8'",
	"select current_user, current_setting('datestyle'), current_setting('timezone'), current_setting('search_path'), current_setting('eq.mine', true)",
	"set local transaction_read_only = on", "set %s from current",
}

var prepares = []string{
	"prepare q as select %d", "prepare q(int) as select $1 + %d", "prepare a as select 'from sql'", "execute q", "execute q(%d)", "execute a", "execute a(%d)", "execute b",
	"deallocate q", "deallocate a", "deallocate prepare b", "deallocate all", "explain (costs off) execute q", "create table s%N.made%d as execute q", "select eq.deallocates()",
	"select name, statement, parameter_types::text, from_sql from pg_prepared_statements order by name",
}

var temporaries = []string{
	"create temp table tt(i int)", "create temporary table tt on commit drop as select 1 as i", "insert into tt values (%d)", "select * from tt order by 1", "drop table tt",
	"select count(*) from pg_temp.tt", "create temp view tv as select %d as x", "select * from tv", "drop view tv", "discard temp", "create temp table t(a int, b text)", "drop table pg_temp.t",
	"begin; create temp table tt(i int); rollback", "select * into temp tt from generate_series(1, %d) i",
}

var notifies = []string{
	"listen chan%N", "listen %C", "unlisten *", "unlisten %C", "notify chan%P, 'from %N: %d'", "notify %C, 'from %N'", "select pg_notify('chan%P', 'from %N')",
	"begin; notify %C, 'from %N in'; notify %C, 'from %N in'; select 1; commit", "begin; listen chan%N; notify chan%N, 'from %N'; rollback",
	"listen chan%N; notify chan%N, 'from %N twice'; select 2", "select * from pg_listening_channels() order by 1",
}

// locks are each session's own, by number.
var locks = []string{
	"select pg_advisory_lock(%N, %d)", "select pg_advisory_unlock(%N, %d)", "select pg_advisory_unlock_all()", "select pg_advisory_xact_lock(%N, %d)", "select pg_advisory_lock_shared(%N, %d)",
}

var sequences = []string{
	"select nextval('s%N.q')", "select currval('s%N.q')", "select lastval()", "insert into s%N.w(b) values (%d) returning a", "select setval('s%N.q', %d0)", "discard sequences",
	"select currval('s%N.w_a_seq')",
}

// objects are large ones, each session's own.
var objects = []string{
	"select lo_create(7%N000)", "select lo_unlink(7%N000)", "begin; select lo_open(7%N000, 393216)", "select lowrite(0, 'abc%d')", "select loread(0, %d)", "select lo_get(7%N000)",
	"select lo_close(0)", "select lo_put(7%N000, %d, 'xyz')",
}

var discards = []string{"discard all", "discard all", "discard plans", "discard temp", "discard sequences", "reset all", "unlisten *", "close all", "deallocate all"}
