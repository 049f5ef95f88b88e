"""The compatibility program for psycopg 3."""

import datetime
import decimal
import threading
import uuid

import psycopg
from psycopg.types.json import Jsonb

from report import equal, feature, name


def autocommit():
    return psycopg.connect("", autocommit=True)


def value(c, sql, args=None, **how):
    return c.execute(sql, args, **how).fetchone()[0]


def table(c, of, columns):
    t = name(of)
    c.execute(f"DROP TABLE IF EXISTS {t}")
    c.execute(f"CREATE TABLE {t} ({columns})")
    return t


def state(attempt, *args):
    try:
        attempt(*args)
    except psycopg.Error as e:
        return e.sqlstate or str(e).strip()
    return "no error"


def reads():
    c, t = autocommit(), name("reads")
    for i in range(50):
        c.execute(f"UPDATE {t} SET n = %s WHERE id = 1", (i,))
        equal(value(c, f"SELECT n FROM {t} WHERE id = %s", (1,)), i)
    return ""


def connect():
    c = autocommit()
    who = value(c, "SELECT current_user || ' ' || current_database()")
    try:
        psycopg.connect("dbname=there_is_none")
    except psycopg.OperationalError as e:
        missing = str(e).strip().split("FATAL: ")[1].strip()
    return f"{who} {c.info.server_version} {c.info.parameter_status('server_encoding')} {missing}"


def types():
    c = autocommit()
    t = table(c, "types", """b bool, s int2, i int4, l int8, f float8, n numeric, t text, y bytea, d date,
        z timestamptz, v interval, u uuid, j jsonb, a int8[], ta text[], nothing text""")
    row = [
        True, -32768, 2147483647, -9223372036854775808, 0.1, decimal.Decimal("12345678901234567890.123456789"),
        "żółć \"' \\ 日本", b"\x00\x01\xff", datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 13, 14, 15, 678901, datetime.timezone.utc),
        datetime.timedelta(days=3, seconds=4, microseconds=5), uuid.UUID(int=2**100), {"a": [1, None]},
        [1, -2, None], ["a", "b,c", 'd"'], None,
    ]
    places = ",".join(["%s"] * len(row)), ",".join(["%b"] * len(row))
    for binary in (False, True):
        c.execute(f"INSERT INTO {t} VALUES ({places[binary]})", [Jsonb(v) if isinstance(v, dict) else v for v in row])
        equal(list(c.cursor(binary=binary).execute(f"SELECT * FROM {t}").fetchone()), row)
        c.execute(f"DELETE FROM {t}")
    return len(row)


def prepared():
    c = autocommit()
    c.prepare_threshold = 3
    t = table(c, "prepared", "id int, v text")
    for i in range(20):
        c.execute(f"INSERT INTO {t} VALUES (%s, %s)", (i, name("v") + str(i)))
        equal(value(c, f"SELECT v FROM {t} WHERE id = %s", (i,)), name("v") + str(i))
    for _ in range(5):
        before = len(c.execute(f"SELECT * FROM {t}", prepare=True).fetchone())
    c.execute(f"ALTER TABLE {t} ADD more int")
    changed = state(c.execute, f"SELECT * FROM {t}")
    c.prepared_max = 2
    for i in range(20):  # psycopg lets go of statements by DEALLOCATE
        equal(value(c, f"SELECT {i % 7} + %s", (i,), prepare=True), i % 7 + i)
    known = value(c, "SELECT count(*) FROM pg_prepared_statements", prepare=False)
    return before, changed, known, value(c, f"SELECT count(*) FROM {t}", prepare=True)


def transaction():
    c, other = psycopg.connect(""), autocommit()
    t = table(other, "transaction", "id int primary key")
    count = f"/* lsnproxy: consistency=strong */ SELECT count(*) FROM {t}"
    c.execute(f"INSERT INTO {t} VALUES (1)")
    equal((value(c, count), value(other, count)), (1, 0))
    c.rollback()
    equal(value(c, count), 0)
    c.commit()
    with c.transaction():
        c.execute(f"INSERT INTO {t} VALUES (1)")

        def inner():
            with c.transaction():
                c.execute(f"INSERT INTO {t} VALUES (1)")

        savepoint = state(inner)
    equal(value(other, count), 1)
    c.isolation_level, c.read_only = psycopg.IsolationLevel.SERIALIZABLE, True
    with c.transaction():
        equal((value(c, count), value(c, "SHOW transaction_isolation")), (1, "serializable"))
        refused = state(c.execute, f"INSERT INTO {t} VALUES (2)")
        raise psycopg.Rollback
    return savepoint, refused, c.info.transaction_status.name


def error():
    c, notices = autocommit(), []
    c.add_notice_handler(lambda n: notices.append(n.message_primary))
    t = table(c, "error", "id int primary key")
    notices.clear()
    states = []
    for sql in ["SELEC 1", "SELECT * FROM there_is_none", "SELECT 1/0", "SELECT 'x'::int",
                f"INSERT INTO {t} VALUES (1), (1)"]:
        states.append(state(c.execute, sql))
        equal(value(c, "SELECT 'fine'"), "fine")
    c.autocommit = False
    states += [state(c.execute, "SELECT 1/0"), state(c.execute, "SELECT 1")]
    c.rollback()
    c.execute("DO $$ BEGIN RAISE NOTICE 'noticed'; END $$")
    return states, notices


def cursor():
    c = psycopg.connect("")
    with c.cursor("rows") as cur:
        cur.itersize = 90
        cur.execute("SELECT generate_series(1, %s)", (1000,))
        total = sum(n for n, in cur)
    with c.cursor("held", withhold=True) as cur:
        cur.execute("SELECT generate_series(1, 10)")
        c.commit()
        held = len(cur.fetchall())
    c.commit()
    # Row by row, as libpq's single row mode has it.
    streamed = sum(n for n, in c.cursor().stream("SELECT generate_series(1, 1000)"))
    return total, held, streamed


def copy():
    c = autocommit()
    t = table(c, "copy", "id int, v text")
    cur = c.cursor()
    with cur.copy(f"COPY {t} FROM STDIN (FORMAT binary)") as into:
        into.set_types(["int4", "text"])
        for i in range(1000):
            into.write_row((i, f"row {i}"))
    with cur.copy(f"COPY (SELECT * FROM {t} ORDER BY id) TO STDOUT") as out:
        rows = [row for row in out.rows()]
    equal(rows[999], ("999", "row 999"))

    def give_up():
        with cur.copy(f"COPY {t} FROM STDIN") as into:
            into.write_row((1, "x"))
            raise psycopg.DataError("given up")

    def bad():
        with cur.copy(f"COPY {t} FROM STDIN") as into:
            into.write("no number\tx\n")

    def missing():
        with cur.copy("COPY there_is_none TO STDOUT") as out:
            out.read()

    return len(rows), state(give_up), state(bad), state(missing), value(c, f"SELECT count(*) FROM {t}")


def cancel():
    c = autocommit()
    timer = threading.Timer(0.3, c.cancel)
    timer.start()
    cancelled = state(c.execute, "SELECT pg_sleep(30)")
    timer.join()
    equal(value(c, "SELECT 'fine'"), "fine")
    with c.transaction():
        c.execute("SET LOCAL statement_timeout = 50")
        slow = state(c.execute, "SELECT pg_sleep(30)")
        raise psycopg.Rollback
    return cancelled, slow, value(c, "SELECT 'fine'")


def notify():
    c, other, channel = autocommit(), autocommit(), name("channel")
    c.execute(f"LISTEN {channel}")
    other.execute("SELECT pg_notify(%s, %s)", (channel, "hello"))
    n = next(c.notifies())
    equal(n.channel, channel)
    c.execute("UNLISTEN *")
    return n.payload


def settings():
    c = autocommit()
    t, mine = table(c, "settings", "v text"), name("application")
    c.execute("SELECT set_config('application_name', %s, false)", (mine,))
    c.execute("SET TimeZone = 'Asia/Tokyo'")
    for _ in range(20):
        c.execute(f"INSERT INTO {t} VALUES (current_setting('application_name'))")
        equal(value(c, "SHOW application_name"), mine)
        equal(value(c, "SELECT '2024-02-29 12:00Z'::timestamptz").hour, 21)
    equal(c.info.parameter_status("TimeZone"), "Asia/Tokyo")
    with c.transaction():
        c.execute("SET LOCAL TimeZone = 'UTC'")
    with c.transaction():
        c.execute("SET TimeZone = 'UTC'")
        raise psycopg.Rollback
    equal(value(c, "SHOW TimeZone"), "Asia/Tokyo")
    equal(value(c, f"SELECT count(*) FROM {t} WHERE v = %s", (mine,)), 20)
    c.execute("RESET ALL")
    equal(c.info.parameter_status("application_name"), "")
    with psycopg.connect("", options="-c DateStyle=German -c search_path=elsewhere") as own:
        return value(own, "SHOW DateStyle"), value(own, "SHOW search_path"), value(own, "SELECT '2024-02-29'::date::text")


def largeobject():
    """psycopg has nothing for them: by the server's functions."""
    with psycopg.connect("") as c:
        oid = value(c, "SELECT lo_create(0)")
        fd = value(c, "SELECT lo_open(%s, 393216)", (oid,))
        c.execute("SELECT lowrite(%s, %s)", (fd, b"large object"))
        c.execute("SELECT lo_lseek(%s, 6, 0)", (fd,))
        seen = value(c, "SELECT loread(%s, 6)", (fd,))
        c.execute("SELECT lo_unlink(%s)", (oid,))
    return seen


def batch():
    c = autocommit()
    t = table(c, "batch", "id int primary key")
    c.cursor().executemany(f"INSERT INTO {t} VALUES (%s)", [(i,) for i in range(50)])
    with c.pipeline() as p:
        cursors = [c.execute("SELECT %s::int", (i,)) for i in range(50)]
        p.sync()
        equal([cur.fetchone()[0] for cur in cursors], list(range(50)))

    def broken():
        with c.pipeline():
            c.execute(f"INSERT INTO {t} VALUES (100)")
            c.execute(f"INSERT INTO {t} VALUES (1)")
            c.execute(f"INSERT INTO {t} VALUES (101)")

    failed = state(broken)
    return failed, value(c, f"SELECT count(*) FROM {t}")


for attempt in (reads, connect, types, prepared, transaction, error, cursor, copy, cancel, notify, settings,
                largeobject, batch):
    feature(attempt.__name__, attempt)
