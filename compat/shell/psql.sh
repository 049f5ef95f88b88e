#!/usr/bin/env bash
# The compatibility program for psql.
. "$(dirname "$0")/report.sh"

export PSQLRC=/dev/null
n=$(name "")
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
psql() { command psql -XqAt "$@"; }
# fresh SQL: what is not there need not be dropped, and is not worth a notice.
fresh() { psql -c "$1" 2>/dev/null; }
strict() { psql -v ON_ERROR_STOP=1 "$@"; }

reads() {
	for i in {1..50}; do
		echo "UPDATE ${n}reads SET n = $i WHERE id = 1;"
		echo "SELECT 'stale at $i' FROM ${n}reads WHERE id = 1 AND n <> $i;"
	done | strict
}

connect() {
	strict -c "SELECT current_user, current_database(), current_setting('server_version_num')" -c '\echo :DBNAME :USER :ENCODING'
	strict -c '\conninfo' | sed 's/(address.*//; s/on host.*//'
	psql -d there_is_none -c 'SELECT 1' 2>&1 | sed 's/.*FATAL/FATAL/' || true
}

types() {
	fresh "DROP TABLE IF EXISTS ${n}types"
	strict <<-SQL
		CREATE TABLE ${n}types (b bool, l int8, f float8, n numeric, t text, y bytea, z timestamptz, j jsonb, a int[], nothing text);
		SET TimeZone = 'UTC';
		INSERT INTO ${n}types VALUES (true, -9223372036854775808, 0.1, 12345678901234567890.123456789, E'żółć "'' \\\\ 日本',
			'\x0001ff', '2024-02-29 13:14:15.678901+00', '{"a": [1, null]}', '{1,-2,NULL}', NULL);
		SELECT * FROM ${n}types;
		SELECT n, f FROM ${n}types \gdesc
	SQL
}

prepared() {
	{
		echo "PREPARE double AS SELECT \$1::int * 2; PREPARE who AS SELECT '${n}' || \$1::text AS who;"
		for i in {1..10}; do
			echo "EXECUTE double ($i); SELECT 1 WHERE false; EXECUTE who ('x') \\gset"
			echo "SELECT 'another''s' WHERE :'who' <> '${n}x';"
		done
		echo 'SELECT name FROM pg_prepared_statements ORDER BY name; DEALLOCATE double; EXECUTE double (1);'
		echo '\echo :SQLSTATE'
	} | psql 2>&1
}

transaction() {
	fresh "DROP TABLE IF EXISTS ${n}transaction"
	psql <<-SQL 2>&1
		\set VERBOSITY sqlstate
		CREATE TABLE ${n}transaction (id int PRIMARY KEY);
		BEGIN; INSERT INTO ${n}transaction VALUES (1); SELECT count(*) FROM ${n}transaction; ROLLBACK;
		SELECT count(*) FROM ${n}transaction;
		BEGIN; INSERT INTO ${n}transaction VALUES (1); SAVEPOINT s; INSERT INTO ${n}transaction VALUES (1); ROLLBACK TO s; COMMIT AND CHAIN;
		SHOW transaction_isolation; COMMIT;
		BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; SELECT count(*) FROM ${n}transaction; INSERT INTO ${n}transaction VALUES (2);
		\echo :SQLSTATE
		END;
		\set AUTOCOMMIT off
		INSERT INTO ${n}transaction VALUES (3);
		ROLLBACK;
		\set ON_ERROR_ROLLBACK on
		INSERT INTO ${n}transaction VALUES (4);
		INSERT INTO ${n}transaction VALUES (4);
		COMMIT;
		SELECT * FROM ${n}transaction ORDER BY id;
	SQL
}

error() {
	fresh "DROP TABLE IF EXISTS ${n}error"
	psql <<-SQL 2>&1
		CREATE TABLE ${n}error (id int PRIMARY KEY);
		\set VERBOSITY sqlstate
		SELEC 1; SELECT * FROM there_is_none; SELECT 1/0; SELECT 'x'::int; INSERT INTO ${n}error VALUES (1), (1);
		\echo :ERROR :LAST_ERROR_SQLSTATE
		SELECT 'fine'; BEGIN; SELECT 1/0; SELECT 1; ROLLBACK; SELECT 'fine';
		\set VERBOSITY default
		SELECT 1 +
			there_is_none;
		DO \$\$ BEGIN RAISE NOTICE 'noticed' USING HINT = 'hint'; END \$\$;
	SQL
}

cursor() {
	strict -c '\set FETCH_COUNT 90' -c 'SELECT generate_series(1, 1000)' | wc -l
	strict <<-SQL
		BEGIN; DECLARE c SCROLL CURSOR FOR SELECT generate_series(1, 100); DECLARE h CURSOR WITH HOLD FOR SELECT 'held';
		FETCH 2 FROM c; FETCH BACKWARD FROM c; MOVE 50 IN c; FETCH c; COMMIT;
		FETCH h; CLOSE h;
	SQL
}

copy() {
	fresh "DROP TABLE IF EXISTS ${n}copy"
	seq 1000 | sed 's/.*/&\trow &/' >"$files/in"
	strict <<-SQL
		CREATE TABLE ${n}copy (id int, v text);
		\copy ${n}copy from '$files/in'
		\copy (SELECT * FROM ${n}copy ORDER BY id) to '$files/out'
		COPY ${n}copy FROM STDIN (FORMAT csv);
		1001,"a, b"
		\.
		\copy ${n}copy to program 'wc -l'
	SQL
	cmp "$files/in" "$files/out"
	psql -v VERBOSITY=sqlstate 2>&1 <<-SQL
		COPY ${n}copy FROM STDIN;
		no number	x
		\.
		\copy there_is_none to stdout
		\copy ${n}copy from '/there_is_none'
		SELECT count(*), max(v) FROM ${n}copy;
	SQL
}

cancel() {
	# What Ctrl-C does.
	timeout --foreground -s INT 1 psql -XqAt -c 'SELECT pg_sleep(30)' 2>&1 || true
	psql -v VERBOSITY=sqlstate -c 'BEGIN' -c 'SET LOCAL statement_timeout = 50' -c 'SELECT pg_sleep(30)' -c 'ROLLBACK' -c "SELECT 'fine'" 2>&1
}

notify() {
	# psql looks for notifications behind each statement.
	{
		echo "LISTEN ${n}channel;"
		echo '\! touch '"$files/listening"
		for _ in {1..100}; do echo '\! [ -e '"$files/notified"' ] || sleep 0.1'; done
		echo "SELECT 'listened'; NOTIFY ${n}channel, 'own'; UNLISTEN *;"
	} | strict >"$files/heard" &
	until [ -e "$files/listening" ]; do sleep 0.05; done
	strict -c "NOTIFY ${n}channel, 'hello'"
	touch "$files/notified"
	wait
	sed "s/with PID.*//; s/${n}//" "$files/heard"
}

settings() {
	strict <<-SQL
		SET application_name = ${n}psql; SET TimeZone = 'Asia/Tokyo'; SELECT set_config('search_path', 'elsewhere', false);
		$(for _ in {1..20}; do echo "SELECT 'lost' WHERE current_setting('application_name') <> '${n}psql' OR current_setting('TimeZone') <> 'Asia/Tokyo';"; done)
		BEGIN; SET LOCAL TimeZone = 'UTC'; SHOW TimeZone; COMMIT; SHOW TimeZone;
		BEGIN; SET TimeZone = 'UTC'; ROLLBACK; SHOW TimeZone;
		\encoding LATIN1
		SHOW client_encoding;
		RESET ALL; SHOW search_path; SHOW application_name;
	SQL
	PGOPTIONS='-c search_path=mine -c work_mem=5MB' strict -c 'SET work_mem = 100' -c 'RESET work_mem' -c 'SHOW work_mem' -c 'SHOW search_path'
	PGTZ=Asia/Tokyo PGDATESTYLE=German PGCLIENTENCODING=LATIN1 strict -c 'SHOW TimeZone' -c 'SHOW DateStyle' -c 'SHOW client_encoding'
}

largeobject() {
	printf 'large object' >"$files/object"
	strict <<-SQL | sed 's/lo_unlink.*/unlinked/'
		\lo_import '$files/object' 'a comment'
		\set oid :LASTOID
		SELECT convert_from(lo_get(:oid, 6, 6), 'UTF8');
		\lo_export :oid '$files/back'
		\lo_unlink :oid
	SQL
	cmp "$files/object" "$files/back"
}

batch() {
	fresh "DROP TABLE IF EXISTS ${n}batch"
	psql -v VERBOSITY=sqlstate 2>&1 <<-SQL
		CREATE TABLE ${n}batch (id int PRIMARY KEY);
		INSERT INTO ${n}batch VALUES (1)\; INSERT INTO ${n}batch VALUES (1)\; INSERT INTO ${n}batch VALUES (2);
		SELECT count(*) FROM ${n}batch;
		INSERT INTO ${n}batch VALUES (3)\; COMMIT\; INSERT INTO ${n}batch VALUES (3);
		SELECT 1\; SELECT 2, 3\; SELECT count(*) FROM ${n}batch;
	SQL
	strict -1 -c "INSERT INTO ${n}batch VALUES (10)" -c "INSERT INTO ${n}batch VALUES (11)"
	strict -c "SELECT count(*) FROM ${n}batch"
}

describe() {
	fresh "DROP VIEW IF EXISTS ${n}view; DROP TABLE IF EXISTS ${n}child, ${n}parent"
	strict <<-SQL | sed "s/${n}/N_/g"
		CREATE TABLE ${n}parent (id serial PRIMARY KEY, v varchar(10) NOT NULL DEFAULT 'x' CHECK (v <> ''));
		CREATE TABLE ${n}child (id int REFERENCES ${n}parent, p point) PARTITION BY RANGE (id);
		CREATE VIEW ${n}view AS SELECT v FROM ${n}parent;
		CREATE INDEX ON ${n}parent (v);
		\d ${n}parent
		\d+ ${n}child
		\d+ ${n}view
		\dt ${n}*
		\dp ${n}parent
		\df pg_catalog.lower
		\dn public
		\du postgres
		\sv ${n}view
	SQL
}

watch() {
	fresh "DROP SEQUENCE IF EXISTS ${n}looks"
	# Ends at the first error, which the third look makes.
	strict -v VERBOSITY=sqlstate <<-SQL 2>&1 | sed '/^[A-Z][a-z][a-z] .* (every/d' || true
		CREATE SEQUENCE ${n}looks;
		SELECT 1 / (3 - nextval('${n}looks')) \watch 0.1
	SQL
}

variables() {
	strict <<-'SQL'
		SELECT 1 AS one, 'two' AS two \gset
		\echo :one :two
		\if :one
		SELECT format('SELECT %s', i) FROM generate_series(1, 3) i \gexec
		\endif
		SELECT v, h, c FROM (VALUES ('a', 'x', 1), ('b', 'y', 2)) t (v, h, c) \crosstabview
		\set ECHO_HIDDEN on
		\x
		SELECT :ROW_COUNT AS rows;
	SQL
}

feature reads reads
feature connect connect
feature types types
feature prepared prepared
feature transaction transaction
feature error error
feature cursor cursor
feature copy copy
feature cancel cancel
feature notify notify
feature settings settings
feature largeobject largeobject
feature batch batch
feature '\d' describe
feature '\watch' watch
feature '\gset_\gexec_\crosstabview' variables
