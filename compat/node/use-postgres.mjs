// The compatibility program for postgres (postgres.js).
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { text } from 'node:stream/consumers'
import postgres from 'postgres'
import { equal, errors, feature, name, sleep, state } from './report.mjs'

const notices = []
const open = (more = {}) => postgres({ max: 1, ssl: false, onnotice: n => notices.push(n.message), ...more })

// on runs a feature on a connection of its own.
const on = attempt => async () => {
  const sql = open()
  try {
    return await attempt(sql)
  } finally {
    await sql.end({ timeout: 5 })
  }
}

const value = async query => Object.values((await query)[0])[0]

async function table(sql, of, columns) {
  const t = name(of)
  await sql.unsafe(`DROP TABLE IF EXISTS ${t}; CREATE TABLE ${t} (${columns})`)
  return t
}

await feature('reads', on(async sql => {
  const t = sql(name('reads'))
  for (let i = 0; i < 50; i++) {
    await sql`UPDATE ${t} SET n = ${i} WHERE id = 1`
    equal(await value(sql`SELECT n FROM ${t} WHERE id = ${1}`), i)
  }
}))

await feature('connect', on(async sql => {
  const none = open({ database: 'there_is_none' })
  const missing = await state(none`SELECT 1`)
  await none.end()
  return [await value(sql`SELECT current_user || ' ' || current_database()`), sql.parameters.server_version, missing]
}))

await feature('types', on(async sql => {
  const t = await table(sql, 'types', `b bool, s int2, i int4, l int8, f float8, n numeric, t text, y bytea,
    z timestamptz, u uuid, j jsonb, a int4[], ta text[], nothing text`)
  const row = {
    b: true, s: -32768, i: 2147483647, l: '-9223372036854775808', f: 0.1, n: '12345678901234567890.123456789',
    t: 'żółć "\' \\ 日本', y: Buffer.from([0, 1, 255]), z: new Date('2024-02-29T13:14:15.678Z'),
    u: '00000000-0000-0001-0000-000000000002', j: { a: [1, null] }, a: [1, -2], ta: ['a', 'b,c', 'd"'], nothing: null,
  }
  await sql`INSERT INTO ${sql(t)} ${sql(row)}`
  equal({ ...(await sql`SELECT * FROM ${sql(t)}`)[0] }, row)
  return Object.keys(row).length
}))

await feature('prepared', on(async sql => {
  const t = sql(await table(sql, 'prepared', 'id int, v text'))
  for (let i = 0; i < 20; i++) {
    await sql`INSERT INTO ${t} VALUES (${i}, ${name('v') + i})`
    equal(await value(sql`SELECT v FROM ${t} WHERE id = ${i}`), name('v') + i)
  }
  const all = () => sql`SELECT * FROM ${t} WHERE id = ${3}`
  const before = (await all()).columns.length
  await sql`ALTER TABLE ${t} ADD more int`
  const after = (await all()).columns.length // the client prepares it again by itself
  const described = await sql`SELECT id, v FROM ${t} WHERE id = ${1}`.describe()
  return [before, after, described.columns.map(c => c.name), described.types].flat()
}))

await feature('transaction', on(async sql => {
  const other = open()
  const t = sql(await table(sql, 'transaction', 'id int primary key'))
  const count = s => value(s`/* lsnproxy: consistency=strong */ SELECT count(*)::int FROM ${t}`)
  const undone = await state(sql.begin(async tx => {
    await tx`INSERT INTO ${t} VALUES (1)`
    equal([await count(tx), await count(other)], [1, 0])
    throw new Error('undone')
  }))
  equal(await count(sql), 0)
  const inner = await sql.begin(async tx => {
    await tx`INSERT INTO ${t} VALUES (1)`
    return state(tx.savepoint(s => s`INSERT INTO ${t} VALUES (1)`))
  })
  equal(await count(other), 1)
  const refused = await state(sql.begin('isolation level serializable read only', async tx => {
    equal([await count(tx), await value(tx`SHOW transaction_isolation`)], [1, 'serializable'])
    await tx`INSERT INTO ${t} VALUES (2)`
  }))
  await other.end()
  return [undone, inner, refused, await count(sql)]
}))

await feature('error', on(async sql => {
  const t = await table(sql, 'error', 'id int primary key')
  notices.length = 0
  const states = []
  for (const query of errors(t)) {
    states.push(await state(sql.unsafe(query)), await state(sql.unsafe(query, [], { prepare: true })))
    equal(await value(sql`SELECT 'fine'`), 'fine')
  }
  states.push(await state(sql.begin(async tx => {
    states.push(await state(tx`SELECT 1/0`))
    await tx`SELECT 1`
  })))
  await sql`DO $$ BEGIN RAISE NOTICE 'noticed'; END $$`
  return [states, notices].flat()
}))

await feature('cursor', on(async sql => {
  let total = 0
  for await (const rows of sql`SELECT generate_series(1, ${1000}::int) AS n`.cursor(90)) for (const { n } of rows) total += n
  let early = 0
  for await (const [row] of sql`SELECT generate_series(1, 1000) AS n`.cursor()) {
    early = row.n
    if (early === 10) break
  }
  return [total, early, await value(sql`SELECT 'fine'`)]
}))

await feature('copy', on(async sql => {
  const t = sql(await table(sql, 'copy', 'id int, v text'))
  const lines = Array.from({ length: 1000 }, (_, i) => `${i}\trow ${i}\n`)
  await pipeline(Readable.from(lines), await sql`COPY ${t} FROM STDIN`.writable())
  const out = await text(await sql`COPY (SELECT * FROM ${t} ORDER BY id) TO STDOUT`.readable())
  equal(out, lines.join(''))
  const missing = await state(sql`COPY there_is_none TO STDOUT`.readable())
  return [missing, await value(sql`SELECT count(*) FROM ${t}`)]
}))

await feature('cancel', on(async sql => {
  const query = sql`SELECT pg_sleep(30)`
  setTimeout(() => query.cancel(), 300)
  const cancelled = await state(query)
  const slow = await state(sql.begin(async tx => {
    await tx`SET LOCAL statement_timeout = 50`
    await tx`SELECT pg_sleep(30)`
  }))
  return [cancelled, slow, await value(sql`SELECT 'fine'`)]
}))

await feature('notify', on(async sql => {
  let arrived
  const came = new Promise(resolve => (arrived = resolve))
  const { unlisten } = await sql.listen(name('channel'), arrived)
  await sql.notify(name('channel'), 'hello')
  const payload = await Promise.race([came, sleep(10000)])
  await unlisten()
  return payload
}))

await feature('settings', on(async sql => {
  const t = sql(await table(sql, 'settings', 'v text'))
  const mine = name('application')
  await sql`SELECT set_config('application_name', ${mine}, false)`
  await sql`SET TimeZone = 'Asia/Tokyo'`
  for (let i = 0; i < 20; i++) {
    await sql`INSERT INTO ${t} VALUES (current_setting('application_name'))`
    equal(await value(sql`SHOW application_name`), mine)
    equal(await value(sql`SELECT current_setting(${'TimeZone'})`), 'Asia/Tokyo')
  }
  equal(sql.parameters.TimeZone, 'Asia/Tokyo')
  await sql.begin(tx => tx`SET LOCAL TimeZone = 'UTC'`)
  await state(sql.begin(async tx => {
    await tx`SET TimeZone = 'UTC'`
    throw new Error('undone')
  }))
  equal(await value(sql`SHOW TimeZone`), 'Asia/Tokyo')
  equal(await value(sql`SELECT count(*)::int FROM ${t} WHERE v = ${mine}`), 20)
  const own = open({ connection: { application_name: mine, search_path: 'elsewhere' } })
  await own`SET search_path = nowhere`
  await own`RESET search_path`
  const seen = await value(own`SHOW search_path`)
  equal(await value(own`SHOW application_name`), mine)
  await own.end()
  return seen
}))

await feature('largeobject', on(async sql => {
  const lo = await sql.largeObject() // in a transaction of its own
  await lo.write(Buffer.from('large object'))
  await lo.seek(6)
  const [{ data }] = await lo.read(6)
  await lo.close()
  return data.toString()
}))

await feature('batch', on(async sql => {
  const t = sql(await table(sql, 'batch', 'id int primary key'))
  // Sent in one go, without waiting.
  await Promise.all(Array.from({ length: 50 }, (_, i) => sql`INSERT INTO ${t} VALUES (${i})`))
  const mixed = await Promise.all([
    state(sql`INSERT INTO ${t} VALUES (${100})`), state(sql`INSERT INTO ${t} VALUES (${1})`), state(sql`INSERT INTO ${t} VALUES (${101})`),
  ])
  const ids = (await sql`INSERT INTO ${t} ${sql([{ id: 200 }, { id: 201 }])} RETURNING id`).map(r => r.id)
  return [mixed, ids, await value(sql`SELECT count(*) FROM ${t}`)].flat()
}))

await feature('pool', async () => {
  const sql = open({ max: 4 })
  const rows = await Promise.all(Array.from({ length: 40 }, (_, i) => value(sql`SELECT ${i}::int`)))
  equal(rows, Array.from({ length: 40 }, (_, i) => i))
  await sql.end()
  return rows.length
})
