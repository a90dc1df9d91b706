// The table of the commit: each of its rows is what happens, and the documentation shows the same rows.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, test } from '@jest/globals'
import { MemorySessionStore, type SessionOptions } from 'sojourn'
import { FakeClock, FaultyStore } from 'sojourn/testing'
import { Lifecycle } from '../../src/lifecycle/lifecycle.js'
import { resolveOptions } from '../../src/options/resolve-options.js'
import { nextStep, takeNextStep } from '../../src/session/commit.js'
import * as life from '../../src/session/life.js'
import { askLogicalId } from '../../src/session/logical-id.js'
import { login } from '../../src/session/login.js'
import { chooseExpiry, cookieContent, resendCookie } from '../../src/session/response-cookie.js'
import { type SessionHost, type SessionOrigin, SessionState } from '../../src/session/state.js'
import { SECRET } from '../support/http.js'
import { callsOf } from '../support/records.js'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const MINUTE = 60_000
const HEADER = /^\| session +\| step +\| store +\| cookie +\|$/

interface Row {
  readonly session: string
  readonly step: string
  readonly store: string
  readonly cookie: string
}

/** The rows below the header of the commit table in a text; `null` when it has none. */
function tableIn(text: string): Row[] | null {
  const lines = text.split('\n').map((line) => line.replace(/^\s*\*\s*(?=\|)/, ''))
  const start = lines.findIndex((line) => HEADER.test(line))
  if (start < 0) return null
  const rows: Row[] = []
  for (const line of lines.slice(start + 2)) {
    if (!line.startsWith('|')) break
    const [session = '', step = '', store = '', cookie = ''] = line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim())
    rows.push({ session, step, store, cookie })
  }
  return rows
}

const rows = tableIn(readFileSync(join(ROOT, 'src/session/commit.ts'), 'utf8')) ?? []

/** A session in a request, with the store and the clock that it lives by. */
class Bench {
  readonly clock = new FakeClock()
  readonly store = new FaultyStore(new MemorySessionStore({ cleanupInterval: 0, clock: this.clock.now }))
  readonly lifecycle: Lifecycle
  outlook: ReturnType<SessionHost['cookieOutlook']> = 'open'
  state!: SessionState

  constructor(options: Partial<SessionOptions> = {}) {
    const all = { secret: SECRET, store: this.store, clock: this.clock.now, renewAfter: '10m', ...options } as const
    this.lifecycle = new Lifecycle(resolveOptions(all, () => this.store))
  }

  begin(origin: SessionOrigin): SessionState {
    const host: SessionHost = {
      cookieOutlook: () => this.outlook,
      isResponded: () => false,
      newId: () => undefined,
      isPassive: false,
      isSecure: false,
      isHttps: () => false,
      activityRequest: () => ({ method: 'GET', path: '/', ip: undefined }),
      clientContext: () => undefined,
      initialFields: () => new Map(),
      onUse() {},
      onFailure() {},
      replace: (next) => {
        this.state = next
      },
    }
    this.state = new SessionState(this.lifecycle, host, origin)
    return this.state
  }

  async stored({ isOldSecret = false } = {}): Promise<SessionState> {
    const fields = new Map([['kept', '1']])
    const { record, token } = await this.lifecycle.create({ id: this.lifecycle.newId(), fields })
    const claim = { id: record.id, token, tokenHash: record.tokenHash, isCurrent: !isOldSecret }
    return this.begin({ record, claim, isCopy: false, isCurrentToken: true })
  }

  /** Runs the commit to its end: its steps, the store calls that it makes, and what becomes of the cookie. */
  async commit(): Promise<{ steps: string[]; calls: string[]; cookie: string }> {
    const before = callsOf(this.store)
    const steps: string[] = []
    for (;;) {
      const { name } = nextStep(this.state)
      if (name === 'nothing' && steps.length > 0) break
      steps.push(name)
      const taken = takeNextStep(this.state)
      if (taken === 'last') break
      await taken
    }
    const after = callsOf(this.store)
    const names = Object.keys(after) as (keyof typeof after)[]
    const calls = names.filter((name) => after[name] > before[name])
    if (this.state.cookie === 'set') expect(cookieContent(this.state)).toMatchObject({ id: this.state.id })
    return { steps, calls, cookie: this.state.cookie }
  }
}

/** What leads to each row. With `moves`, the same, but for a reason why the cookie must move. */
const SCENARIOS: Record<string, readonly ((moves: boolean) => Promise<Bench>)[]> = {
  'new, nothing set': [
    async () => benchOf((bench) => bench.begin('new')),
    async () =>
      benchOf((bench) => {
        const state = bench.begin('new')
        state.set('a', 1)
        state.delete('a')
      }),
    async () =>
      benchOf(async (bench) => {
        bench.begin('new').set('a', 1)
        await life.replaceWithEmpty(bench.state)
      }),
  ],
  'new, with fields': [
    async () => benchOf((bench) => bench.begin('new').set('a', 1)),
    async () => benchOf((bench) => askLogicalId(bench.begin('new'))),
  ],
  'new, with fields, but the headers have left': [
    async () =>
      benchOf((bench) => {
        bench.begin('new').set('a', 1)
        bench.outlook = 'headers-sent'
      }),
  ],
  changed: [
    async (moves) =>
      benchOf(
        async (bench) => {
          ;(await bench.stored()).set('a', 1)
          bench.clock.advance(2 * MINUTE)
        },
        { cookie: { persistent: moves } },
      ),
    async (moves) =>
      benchOf(
        async (bench) => {
          const state = await bench.stored()
          bench.clock.advance(20 * MINUTE)
          state.delete('kept')
        },
        { cookie: { persistent: moves }, renewAfter: '2h' },
      ),
    async (moves) =>
      benchOf(async (bench) =>
        chooseExpiry(await bench.stored(), { idleMs: 5 * MINUTE, persistent: moves || undefined }),
      ),
  ],
  'unchanged, but its logical ID begins': [
    async (moves) =>
      benchOf(
        async (bench) => {
          const state = await bench.stored()
          bench.clock.advance(MINUTE)
          askLogicalId(state)
        },
        { cookie: { persistent: moves } },
      ),
  ],
  'unchanged, but due to be renewed': [
    async () =>
      benchOf(async (bench) => {
        await bench.stored()
        bench.clock.advance(10 * MINUTE)
      }),
  ],
  'unchanged, but the first to use a renewed token': [
    async (moves) =>
      benchOf(
        async (bench) => {
          await life.renew(await bench.stored())
          const { record } = bench.state
          const token = bench.state.token()
          if (record === null || token === undefined) throw new Error('nothing was renewed')
          bench.clock.advance(MINUTE)
          const claim = { id: record.id, token, tokenHash: record.tokenHash, isCurrent: true }
          bench.begin({ record, claim, isCopy: false, isCurrentToken: true })
        },
        { cookie: { persistent: moves } },
      ),
  ],
  'unchanged, but a touch is due': [
    async (moves) =>
      benchOf(
        async (bench) => {
          await bench.stored()
          bench.clock.advance(MINUTE)
        },
        { cookie: { persistent: moves } },
      ),
  ],
  unchanged: [
    async (moves) => benchOf((bench) => bench.stored({ isOldSecret: moves })),
    async (moves) =>
      benchOf(async (bench) => {
        const state = await bench.stored()
        state.set('kept', 1)
        bench.clock.advance(MINUTE - 1)
        if (!moves) return
        state.cookieAttributes = { sameSite: 'strict' }
        resendCookie(state)
      }),
  ],
  'renewed, regenerated or logged in by the handler': [
    async () => benchOf(async (bench) => life.renew(await bench.stored())),
    async () => benchOf(async (bench) => life.regenerate(await bench.stored(), 'all')),
    async () => benchOf(async (bench) => life.replaceWithEmpty(await bench.stored())),
    async () => benchOf(async (bench) => login(await bench.stored(), { userId: 'ann', keep: 'all', fields: {} })),
    async () => benchOf((bench) => login(bench.begin('new'), { userId: 'ann', keep: 'all', fields: {} })),
  ],
  'destroyed or logged out by the handler': [
    async () => benchOf(async (bench) => life.destroy(await bench.stored())),
    async () => benchOf(async (bench) => life.logout(await bench.stored())),
    async () =>
      benchOf(async (bench) => {
        const state = await bench.stored()
        state.set('a', 1)
        await life.destroy(state)
      }),
  ],
  'the store is out of reach': [async () => benchOf((bench) => bench.begin('unavailable'))],
}

async function benchOf(act: (bench: Bench) => unknown, options: Partial<SessionOptions> = {}): Promise<Bench> {
  const bench = new Bench(options)
  benches.push(bench)
  await act(bench)
  return bench
}

const benches: Bench[] = []
afterEach(async () => {
  await Promise.all(benches.splice(0).map(({ store }) => store.close()))
})

describe('the commit table', () => {
  test('has a scenario for each row, and a row for each scenario', () => {
    expect(rows.map(({ session }) => session)).toEqual(Object.keys(SCENARIOS))
  })

  test.each(rows)('$session', async ({ session, step, store, cookie }) => {
    for (const [index, begin] of (SCENARIOS[session] ?? []).entries()) {
      for (const moves of cookie === 'when it must move' ? [false, true] : [false]) {
        const found = await (await begin(moves)).commit()
        const [, call] = /^`(\w+)`(?!, at the call)/.exec(store) ?? []
        const kinds: Record<string, string> = { nothing: 'keep', set: 'set', cleared: 'clear' }
        expect({ index, ...found }).toEqual({
          index,
          steps: [step.replaceAll('`', '')],
          calls: call === undefined ? [] : [call],
          cookie: kinds[cookie] ?? (moves ? 'set' : 'keep'),
        })
      }
    }
  })

  test('is the one that the documentation shows', () => {
    const pages = readdirSync(ROOT, { encoding: 'utf8' }).filter((name) => name.endsWith('.md'))
    const docs = join(ROOT, 'docs')
    try {
      const names = readdirSync(docs, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.md'))
      pages.push(...names.map((name) => join('docs', name)))
    } catch {
      // No such folder.
    }
    const tables = pages
      .map((page) => tableIn(readFileSync(join(ROOT, page), 'utf8')))
      .filter((table) => table !== null)
    expect(tables.length).toBeGreaterThan(0)
    for (const table of tables) expect(table).toEqual(rows)
  })
})

describe('the commit', () => {
  test('changed and due to be renewed: both, the change first', async () => {
    const bench = await benchOf(async (b) => {
      ;(await b.stored()).set('a', 1)
      b.clock.advance(10 * MINUTE)
    })
    expect(await bench.commit()).toMatchObject({ steps: ['update', 'renew'], cookie: 'set' })
  })

  test('touches once in a response, however short the touch interval', async () => {
    const bench = await benchOf((b) => b.stored(), { touchInterval: 0 })
    expect((await bench.commit()).steps).toEqual(['touch'])
    expect((await bench.commit()).steps).toEqual(['nothing'])
  })

  test('does not touch what it has written, however short the touch interval', async () => {
    const changed = await benchOf(async (b) => (await b.stored()).set('a', 1), { touchInterval: 0 })
    expect((await changed.commit()).steps).toEqual(['update'])
    const created = await benchOf(async (b) => b.begin('new').set('a', 1), { touchInterval: 0 })
    expect((await created.commit()).steps).toEqual(['create'])
    expect((await created.commit()).steps).toEqual(['nothing'])
  })

  test('keeps a logical ID in passing once: what fails then is left to the next request', async () => {
    const bench = await benchOf(async (b) => askLogicalId(await b.stored()))
    bench.lifecycle.events.on('storeError', () => {})
    bench.store.fail({ kind: 'error', operations: ['update'] })
    expect((await bench.commit()).steps).toEqual(['keep-logical-id'])
    bench.store.repair()
    expect((await bench.commit()).steps).toEqual(['nothing'])
  })

  test.each(['touch', 'renew'] as const)(
    '%s in passing: a store that fails does not fail the response',
    async (step) => {
      const bench = await benchOf(async (b) => {
        await b.stored()
        b.clock.advance(step === 'touch' ? MINUTE : 10 * MINUTE)
      })
      bench.lifecycle.events.on('storeError', () => {})
      bench.store.fail({ kind: 'error', operations: ['touch', 'update'] })
      const { steps, cookie } = await bench.commit()
      expect(steps[0]).toBe(step)
      expect(cookie).toBe('keep')
    },
  )
})
