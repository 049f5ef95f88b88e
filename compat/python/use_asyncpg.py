"""The compatibility program for asyncpg."""

import asyncio
import datetime
import decimal
import io
import json
import uuid

import asyncpg

from report import equal, feature, name


async def table(c, of, columns):
    t = name(of)
    await c.execute(f"DROP TABLE IF EXISTS {t}; CREATE TABLE {t} ({columns})")
    return t


async def state(awaitable):
    try:
        await awaitable
    except asyncpg.PostgresError as e:
        return e.sqlstate
    except Exception as e:
        return type(e).__name__
    return "no error"


async def reads(c):
    t = name("reads")
    for i in range(50):
        await c.execute(f"UPDATE {t} SET n = $1 WHERE id = 1", i)
        equal(await c.fetchval(f"SELECT n FROM {t} WHERE id = $1", 1), i)
    return ""


async def connect(c):
    who = await c.fetchval("SELECT current_user || ' ' || current_database()")
    version = ".".join(map(str, c.get_server_version()[:2]))
    return who, version, c.get_settings().server_encoding, await state(asyncpg.connect(database="there_is_none"))


async def types(c):
    t = await table(c, "types", """b bool, s int2, i int4, l int8, f float8, n numeric, t text, y bytea, d date,
        z timestamptz, v interval, u uuid, j jsonb, a int[], ta text[], r int4range, nothing text""")
    row = (
        True, -32768, 2147483647, -9223372036854775808, 0.1, decimal.Decimal("12345678901234567890.123456789"),
        "żółć \"' \\ 日本", b"\x00\x01\xff", datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 13, 14, 15, 678901, datetime.timezone.utc),
        datetime.timedelta(days=3, seconds=4, microseconds=5), uuid.UUID(int=2**100), {"a": [1, None]},
        [1, -2, None], ["a", "b,c", 'd"'], asyncpg.Range(1, 5), None,
    )
    await c.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    await c.execute(f"INSERT INTO {t} VALUES ({','.join(f'${i + 1}' for i in range(len(row)))})", *row)
    equal(tuple(await c.fetchrow(f"SELECT * FROM {t}")), row)
    # A type of our own has asyncpg look it up.
    own = name("pair")
    await c.execute(f"DROP TYPE IF EXISTS {own}; CREATE TYPE {own} AS (a int, b text)")
    return len(row), tuple(await c.fetchval(f"SELECT $1::{own}", (1, "x")))


async def prepared(c):
    t = await table(c, "prepared", "id int, v text")
    put = await c.prepare(f"INSERT INTO {t} VALUES ($1, $2)")
    get = await c.prepare(f"SELECT v FROM {t} WHERE id = $1")
    for i in range(20):
        await put.fetch(i, name("v") + str(i))
        equal(await get.fetchval(i), name("v") + str(i))
    every = await c.prepare(f"SELECT * FROM {t}")
    before = len(await every.fetchrow())
    await c.execute(f"ALTER TABLE {t} ADD more int")
    changed = await state(every.fetchrow())
    return before, changed, len(await c.fetchrow(f"SELECT * FROM {t}")), [a.name for a in get.get_attributes()]


async def transaction(c):
    other = await asyncpg.connect()
    t = await table(c, "transaction", "id int primary key")
    count = f"/* lsnproxy: consistency=strong */ SELECT count(*) FROM {t}"
    tr = c.transaction()
    await tr.start()
    await c.execute(f"INSERT INTO {t} VALUES (1)")
    equal((await c.fetchval(count), await other.fetchval(count)), (1, 0))
    await tr.rollback()
    equal(await c.fetchval(count), 0)
    async with c.transaction(isolation="repeatable_read"):
        await c.execute(f"INSERT INTO {t} VALUES (1)")

        async def inner():
            async with c.transaction():
                await c.execute(f"INSERT INTO {t} VALUES (1)")

        savepoint = await state(inner())
    equal(await other.fetchval(count), 1)

    async def read_only():
        async with c.transaction(isolation="serializable", readonly=True, deferrable=True):
            equal((await c.fetchval(count), await c.fetchval("SHOW transaction_isolation")), (1, "serializable"))
            await c.execute(f"INSERT INTO {t} VALUES (2)")

    refused = await state(read_only())
    await other.close()
    return savepoint, refused, c.is_in_transaction()


async def error(c):
    notices = []
    t = await table(c, "error", "id int primary key")
    c.add_log_listener(lambda _, message: notices.append(message.message))
    states = []
    for sql in ["SELEC 1", "SELECT * FROM there_is_none", "SELECT 1/0", "SELECT 'x'::int",
                f"INSERT INTO {t} VALUES (1), (1)"]:
        states += [await state(c.execute(sql)), await state(c.fetch(sql))]
        equal(await c.fetchval("SELECT 'fine'"), "fine")
    tr = c.transaction()
    await tr.start()
    states += [await state(c.fetch("SELECT 1/0")), await state(c.fetch("SELECT 1"))]
    await tr.rollback()
    await c.execute("DO $$ BEGIN RAISE NOTICE 'noticed'; END $$")
    await asyncio.sleep(0)
    return states, notices


async def cursor(c):
    async with c.transaction():
        total = sum([r[0] async for r in c.cursor("SELECT generate_series(1, $1::int)", 1000, prefetch=90)])
        cur = await c.cursor("SELECT generate_series(1, 1000)")
        await cur.forward(10)
        row, rows = await cur.fetchrow(), await cur.fetch(90)
    return total, row[0], len(rows)


async def copy(c):
    t = await table(c, "copy", "id int, v text")
    await c.copy_records_to_table(t, records=[(i, f"row {i}") for i in range(1000)])
    out = io.BytesIO()
    done = await c.copy_from_query(f"SELECT * FROM {t} WHERE id < $1 ORDER BY id", 500, output=out, format="csv")
    equal(out.getvalue().splitlines()[499], b"499,row 499")
    bad = await state(c.copy_to_table(t, source=io.BytesIO(b"1\tx\nno number\tx\n")))
    missing = await state(c.copy_from_table("there_is_none", output=io.BytesIO()))

    async def give_up():
        yield b"1\tx\n"
        raise ValueError("given up")

    aborted = await state(c.copy_to_table(t, source=give_up()))
    return done, bad, missing, aborted, await c.fetchval(f"SELECT count(*) FROM {t}")


async def cancel(c):
    timed_out = await state(c.fetch("SELECT pg_sleep(30)", timeout=0.3))
    equal(await c.fetchval("SELECT 'fine'"), "fine")
    task = asyncio.ensure_future(c.fetch("SELECT pg_sleep(30)"))
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.wait([task])
    tr = c.transaction()
    await tr.start()
    await c.execute("SET LOCAL statement_timeout = 50")
    slow = await state(c.fetch("SELECT pg_sleep(30)"))
    await tr.rollback()
    return timed_out, task.cancelled(), slow, await c.fetchval("SELECT 'fine'")


async def notify(c):
    other, channel, came = await asyncpg.connect(), name("channel"), asyncio.get_running_loop().create_future()
    listener = lambda _c, _pid, *message: came.done() or came.set_result(message)
    await c.add_listener(channel, listener)
    await other.execute("SELECT pg_notify($1, $2)", channel, "hello")
    heard, payload = await asyncio.wait_for(came, 10)
    equal(heard, channel)
    await c.remove_listener(channel, listener)
    await other.close()
    return payload


async def settings(c):
    t, mine = await table(c, "settings", "v text"), name("application")
    await c.execute(f"SET application_name = {mine}; SET TimeZone = 'Asia/Tokyo'")
    for _ in range(20):
        await c.execute(f"INSERT INTO {t} VALUES (current_setting('application_name'))")
        equal(await c.fetchval("SHOW application_name"), mine)
        equal(await c.fetchval("SELECT current_setting($1)", "TimeZone"), "Asia/Tokyo")
    equal(c.get_settings().TimeZone, "Asia/Tokyo")
    await c.execute("BEGIN; SET LOCAL TimeZone = 'UTC'; COMMIT")
    await c.execute("BEGIN; SET TimeZone = 'UTC'; ROLLBACK")
    equal(await c.fetchval("SHOW TimeZone"), "Asia/Tokyo")
    equal(await c.fetchval(f"SELECT count(*) FROM {t} WHERE v = $1", mine), 20)
    await c.reset()
    equal((await c.fetchval("SHOW application_name"), c.get_settings().application_name), ("", ""))
    own = await asyncpg.connect(server_settings={"search_path": "elsewhere", "jit": "off"})
    await own.execute("SET search_path = nowhere")
    await own.reset()
    seen = await own.fetchval("SHOW search_path"), await own.fetchval("SHOW jit")
    await own.close()
    return seen


async def largeobject(c):
    """asyncpg has nothing for them: by the server's functions."""
    async with c.transaction():
        oid = await c.fetchval("SELECT lo_create(0)")
        fd = await c.fetchval("SELECT lo_open($1, 393216)", oid)
        await c.fetchval("SELECT lowrite($1, $2)", fd, b"large object")
        await c.fetchval("SELECT lo_lseek($1, 6, 0)", fd)
        seen = await c.fetchval("SELECT loread($1, 6)", fd)
        await c.fetchval("SELECT lo_unlink($1)", oid)
    return seen


async def batch(c):
    t = await table(c, "batch", "id int primary key")
    await c.executemany(f"INSERT INTO {t} VALUES ($1)", [(i,) for i in range(50)])
    failed = await state(c.executemany(f"INSERT INTO {t} VALUES ($1)", [(100,), (1,), (101,)]))
    return failed, await c.fetchval(f"SELECT count(*) FROM {t}")


async def pool(_):
    """asyncpg's own pool resets every connection that comes back."""
    async with asyncpg.create_pool(min_size=1, max_size=4) as connections:

        async def one(i):
            async with connections.acquire() as c:
                await c.execute(f"SET application_name = {name('p')}{i}")
                return await c.fetchval("SELECT current_setting('application_name')") == name("p") + str(i)

        answers = await asyncio.gather(*(one(i) for i in range(40)))
        return all(answers), len(answers), await connections.fetchval("SHOW application_name")


async def on_connection(attempt):
    c = await asyncpg.connect()
    try:
        return await asyncio.wait_for(attempt(c), 60)
    finally:
        await asyncio.wait_for(c.close(), 10)


for attempt in (reads, connect, types, prepared, transaction, error, cursor, copy, cancel, notify, settings,
                largeobject, batch, pool):
    feature(attempt.__name__, lambda: asyncio.run(on_connection(attempt)))
