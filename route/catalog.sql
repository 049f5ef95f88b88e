-- What a Catalog is built from: what, name, mark, detail, text. Read from
-- PostgreSQL 14 to 18 by any role; see Catalog in catalog.go.
WITH named AS (
  SELECT oid, nspname = 'pg_catalog' AS builtin
  FROM pg_catalog.pg_namespace
  WHERE nspname !~ '^pg_(temp|toast)'
), routine AS (
  SELECT p.*, n.builtin, l.lanname IN ('internal', 'c') AS compiled
  FROM pg_catalog.pg_proc p
  JOIN named n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
), made AS (
  SELECT a.aggfnoid, max(p.provolatile::text) AS mark,
         string_agg(p.proname || '()', ' ') FILTER (WHERE NOT p.compiled) AS text
  FROM pg_catalog.pg_aggregate a
  CROSS JOIN LATERAL unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn,
    a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]::oid[]) AS part
  JOIN routine p ON p.oid = part
  GROUP BY a.aggfnoid
), relation AS (
  SELECT c.*
  FROM pg_catalog.pg_class c
  JOIN named n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
), held AS MATERIALIZED (
  -- Somebody has them, or wants them, for himself alone. To write out an expression or
  -- a query that names them would wait for him: they are marked instead.
  SELECT r.oid FROM pg_catalog.pg_locks l JOIN relation r ON r.oid = l.relation
  WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
    AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
), dependent AS MATERIALIZED (
  SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN held h ON h.oid = d.refobjid
  WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
), held_rule AS (
  SELECT objid AS oid FROM dependent WHERE classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
), held_function AS (
  SELECT objid AS oid FROM dependent WHERE classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
), counted AS (
  -- To write them may call nextval: by a default or an identity, a trigger or a
  -- rule, or because they are views or foreign. Most triggers of foreign keys only look.
  SELECT attrelid AS oid FROM pg_catalog.pg_attribute WHERE attidentity <> ''
  UNION SELECT adrelid FROM pg_catalog.pg_attrdef
  WHERE CASE WHEN adrelid IN (SELECT oid FROM held) THEN true
    ELSE pg_catalog.pg_get_expr(adbin, adrelid) LIKE '%nextval(%' END OR oid IN ( -- or by a function that is not built in
    SELECT objid FROM pg_catalog.pg_depend
    WHERE classid = 'pg_catalog.pg_attrdef'::regclass AND refclassid = 'pg_catalog.pg_proc'::regclass)
  UNION SELECT attrelid FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  WHERE t.typtype = 'd' AND t.typdefault LIKE '%(%'
  UNION SELECT tgrelid FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
  WHERE NOT (tgisinternal AND p.proname IN ('RI_FKey_check_ins', 'RI_FKey_check_upd', 'RI_FKey_noaction_del',
    'RI_FKey_noaction_upd', 'RI_FKey_restrict_del', 'RI_FKey_restrict_upd'))
  UNION SELECT ev_class FROM pg_catalog.pg_rewrite
  UNION SELECT oid FROM relation WHERE relkind = 'f'
)
-- Functions and procedures. An aggregate is marked immutable whatever it is
-- made of, so its parts count, as do the defaults of arguments. A function with
-- one argument of a composite or pseudo type can be called like a column.
SELECT 'function' AS what, p.proname::text AS name, coalesce(made.mark, p.provolatile::text) AS mark,
       CASE WHEN p.builtin THEN 'b' ELSE '' END
       || CASE WHEN t.typtype IN ('c', 'd', 'p') AND p.pronargs - p.pronargdefaults <= 1
          THEN 'd' ELSE '' END
       || CASE WHEN p.compiled AND NOT p.builtin AND p.provolatile = 'v' AND x.extname IS NULL
          THEN 'c' ELSE '' END
       || CASE WHEN p.oid IN (SELECT oid FROM held_function) THEN 'h' ELSE '' END AS detail,
       CASE WHEN p.builtin THEN '' ELSE
         CASE WHEN p.compiled OR p.prokind = 'a' THEN '' ELSE p.prosrc END
         || ' ' || CASE WHEN p.oid IN (SELECT oid FROM held_function) THEN ''
                   ELSE coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), '') END
         || ' ' || coalesce(pg_catalog.pg_get_expr(p.proargdefaults, 0), '')
         || ' ' || coalesce(made.text, '') END AS text
FROM routine p
LEFT JOIN pg_catalog.pg_type t ON t.oid = p.proargtypes[0]
LEFT JOIN made ON made.aggfnoid = p.oid
-- Those of contrib whose functions in C keep nothing, or of which we know what.
LEFT JOIN pg_catalog.pg_depend m ON m.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND m.objid = p.oid
  AND m.deptype = 'e'
LEFT JOIN pg_catalog.pg_extension x ON x.oid = m.refobjid AND x.extname IN ('adminpack', 'amcheck', 'autoinc',
  'dblink', 'file_fdw', 'insert_username', 'lo', 'moddatetime', 'pageinspect', 'pg_buffercache', 'pg_freespacemap',
  'pg_prewarm', 'pg_stat_statements', 'pg_surgery', 'pg_trgm', 'pg_visibility', 'pg_walinspect', 'pgcrypto',
  'pgrowlocks', 'pgstattuple', 'postgres_fdw', 'sslinfo', 'tablefunc', 'tcn', 'uuid-ossp', 'xml2')
UNION ALL
-- Words of the grammar that look like functions and cannot name one here.
SELECT 'keyword', word, '', '', '' FROM pg_catalog.pg_get_keywords() WHERE catcode = 'C'
-- Relations. Read on a follower, a sequence is up to 32 values ahead, an
-- unlogged table is refused, and a foreign table is reached from another place:
-- a file, or a server named localhost, is another one there.
UNION ALL
SELECT 'relation', relname::text,
       CASE WHEN relkind = 'S' THEN 'sequence' WHEN relkind = 'f' THEN 'foreign'
            WHEN relpersistence = 'u' THEN 'unlogged' ELSE '' END,
       CASE WHEN oid IN (SELECT oid FROM counted) THEN 'n' ELSE '' END, ''
FROM relation
UNION ALL
SELECT 'inherits', child.relname::text, '', parent.relname::text, ''
FROM pg_catalog.pg_inherits i
JOIN relation child ON child.oid = i.inhrelid
JOIN relation parent ON parent.oid = i.inhparent
-- Queries that run when a relation is read, and checks of domains.
UNION ALL
SELECT 'view', c.relname::text, CASE WHEN r.oid IS NULL THEN '' ELSE 'held' END, '',
       CASE WHEN r.oid IS NULL THEN coalesce(pg_catalog.pg_get_viewdef(c.oid), '') ELSE '' END
FROM relation c
LEFT JOIN (SELECT DISTINCT ev_class AS oid FROM pg_catalog.pg_rewrite WHERE oid IN (SELECT oid FROM held_rule)) r ON r.oid = c.oid
WHERE c.relkind = 'v'
UNION ALL
SELECT 'policy', relname::text, CASE WHEN h.oid IS NULL THEN '' ELSE 'held' END, '',
       CASE WHEN h.oid IS NULL THEN 'SELECT ' || pg_catalog.pg_get_expr(p.polqual, p.polrelid) ELSE '' END
FROM pg_catalog.pg_policy p JOIN relation c ON c.oid = p.polrelid LEFT JOIN held h ON h.oid = p.polrelid
WHERE p.polcmd IN ('r', '*') AND p.polqual IS NOT NULL
UNION ALL
SELECT 'domain', t.typname::text, '', '', 'SELECT ' || pg_catalog.pg_get_expr(c.conbin, 0)
FROM pg_catalog.pg_constraint c
JOIN pg_catalog.pg_type t ON t.oid = c.contypid
JOIN named n ON n.oid = t.typnamespace
WHERE c.contype = 'c' AND NOT n.builtin
-- What runs when a relation is written: triggers, rules, defaults and checks, and
-- what foreign keys and views hand on. What runs when definitions change.
UNION ALL
SELECT 'fires', c.relname::text, '', '', p.proname || '()'
FROM pg_catalog.pg_trigger t
JOIN relation c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
UNION ALL
SELECT 'fires', c.relname::text, CASE WHEN r.oid IN (SELECT oid FROM held_rule) THEN 'held' ELSE '' END, '',
       CASE WHEN r.oid IN (SELECT oid FROM held_rule) THEN '' ELSE pg_catalog.pg_get_ruledef(r.oid) END
FROM pg_catalog.pg_rewrite r JOIN relation c ON c.oid = r.ev_class
WHERE r.ev_type <> '1'
UNION ALL
SELECT 'fires', c.relname::text, CASE WHEN h.oid IS NULL THEN '' ELSE 'held' END, '',
       CASE WHEN h.oid IS NULL THEN coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), '') ELSE '' END
FROM pg_catalog.pg_attrdef d JOIN relation c ON c.oid = d.adrelid LEFT JOIN held h ON h.oid = d.adrelid
UNION ALL
SELECT 'fires', c.relname::text, CASE WHEN h.oid IS NULL THEN '' ELSE 'held' END, '',
       CASE WHEN h.oid IS NULL THEN coalesce(pg_catalog.pg_get_expr(k.conbin, k.conrelid), '') ELSE '' END
FROM pg_catalog.pg_constraint k JOIN relation c ON c.oid = k.conrelid LEFT JOIN held h ON h.oid = k.conrelid
WHERE k.contype = 'c'
UNION ALL
SELECT 'cascades', child.relname::text, '', parent.relname::text, ''
FROM pg_catalog.pg_constraint k
JOIN relation child ON child.oid = k.conrelid
JOIN relation parent ON parent.oid = k.confrelid
WHERE k.contype = 'f' AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))
UNION ALL
SELECT 'fires', '', '', '', p.proname || '()'
FROM pg_catalog.pg_event_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.evtfoid
WHERE t.evtenabled <> 'D'
UNION ALL
SELECT DISTINCT 'held', '', '', '', '' FROM held
-- Operators. Those in the grammar itself (IN, LIKE, BETWEEN ...) and those that
-- sort, group and compare are used without being written.
UNION ALL
SELECT DISTINCT 'operator', o.oprname::text, p.provolatile::text,
       CASE WHEN p.compiled THEN '' ELSE p.proname::text END,
       CASE WHEN o.oprname IN ('=', '<>', '<', '<=', '>', '>=', '~~', '!~~', '~~*', '!~~*', '~', '!~')
            THEN 'grammar'
            WHEN NOT p.compiled AND a.amopopr IS NOT NULL THEN 'index' ELSE '' END
FROM pg_catalog.pg_operator o
JOIN routine p ON p.oid = o.oprcode
LEFT JOIN pg_catalog.pg_amop a ON a.amopopr = o.oid
UNION ALL
SELECT DISTINCT 'support', p.proname::text, '', '', ''
FROM pg_catalog.pg_amproc a JOIN routine p ON p.oid = a.amproc
WHERE NOT p.compiled
-- Types: their names, conversions by name, and what is made of what.
UNION ALL
SELECT DISTINCT 'type', t.typname::text, '', CASE WHEN n.builtin THEN 'b' ELSE '' END, ''
FROM pg_catalog.pg_type t JOIN named n ON n.oid = t.typnamespace
WHERE t.typtype <> 'c' AND t.typcategory <> 'A'
UNION ALL
SELECT 'cast', t.typname::text, p.provolatile::text,
       CASE WHEN p.compiled THEN '' ELSE p.proname::text END, c.castcontext::text
FROM pg_catalog.pg_cast c
JOIN routine p ON p.oid = c.castfunc
JOIN pg_catalog.pg_type t ON t.oid = c.casttarget
WHERE NOT p.builtin
UNION ALL
SELECT DISTINCT 'uses', whole.typname::text, '', part.typname::text, ''
FROM (SELECT oid AS whole, unnest(ARRAY[typbasetype, typelem]) AS part FROM pg_catalog.pg_type
      UNION ALL
      SELECT t.oid, a.atttypid FROM pg_catalog.pg_type t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid
      UNION ALL
      SELECT rngtypid, rngsubtype FROM pg_catalog.pg_range
      UNION ALL
      SELECT rngmultitypid, rngtypid FROM pg_catalog.pg_range) AS use
JOIN pg_catalog.pg_type whole ON whole.oid = use.whole
JOIN pg_catalog.pg_type part ON part.oid = use.part
JOIN named n ON n.oid = part.typnamespace
WHERE part.oid >= 16384 AND NOT n.builtin
UNION ALL
SELECT DISTINCT 'signature', p.proname::text, '', t.typname::text, ''
FROM routine p
CROSS JOIN LATERAL unnest(p.prorettype || p.proargtypes::oid[]) AS used
JOIN pg_catalog.pg_type t ON t.oid = used
JOIN named n ON n.oid = t.typnamespace
WHERE t.oid >= 16384 AND NOT n.builtin
