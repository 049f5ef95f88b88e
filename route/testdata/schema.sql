-- The database that the scripts beside this file speak of.
CREATE TABLE t (id int PRIMARY KEY, v text);
INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 20) i;
CREATE TABLE t2 (id int, t_id int, created timestamptz DEFAULT now());
CREATE TABLE "Mixed Case" ("Id" int, "from" text);
CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
INSERT INTO pgbench_accounts SELECT i, 1, 0, '' FROM generate_series(1, 100) i;
CREATE SEQUENCE s1;
CREATE UNLOGGED TABLE ul (i int);
CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM t;

CREATE FUNCTION wf() RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t2 VALUES (1); RETURN 1; END $$;
CREATE FUNCTION wf_ro() RETURNS int LANGUAGE sql STABLE AS 'SELECT count(*)::int FROM t';
CREATE FUNCTION wf_set() RETURNS SETOF int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t2 VALUES (1); RETURN NEXT 1; END $$;
CREATE FUNCTION wf_swallow() RETURNS text LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO t2 VALUES (1); RETURN 'written'; EXCEPTION WHEN OTHERS THEN RETURN 'swallowed'; END $$;
CREATE PROCEDURE wp() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t2 VALUES (1); END $$;
CREATE PROCEDURE rp() LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; END $$;
CREATE VIEW v_ro AS SELECT id, upper(v) AS v FROM t WHERE id > 3;
CREATE VIEW v_wf AS SELECT wf() AS r;
CREATE VIEW v_nested AS SELECT * FROM v_wf, t;
CREATE VIEW v_stat AS SELECT relname, n_live_tup FROM pg_stat_user_tables;
CREATE VIEW v_seq AS SELECT last_value FROM s1;

-- Marks that promise more than the source keeps.
CREATE FUNCTION calls_stat() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM pg_stat_activity';
CREATE FUNCTION calls_nextval() RETURNS bigint LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN nextval('s1'); END $$;
CREATE FUNCTION calls_calls() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT calls_stat()';
CREATE FUNCTION calls_atomic() RETURNS bigint LANGUAGE sql STABLE BEGIN ATOMIC SELECT count(*) FROM v_wf; END;
CREATE FUNCTION default_nextval(a bigint DEFAULT nextval('s1')) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT a';
CREATE FUNCTION sum_volatile(state int, x int) RETURNS int LANGUAGE sql AS 'SELECT state + x';
CREATE AGGREGATE total(int) (SFUNC = sum_volatile, STYPE = int, INITCOND = '0');
CREATE AGGREGATE total_ok(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');

-- What functions leave in the session.
CREATE FUNCTION leaves_temp() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE left_here (i int); END $$;
CREATE FUNCTION drops_temp() RETURNS void LANGUAGE plpgsql AS
  $$ BEGIN CREATE TEMPORARY TABLE gone (i int) ON COMMIT DROP; INSERT INTO gone VALUES (1); END $$;
CREATE FUNCTION leaves_setting() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.user', 'me', false); END $$;
CREATE FUNCTION local_setting() RETURNS void LANGUAGE plpgsql AS
  $$ BEGIN PERFORM set_config('app.user', lower('ME'), true); UPDATE t SET v = v WHERE false; END $$;
CREATE FUNCTION sets_memory() RETURNS void LANGUAGE plpgsql AS $$ BEGIN SET work_mem = '5MB'; END $$;
CREATE FUNCTION locks() RETURNS void LANGUAGE sql AS 'SELECT leaves_setting(); SELECT pg_advisory_lock(1)';
CREATE FUNCTION defines() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'CREATE TABLE made (i int)'; END $$;

-- A function called like a column.
CREATE FUNCTION label(t) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN $1.v; END $$;
CREATE FUNCTION label_ok(t) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1.v';

-- Operators, types, casts.
CREATE FUNCTION near(t, int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN true; END $$;
CREATE OPERATOR <~> (LEFTARG = t, RIGHTARG = int, FUNCTION = near);
CREATE FUNCTION close(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT abs($1 - $2) < 2';
CREATE OPERATOR =~= (LEFTARG = int, RIGHTARG = int, FUNCTION = close);
CREATE FUNCTION valid(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN true; END $$;
CREATE DOMAIN checked AS text CHECK (valid(VALUE));
CREATE DOMAIN checked_ok AS text CHECK (VALUE <> '');
CREATE TYPE pair AS (a int, b checked);
CREATE FUNCTION takes_pair(pair) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE FUNCTION mood_of(pair) RETURNS mood LANGUAGE sql VOLATILE AS $$ SELECT 'sad'::mood $$;
CREATE CAST (pair AS mood) WITH FUNCTION mood_of(pair);

-- Relations read through others.
CREATE TABLE parent (id int) PARTITION BY LIST (id);
CREATE TABLE child_ok PARTITION OF parent FOR VALUES IN (1);
CREATE UNLOGGED TABLE child_unlogged PARTITION OF parent FOR VALUES IN (2);
CREATE TABLE parent_ok (id int) PARTITION BY LIST (id);
CREATE TABLE child_of_ok PARTITION OF parent_ok FOR VALUES IN (1);
CREATE TABLE guarded (id int);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON guarded USING (id > (SELECT wf()));
CREATE TABLE guarded_ok (id int);
ALTER TABLE guarded_ok ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON guarded_ok USING (id IN (SELECT id FROM t));

-- A harmless name of pg_catalog that somebody else has taken, too.
CREATE FUNCTION pg_sleep_for(int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t2 VALUES (1); END $$;
