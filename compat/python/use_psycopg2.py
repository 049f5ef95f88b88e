"""The compatibility program for psycopg2."""

import datetime
import decimal
import io
import select
import threading
import time
import uuid

import psycopg2
import psycopg2.extensions
import psycopg2.extras

from report import equal, feature, name

psycopg2.extras.register_uuid()


def autocommit():
    c = psycopg2.connect("")
    c.autocommit = True
    return c


def run(c, sql, args=None):
    with c.cursor() as cur:
        cur.execute(sql, args)
        return cur.fetchall() if cur.description else None


def value(c, sql, args=None):
    return run(c, sql, args)[0][0]


def table(c, of, columns):
    t = name(of)
    run(c, f"DROP TABLE IF EXISTS {t}; CREATE TABLE {t} ({columns})")
    return t


def state(attempt, *args):
    try:
        attempt(*args)
    except psycopg2.Error as e:
        return e.pgcode or str(e).strip()
    return "no error"


def reads():
    c, t = autocommit(), name("reads")
    for i in range(50):
        run(c, f"UPDATE {t} SET n = %s WHERE id = 1", (i,))
        equal(value(c, f"SELECT n FROM {t} WHERE id = 1"), i)
    return ""


def connect():
    c = autocommit()
    who = value(c, "SELECT current_user || ' ' || current_database()")
    try:
        psycopg2.connect("dbname=there_is_none")
    except psycopg2.OperationalError as e:
        missing = str(e).strip().split("FATAL: ")[1].strip()
    return f"{who} {c.server_version} {c.get_parameter_status('server_encoding')} {missing}"


def types():
    c = autocommit()
    t = table(c, "types", """b bool, s int2, i int4, l int8, f float8, n numeric, t text, y bytea, d date,
        z timestamptz, v interval, u uuid, j jsonb, a int[], ta text[], nothing text""")
    row = (
        True, -32768, 2147483647, -9223372036854775808, 0.1, decimal.Decimal("12345678901234567890.123456789"),
        "żółć \"' \\ 日本", b"\x00\x01\xff", datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 13, 14, 15, 678901, datetime.timezone.utc),
        datetime.timedelta(days=3, seconds=4, microseconds=5), uuid.UUID(int=2**100), {"a": [1, None]},
        [1, -2, None], ["a", "b,c", 'd"'], None,
    )
    run(c, f"INSERT INTO {t} VALUES ({','.join(['%s'] * len(row))})",
        [psycopg2.extras.Json(v) if isinstance(v, dict) else v for v in row])
    seen = run(c, f"SELECT * FROM {t}")[0]
    equal([bytes(v) if isinstance(v, memoryview) else v for v in seen], list(row))
    return len(row)


def prepared():
    """psycopg2 prepares nothing by itself; with SQL's PREPARE it is usual."""
    c = autocommit()
    t = table(c, "prepared", "id int, v text")
    run(c, f"PREPARE put AS INSERT INTO {t} VALUES ($1, $2)")
    run(c, f"PREPARE get AS SELECT v FROM {t} WHERE id = $1")
    for i in range(20):
        run(c, "EXECUTE put (%s, %s)", (i, name("v") + str(i)))
        equal(value(c, "EXECUTE get (%s)", (i,)), name("v") + str(i))
    run(c, "DEALLOCATE put")
    gone = state(run, c, "EXECUTE put (1, 'x')")
    equal(value(c, "EXECUTE get (7)"), name("v") + "7")
    run(c, "DEALLOCATE ALL")
    return gone, state(run, c, "EXECUTE get (1)")


def transaction():
    c, other = psycopg2.connect(""), autocommit()
    t, count = table(other, "transaction", "id int primary key"), f"/* lsnproxy: consistency=strong */ SELECT count(*) FROM {name('transaction')}"
    run(c, f"INSERT INTO {t} VALUES (1)")
    equal((value(c, count), value(other, count)), (1, 0))
    c.rollback()
    equal(value(c, count), 0)
    c.commit()
    with c:
        run(c, f"INSERT INTO {t} VALUES (1)")
        run(c, "SAVEPOINT s")
        inner = state(run, c, f"INSERT INTO {t} VALUES (1)")
        run(c, "ROLLBACK TO s")
    equal(value(other, count), 1)
    c.set_session(isolation_level="SERIALIZABLE", readonly=True)
    with c:
        equal((value(c, count), value(c, "SHOW transaction_isolation")), (1, "serializable"))
        refused = state(run, c, f"INSERT INTO {t} VALUES (2)")
        c.rollback()
    c.set_session(isolation_level="READ COMMITTED", readonly=False)
    c.tpc_begin(c.xid(1, name("xid"), "branch"))
    run(c, f"INSERT INTO {t} VALUES (3)")
    two_phase = state(c.tpc_prepare)
    c.tpc_rollback()
    return inner, refused, two_phase, c.get_transaction_status()


def error():
    c = autocommit()
    t = table(c, "error", "id int primary key")
    states = []
    for sql in ["SELEC 1", "SELECT * FROM there_is_none", "SELECT 1/0", "SELECT 'x'::int",
                f"INSERT INTO {t} VALUES (1), (1)"]:
        states.append(state(run, c, sql))
        equal(value(c, "SELECT 'fine'"), "fine")
    c.autocommit = False
    states += [state(run, c, "SELECT 1/0"), state(run, c, "SELECT 1")]
    c.rollback()
    run(c, "DO $$ BEGIN RAISE NOTICE 'noticed'; END $$")
    return states, [n.strip() for n in c.notices[-1:]]


def cursor():
    c = psycopg2.connect("")
    with c.cursor("rows") as cur:
        cur.itersize = 90
        cur.execute("SELECT generate_series(1, 1000)")
        total = sum(n for n, in cur)
    with c.cursor("scrolls", scrollable=True) as cur:
        cur.execute("SELECT generate_series(1, 10)")
        cur.scroll(5)
        there = cur.fetchone()
        cur.scroll(-2)
        back = cur.fetchone()
    with c.cursor("held", withhold=True) as cur:
        cur.execute("SELECT generate_series(1, 10)")
        c.commit()
        held = len(cur.fetchall())
    c.commit()
    return total, there, back, held


def copy():
    c = autocommit()
    t = table(c, "copy", "id int, v text")
    with c.cursor() as cur:
        cur.copy_expert(f"COPY {t} FROM STDIN", io.StringIO("".join(f"{i}\trow {i}\n" for i in range(1000))))
        out = io.StringIO()
        cur.copy_expert(f"COPY (SELECT * FROM {t} ORDER BY id) TO STDOUT (FORMAT csv)", out)
        equal(out.getvalue().splitlines()[999], "999,row 999")
        failed = state(cur.copy_expert, f"COPY {t} FROM STDIN", io.StringIO("1\tx\nno number\tx\n"))
        missing = state(cur.copy_expert, "COPY there_is_none TO STDOUT", io.StringIO())
    return value(c, f"SELECT count(*) FROM {t}"), failed, missing


def cancel():
    c = autocommit()
    timer = threading.Timer(0.3, c.cancel)
    timer.start()
    cancelled = state(run, c, "SELECT pg_sleep(30)")
    timer.join()
    equal(value(c, "SELECT 'fine'"), "fine")
    c.autocommit = False
    run(c, "SET LOCAL statement_timeout = 50")
    slow = state(run, c, "SELECT pg_sleep(30)")
    c.rollback()
    return cancelled, slow, value(c, "SELECT 'fine'")


def notify():
    c, other, channel = autocommit(), autocommit(), name("channel")
    run(c, f"LISTEN {channel}")
    run(other, f"NOTIFY {channel}, 'hello'")
    deadline = time.monotonic() + 10
    while not c.notifies and time.monotonic() < deadline:
        select.select([c], [], [], 1)
        c.poll()
    n = c.notifies.pop()
    equal(n.channel, channel)
    run(c, f"UNLISTEN {channel}")
    return n.payload


def settings():
    c = autocommit()
    t, mine = table(c, "settings", "v text"), name("application")
    run(c, "SET application_name = %s", (mine,))
    run(c, "SET TimeZone = 'Asia/Tokyo'")
    run(c, f"SET search_path = {name('schema')}, public")
    for _ in range(20):
        run(c, f"INSERT INTO {t} VALUES (current_setting('application_name'))")
        equal(value(c, "SHOW application_name"), mine)
        equal(value(c, "SELECT current_setting('search_path')"), f"{name('schema')}, public")
    equal(c.get_parameter_status("TimeZone"), "Asia/Tokyo")
    c.autocommit = False
    run(c, "SET LOCAL TimeZone = 'UTC'")
    c.commit()
    run(c, "SET TimeZone = 'UTC'")
    c.rollback()
    equal(value(c, "SHOW TimeZone"), "Asia/Tokyo")
    equal(value(c, f"SELECT count(*) FROM {t} WHERE v = %s", (mine,)), 20)
    c.reset()
    return value(c, "SHOW search_path"), c.get_parameter_status("application_name")


def largeobject():
    c = psycopg2.connect("")
    lo = c.lobject(0, "wb")
    oid = lo.oid
    lo.write(b"large object")
    lo.close()
    c.commit()
    lo = c.lobject(oid, "rb")
    lo.seek(6)
    seen = lo.read(6)
    lo.unlink()
    c.commit()
    return seen


def batch():
    c = psycopg2.connect("")
    t = table(c, "batch", "id int primary key")
    c.commit()
    with c.cursor() as cur:
        psycopg2.extras.execute_batch(cur, f"INSERT INTO {t} VALUES (%s)", [(i,) for i in range(50)], page_size=10)
        psycopg2.extras.execute_values(cur, f"INSERT INTO {t} VALUES %s", [(i,) for i in range(50, 100)])
        c.commit()
        failed = state(psycopg2.extras.execute_batch, cur, f"INSERT INTO {t} VALUES (%s)", [(200,), (1,), (201,)])
    c.rollback()
    return value(c, f"SELECT count(*) FROM {t}"), failed


for attempt in (reads, connect, types, prepared, transaction, error, cursor, copy, cancel, notify, settings,
                largeobject, batch):
    feature(attempt.__name__, attempt)
