// The compatibility program for pg, with pg-cursor and pg-copy-streams.
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { text } from 'node:stream/consumers'
import pg from 'pg'
import Cursor from 'pg-cursor'
import copyStreams from 'pg-copy-streams'
import { equal, errors, feature, name, sleep, state } from './report.mjs'

async function open(config) {
  const c = new pg.Client(config)
  c.on('error', () => {}) // told to the query too
  await c.connect()
  return c
}

// on runs a feature on a connection of its own.
const on = attempt => async () => {
  const c = await open()
  try {
    return await attempt(c)
  } finally {
    await c.end()
  }
}

const run = (c, sql, args) => c.query(sql, args)
const value = async (c, sql, args) => Object.values((await c.query(sql, args)).rows[0])[0]

async function table(c, of, columns) {
  const t = name(of)
  await run(c, `DROP TABLE IF EXISTS ${t}; CREATE TABLE ${t} (${columns})`)
  return t
}

await feature('reads', on(async c => {
  const t = name('reads')
  for (let i = 0; i < 50; i++) {
    await run(c, `UPDATE ${t} SET n = $1 WHERE id = 1`, [i])
    equal(await value(c, `SELECT n FROM ${t} WHERE id = $1`, [1]), i)
  }
}))

await feature('connect', on(async c => [
  await value(c, "SELECT current_user || ' ' || current_database()"),
  await value(c, 'SHOW server_version'),
  await state(open({ database: 'there_is_none' })),
]))

await feature('types', on(async c => {
  const t = await table(c, 'types', `b bool, s int2, i int4, l int8, f float8, n numeric, t text, y bytea,
    z timestamptz, u uuid, j jsonb, a int4[], ta text[], nothing text`)
  const row = [
    true, -32768, 2147483647, '-9223372036854775808', 0.1, '12345678901234567890.123456789', 'żółć "\' \\ 日本',
    Buffer.from([0, 1, 255]), new Date('2024-02-29T13:14:15.678Z'), '00000000-0000-0001-0000-000000000002',
    { a: [1, null] }, [1, -2, null], ['a', 'b,c', 'd"'], null,
  ]
  await run(c, `INSERT INTO ${t} VALUES (${row.map((_, i) => '$' + (i + 1))})`, row)
  const seen = await c.query({ text: `SELECT * FROM ${t}`, rowMode: 'array' })
  equal(seen.rows[0], row)
  return row.length
}))

await feature('prepared', on(async c => {
  const t = await table(c, 'prepared', 'id int, v text')
  for (let i = 0; i < 20; i++) {
    await c.query({ name: 'put', text: `INSERT INTO ${t} VALUES ($1, $2)`, values: [i, name('v') + i] })
    const get = await c.query({ name: 'get', text: `SELECT v FROM ${t} WHERE id = $1`, values: [i] })
    equal(get.rows, [{ v: name('v') + i }])
  }
  const all = { name: 'all', text: `SELECT * FROM ${t}` }
  const before = await c.query(all)
  await run(c, `ALTER TABLE ${t} ADD more int`)
  return [before.fields.length, await state(c.query(all)), await value(c, `SELECT count(*) FROM ${t}`)]
}))

await feature('transaction', on(async c => {
  const other = await open()
  const t = await table(c, 'transaction', 'id int primary key')
  const count = `/* lsnproxy: consistency=strong */ SELECT count(*)::int FROM ${t}`
  await run(c, 'BEGIN')
  await run(c, `INSERT INTO ${t} VALUES (1)`)
  equal([await value(c, count), await value(other, count)], [1, 0])
  await run(c, 'ROLLBACK')
  equal(await value(c, count), 0)
  await run(c, 'BEGIN')
  await run(c, `INSERT INTO ${t} VALUES (1)`)
  await run(c, 'SAVEPOINT s')
  const inner = await state(run(c, `INSERT INTO ${t} VALUES (1)`))
  await run(c, 'ROLLBACK TO s')
  await run(c, 'COMMIT')
  equal(await value(other, count), 1)
  await run(c, 'BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY')
  equal([await value(c, count), await value(c, 'SHOW transaction_isolation')], [1, 'serializable'])
  const refused = await state(run(c, `INSERT INTO ${t} VALUES (2)`))
  await run(c, 'ROLLBACK')
  await other.end()
  return [inner, refused, await value(c, count)]
}))

await feature('error', on(async c => {
  const t = await table(c, 'error', 'id int primary key')
  const notices = []
  c.on('notice', n => notices.push(n.message))
  const states = []
  for (const sql of errors(t)) {
    states.push(await state(run(c, sql)), await state(run(c, { text: sql, queryMode: 'extended' })))
    equal(await value(c, "SELECT 'fine'"), 'fine')
  }
  await run(c, 'BEGIN')
  states.push(await state(run(c, 'SELECT 1/0')), await state(run(c, 'SELECT 1')))
  await run(c, 'ROLLBACK')
  await run(c, "DO $$ BEGIN RAISE NOTICE 'noticed'; END $$")
  return [states, notices].flat()
}))

await feature('cursor', on(async c => {
  const cursor = c.query(new Cursor('SELECT generate_series(1, $1::int) AS n', [1000]))
  let total = 0
  for (let rows; (rows = await cursor.read(90)).length > 0;) for (const { n } of rows) total += n
  await cursor.close()
  const early = c.query(new Cursor('SELECT generate_series(1, 1000) AS n'))
  const rows = await early.read(10)
  await early.close()
  return [total, rows.length, await value(c, "SELECT 'fine'")]
}))

await feature('copy', on(async c => {
  const t = await table(c, 'copy', 'id int, v text')
  const lines = Array.from({ length: 1000 }, (_, i) => `${i}\trow ${i}\n`)
  const into = () => c.query(copyStreams.from(`COPY ${t} FROM STDIN`))
  await pipeline(Readable.from(lines), into())
  const out = await text(c.query(copyStreams.to(`COPY (SELECT * FROM ${t} ORDER BY id) TO STDOUT`)))
  equal(out, lines.join(''))
  const bad = await state(pipeline(Readable.from(['no number\tx\n']), into()))
  const missing = await state(text(c.query(copyStreams.to('COPY there_is_none TO STDOUT'))))
  return [bad, missing, await value(c, `SELECT count(*) FROM ${t}`)]
}))

await feature('cancel', on(async c => {
  // pg has no method of its own for it; its connection can send the request.
  const request = new pg.Connection()
  setTimeout(() => {
    request.on('connect', () => request.cancel(c.processID, c.secretKey))
    request.connect(c.port, c.host)
  }, 300)
  const cancelled = await state(run(c, 'SELECT pg_sleep(30)'))
  await run(c, 'BEGIN')
  await run(c, 'SET LOCAL statement_timeout = 50')
  const slow = await state(run(c, 'SELECT pg_sleep(30)'))
  await run(c, 'ROLLBACK')
  const limited = await open({ statement_timeout: 50 })
  const own = await state(run(limited, 'SELECT pg_sleep(30)'))
  await limited.end()
  return [cancelled, slow, own, await value(c, "SELECT 'fine'")]
}))

await feature('notify', on(async c => {
  const other = await open()
  const came = new Promise(resolve => c.on('notification', resolve))
  await run(c, `LISTEN ${name('channel')}`)
  await run(other, 'SELECT pg_notify($1, $2)', [name('channel'), 'hello'])
  const n = await Promise.race([came, sleep(10000)])
  equal(n?.channel, name('channel'))
  await run(c, 'UNLISTEN *')
  await other.end()
  return n.payload
}))

await feature('settings', on(async c => {
  const t = await table(c, 'settings', 'v text')
  const mine = name('application')
  await run(c, `SET application_name = ${mine}; SET TimeZone = 'Asia/Tokyo'`)
  for (let i = 0; i < 20; i++) {
    await run(c, `INSERT INTO ${t} VALUES (current_setting('application_name'))`)
    equal(await value(c, 'SHOW application_name'), mine)
    equal(await value(c, 'SELECT current_setting($1)', ['TimeZone']), 'Asia/Tokyo')
  }
  await run(c, "BEGIN; SET LOCAL TimeZone = 'UTC'; COMMIT")
  await run(c, "BEGIN; SET TimeZone = 'UTC'; ROLLBACK")
  equal(await value(c, 'SHOW TimeZone'), 'Asia/Tokyo')
  equal(await value(c, `SELECT count(*)::int FROM ${t} WHERE v = $1`, [mine]), 20)
  await run(c, 'RESET ALL')
  const own = await open({ options: '-c search_path=elsewhere', application_name: mine })
  equal(await value(own, 'SHOW application_name'), mine)
  const seen = await value(own, 'SHOW search_path')
  await own.end()
  return [await value(c, 'SHOW application_name'), seen]
}))

console.log('largeobject none')

await feature('batch', on(async c => {
  const t = await table(c, 'batch', 'id int primary key')
  // Queued on the client: each is sent when the one before is answered.
  await Promise.all(Array.from({ length: 50 }, (_, i) => run(c, `INSERT INTO ${t} VALUES ($1)`, [i])))
  const failed = await state(run(c, `INSERT INTO ${t} VALUES (100); INSERT INTO ${t} VALUES (1)`))
  const results = await run(c, 'SELECT 1; SELECT 2, 3; SELECT 4 WHERE false')
  return [results.map(r => r.rowCount), failed, await value(c, `SELECT count(*) FROM ${t}`)].flat()
}))

await feature('pool', async () => {
  const pool = new pg.Pool({ max: 4 })
  const rows = await Promise.all(Array.from({ length: 40 }, (_, i) => pool.query('SELECT $1::int AS i', [i])))
  equal(rows.map(r => r.rows[0].i), Array.from({ length: 40 }, (_, i) => i))
  await pool.end()
  return rows.length
})
