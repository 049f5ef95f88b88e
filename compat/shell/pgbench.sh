#!/usr/bin/env bash
# The compatibility program for pgbench: every protocol, with and without
# pipelines, from several connections at once.
. "$(dirname "$0")/report.sh"

n=$(name "")
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
# What others have committed is not promised to a new session, unless it asks for it.
psql() { PGOPTIONS='-c lsnproxy.consistency=strong' command psql -XqAt -v ON_ERROR_STOP=1 "$@"; }

# Tables of our own: pgbench's have fixed names. Each transaction sees what it has
# written, and afterwards, on whichever server, what it has committed.
cat >"$files/write" <<-SQL
	\set id random(1, 1000)
	\set d random(-5000, 5000)
	BEGIN;
	UPDATE ${n}accounts SET balance = balance + :d WHERE id = :id RETURNING balance AS now \gset
	SELECT 1 / (balance = :now)::int FROM ${n}accounts WHERE id = :id;
	INSERT INTO ${n}history VALUES (:id, :d);
	END;
	SELECT 1 / (count(*) > 0)::int FROM ${n}history WHERE id = :id AND d = :d;
SQL
cat >"$files/pipeline" <<-SQL
	\set id random(1, 1000)
	\startpipeline
	BEGIN;
	UPDATE ${n}accounts SET balance = balance + 1 WHERE id = :id;
	INSERT INTO ${n}history VALUES (:id, 1);
	END;
	SELECT balance FROM ${n}accounts WHERE id = :id;
	SELECT :id;
	\endpipeline
SQL
cat >"$files/read" <<-SQL
	\set id random(1, 1000)
	SELECT balance FROM ${n}accounts WHERE id = :id;
SQL

# bench ARGS...: how many transactions were run, and how many failed.
bench() {
	pgbench -n -c 4 -j 2 "$@" 2>"$files/errors" | sed -n 's/^number of transactions actually processed: //p; s/^number of failed transactions: //p'
	if grep -iE 'error|fatal|aborted' "$files/errors"; then return 1; fi
}

consistent() {
	psql -c "SELECT (SELECT sum(balance) FROM ${n}accounts) = (SELECT coalesce(sum(d), 0) FROM ${n}history), count(*) FROM ${n}history"
}

reset() {
	psql 2>/dev/null <<-SQL
		DROP TABLE IF EXISTS ${n}accounts, ${n}history;
		CREATE TABLE ${n}accounts (id int PRIMARY KEY, balance int NOT NULL);
		CREATE TABLE ${n}history (id int, d int);
		INSERT INTO ${n}accounts SELECT i, 0 FROM generate_series(1, 1000) i;
	SQL
}

reads() {
	sed "s/accounts/reads/; s/balance/n/; s/WHERE.*/WHERE id = 1;/" "$files/read" >"$files/reads"
	bench -t 50 -f "$files/reads"
}

mode() { # simple, extended or prepared
	reset
	bench -M "$1" -t 50 -f "$files/write@3" -f "$files/read@1"
	# What reads have seen is in the division by zero that there was not.
	psql -c "SELECT (SELECT sum(balance) FROM ${n}accounts) = (SELECT sum(d) FROM ${n}history)"
}
simple() { mode simple; }
extended() { mode extended; }
prepared() { mode prepared; }

pipeline() {
	reset
	bench -M extended -t 50 -f "$files/pipeline"
	consistent
	bench -M prepared -t 50 -f "$files/pipeline"
	consistent
}

# A connection for each transaction.
connect() {
	reset
	bench -C -t 10 -f "$files/write"
	consistent
}

# Retries of transactions that could not be serialized.
serializable() {
	reset
	PGOPTIONS='-c default_transaction_isolation=serializable' bench --max-tries=100 -t 20 -f "$files/write" -M prepared
	consistent | cut -d'|' -f1 # a retry runs the whole script again
}

feature reads reads
feature connect connect
feature simple_protocol simple
feature extended_protocol extended
feature prepared prepared
feature batch pipeline
feature serializable_with_retries serializable
