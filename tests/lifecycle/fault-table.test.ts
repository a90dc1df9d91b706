// The table of faults: each of its rows is what happens. The rows are those of the documentation.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import type { Session } from 'sojourn'
import type { StoreOperation } from 'sojourn/testing'
import { closeRigs, GROUNDS, Rig } from '../support/rig.js'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

const OPERATIONS: Record<string, (session: Session) => Promise<unknown>> = {
  'save()': (session) => {
    session.set('m', 1)
    return session.save()
  },
  'update()': (session) => session.update('m', () => 1),
  'touch()': (session) => session.touch({ force: true }),
  'login()': (session) => session.login('ann'),
  'reauthenticate()': (session) => session.reauthenticate(),
  'regenerate({ keep: true })': (session) => session.regenerate({ keep: true }),
  'renew()': (session) => session.renew(),
  'logout()': (session) => session.logout(),
  'destroy()': (session) => session.destroy(),
}

/** What the last column may say. */
const OUTCOMES = [
  'as before',
  'by a new cookie',
  'and gets the new cookie with its next answer',
  'no: it asked for that',
]

const KINDS = { fails: 'error', 'answer lost': 'lost-reply' } as const

const rows = readFileSync(join(ROOT, 'docs/operations/faults.md'), 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| `'))
  .map((line) =>
    line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim().replaceAll('`', '')),
  )
  .map((cells) => cells as [operation: string, call: string, fault: keyof typeof KINDS, status: string, client: string])

test('the table names every operation, and outcomes that are looked at', () => {
  expect(OUTCOMES).toEqual(expect.arrayContaining(rows.map(([, , , , client]) => client)))
  expect(new Set(rows.map(([operation]) => operation))).toEqual(new Set(Object.keys(OPERATIONS)))
})

describe.each(GROUNDS)('a fault of the store on %s', (_name, makeGround) => {
  const ground = makeGround()
  beforeAll(() => ground.start())
  beforeEach(() => ground.reset())
  afterEach(closeRigs)
  afterAll(() => ground.stop())

  test.each(rows)('%s, %s %s: %s, logged in %s', async (operation, call, fault, status, client) => {
    const rig = await Rig.start(ground)
    await rig.ask((session) => session.login('ann'))
    const { cookieHeader } = rig.client
    const before = rig.client.clone()
    rig.store.fail({ kind: KINDS[fault], operations: [call as StoreOperation], times: 1 })
    await rig.ask(async (session) => void (await OPERATIONS[operation]?.(session))).catch(() => {})
    expect(rig.answer?.status).toBe(Number(status))
    expect(rig.heard('storeError')).toMatchObject([{ operation: call }])
    const isOut = client.startsWith('no')
    expect(await rig.whoIs()).toBe(isOut ? null : 'ann')
    if (client === 'as before') expect(rig.client.cookieHeader).toBe(cookieHeader)
    if (client.startsWith('and gets')) expect(rig.client.cookieHeader).not.toBe(cookieHeader)
    if (client === 'by a new cookie') expect(await rig.whoIs(before)).toBeNull()
  })
})
