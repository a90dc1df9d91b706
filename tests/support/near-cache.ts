// A Redis store with a near cache, and another process that writes: what memory answers, and how late that is at worst.
import type { SessionChange, SessionData } from 'sojourn'
import type { RedisSessionStore } from 'sojourn/redis'
import { twinOf } from '../../src/record/at-once.js'
import { until } from './http.js'
import { recordOf } from './records.js'

const HOUR_MS = 3_600_000
/** Whatever a busy machine may take. */
const PATIENCE_MS = 30_000

/** One whose field `n` is a number. */
export function sampleRecord(): SessionData {
  return recordOf({ fields: [['n', '0']] })
}

/** Sets the field `n`. */
export function settingOf(madeOn: SessionData, text: string): SessionChange {
  const at = Date.now()
  const { generation } = madeOn
  return { generation, at, expiresAt: at + HOUR_MS, set: new Map([['n', text]]), madeOn }
}

/** What memory answers, without a promise. */
export function atOnce(store: RedisSessionStore, id: string): SessionData | null | undefined {
  return twinOf(store.get)?.call(store, id)
}

/** Reads a session until memory answers for it. */
export async function keep(store: RedisSessionStore, id: string): Promise<void> {
  await until(async () => {
    await store.get(id).catch(() => {})
    return atOnce(store, id) !== undefined
  }, PATIENCE_MS)
}

/** One process reads a session as fast as it can, another one writes it. */
export class Race {
  /** Answers from memory. */
  hits = 0
  /** Writes that the other process was told of. */
  writes = 0
  /** How late answers were that were later than they may be, in ms. */
  readonly late: number[] = []
  readonly #near: RedisSessionStore
  readonly #other: RedisSessionStore
  readonly #id: string
  readonly #maxAgeMs: number
  /** When the writer was told that it had stored each version. */
  readonly #storedAt = new Map<number, number>()
  #isOver = false
  #running: Promise<unknown> = Promise.resolve()

  constructor({
    near,
    other,
    id,
    maxAgeMs,
  }: { near: RedisSessionStore; other: RedisSessionStore; id: string; maxAgeMs: number }) {
    this.#near = near
    this.#other = other
    this.#id = id
    this.#maxAgeMs = maxAgeMs
  }

  start(): void {
    this.#running = Promise.all([this.#write(), this.#read()])
  }

  async stop(): Promise<void> {
    this.#isOver = true
    await this.#running
  }

  /** Resolves when memory has answered again, and the other process has written. */
  async goesOn(): Promise<void> {
    const { hits, writes } = this
    await until(() => this.hits > hits && this.writes > writes, PATIENCE_MS)
  }

  async #write(): Promise<void> {
    for (let version = 1; !this.#isOver; version++) {
      try {
        const record = await this.#other.get(this.#id)
        if (record !== null) await this.#other.update(this.#id, settingOf(record, String(version)), 3_600)
        // One whose outcome is unknown proves nothing.
        this.#storedAt.set(version, performance.now())
        this.writes++
      } catch {}
      await pause(20)
    }
  }

  async #read(): Promise<void> {
    let isAsking = false
    while (!this.#isOver) {
      const at = performance.now()
      const found = atOnce(this.#near, this.#id)
      if (found) {
        this.hits++
        this.#judge(Number(found.fields.get('n')), at)
      } else if (!isAsking) {
        isAsking = true
        const asked = (): void => {
          isAsking = false
        }
        this.#near.get(this.#id).then(asked, asked)
      }
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  #judge(version: number, at: number): void {
    for (let next = version + 1; next < version + 20; next++) {
      const storedAt = this.#storedAt.get(next)
      if (storedAt === undefined) continue
      if (at - storedAt > this.#maxAgeMs) this.late.push(at - storedAt)
      return
    }
  }
}

/** For a fault to work in. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
