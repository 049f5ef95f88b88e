#!/usr/bin/env bash
# The compatibility program for pg_dump and pg_restore. Both speak to the database
# that the proxy is in front of; what is restored goes to another one.
. "$(dirname "$0")/report.sh"

n=$(name "")
copied=$(name copied)
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
psql() { command psql -XqAt -v ON_ERROR_STOP=1 "$@"; }

fill() {
	psql 2>/dev/null <<-SQL
		DROP SCHEMA IF EXISTS ${n}schema CASCADE;
		CREATE SCHEMA ${n}schema;
		SET search_path = ${n}schema;
		CREATE TYPE mood AS ENUM ('sad', 'happy');
		CREATE TABLE parent (id serial PRIMARY KEY, v text, m mood DEFAULT 'happy', y bytea);
		CREATE TABLE child (id int REFERENCES parent ON DELETE CASCADE, z timestamptz DEFAULT '2024-02-29 12:00Z');
		CREATE VIEW joined AS SELECT * FROM parent JOIN child USING (id);
		CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * i';
		CREATE INDEX ON parent (twice(id));
		INSERT INTO parent (v, y) SELECT E'line\n\ttab \\\\ "quoted" ' || i, decode(lpad(to_hex(i), 8, '0'), 'hex') FROM generate_series(1, 1000) i;
		INSERT INTO child SELECT id FROM parent WHERE id % 2 = 0;
		CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM parent;
	SQL
}

dump() { pg_dump -n "${n}schema" "$@"; }

# contents DATABASE: a digest of all that was dumped.
contents() {
	psql -d "$1" <<-SQL
		SET search_path = ${n}schema; SET TimeZone = 'UTC';
		SELECT md5(string_agg(p::text, '|' ORDER BY id)), count(*) FROM parent p;
		SELECT md5(string_agg(b::text, '|' ORDER BY id)), count(*) FROM joined b;
		SELECT * FROM counted;
		SELECT twice(21), nextval('parent_id_seq') > 1000;
	SQL
}

# restored COMMAND...: the command fills an empty database of ours, which then
# holds what the dumped one does.
restored() {
	psql -c "DROP DATABASE IF EXISTS $copied" 2>/dev/null
	psql -c "CREATE DATABASE $copied"
	"$@"
	contents "$copied" >"$files/there"
	contents "$PGDATABASE" >"$files/here"
	diff "$files/here" "$files/there"
	psql -c "DROP DATABASE $copied WITH (FORCE)"
	cut -d'|' -f2- "$files/there" | tail -n 2
}

plain() {
	dump --serializable-deferrable >"$files/plain"
	restored psql -d "$copied" -o "$files/output" -f "$files/plain"
}

inserts() {
	dump --inserts --rows-per-insert=100 >"$files/inserts"
	restored psql -d "$copied" -o "$files/output" -f "$files/inserts"
}

custom() {
	dump -Fc >"$files/custom"
	restored pg_restore --exit-on-error -d "$copied" "$files/custom"
}

one_transaction() {
	dump -Fc >"$files/custom"
	restored pg_restore -1 -d "$copied" "$files/custom"
}

# Two connections besides the first, which share its snapshot.
parallel() {
	rm -rf "$files/parallel"
	dump -Fd -j 2 -f "$files/parallel"
	restored pg_restore --exit-on-error -j 2 -d "$copied" "$files/parallel"
}

# A snapshot that another session has exported, older than the last write.
snapshot() {
	local id count
	coproc holder { command psql -XqAt; }
	echo 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_export_snapshot();' >&"${holder[1]}"
	read -r id <&"${holder[0]}"
	psql -c "INSERT INTO ${n}schema.parent (v) VALUES ('too late')"
	count=$(dump --snapshot="$id" --data-only -t "${n}schema.parent" | grep -c '^[0-9]*	line')
	dump --snapshot="$id" --data-only -t "${n}schema.parent" | grep 'too late' || true
	echo 'ROLLBACK; \q' >&"${holder[1]}"
	wait
	psql -c "DELETE FROM ${n}schema.parent WHERE v = 'too late'"
	echo "$count"
}

# Roles and tablespaces, of the whole cluster.
globals() { pg_dumpall --globals-only | grep -c '^CREATE ROLE postgres;'; }

fill
feature plain_text plain
feature inserts inserts
feature custom_format custom
feature restored_in_one_transaction one_transaction
feature directory_format,_parallel parallel
feature exported_snapshot snapshot
feature pg_dumpall globals
