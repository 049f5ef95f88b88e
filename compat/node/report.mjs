// How the programs for node say what works: one line for each feature,
// "feature ok|FAIL|none detail".
import { isDeepStrictEqual, inspect } from 'node:util'

// A name that no other program uses, nor another copy of this one.
export const name = of => `${process.env.COMPAT_NAME ?? 'compat'}_${of}`

export const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

// Tries a feature; what attempt returns must be the same on every run.
export async function feature(what, attempt) {
  let line
  try {
    line = `${what} ok ${[await attempt()].flat().join(' ')}`
  } catch (e) {
    line = `${what} FAIL ${e.stack ?? e}`
  }
  console.log(line.replace(/\s+/g, ' '))
}

export function equal(seen, wanted) {
  if (!isDeepStrictEqual(seen, wanted)) throw new Error(`${inspect(seen)} instead of ${inspect(wanted)}`)
}

export async function state(promise) {
  try {
    await promise
    return 'no error'
  } catch (e) {
    return e.code ?? e.message
  }
}

export const errors = table => [
  'SELEC 1', 'SELECT * FROM there_is_none', 'SELECT 1/0', "SELECT 'x'::int", `INSERT INTO ${table} VALUES (1), (1)`,
]
