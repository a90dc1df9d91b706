// Browsers that keep an app (app.ts) busy and remember what it acknowledged, for tests of what a fault leaves of that.
import { type Answer, type Client, until } from './http.js'

/** A session that somebody logged in to: its ID, and the cookies that opened it. */
export interface Visit {
  readonly id: string
  readonly user: string
  readonly client: Client
}

/** One session that gets a field with each request, and the names of those that were acknowledged. */
export interface Writer {
  readonly id: string
  readonly client: Client
  readonly written: string[]
}

/** An answer that is no success. */
export interface Failure {
  readonly path: string
  readonly answer: Answer
}

/** How much had been acknowledged at a time; numbers of the lists of `Load`. */
export interface Acknowledged {
  readonly written: readonly number[]
  readonly open: number
  readonly over: number
}

/** How many store calls one request makes at most, one after another. */
const STORE_CALLS: Record<string, number> = { '/set': 4, '/login': 7, '/logout': 5 }
/** A browser is not a flood. */
const PAUSE_MS = 5
const MARGIN_MS = 300

export class Load {
  readonly writers: readonly Writer[]
  /** Sessions that were begun by a login that was acknowledged, and go on. */
  readonly open: Visit[] = []
  /** Sessions whose logout was acknowledged. */
  readonly over: Visit[] = []
  readonly failures: Failure[] = []
  /** Failures to connect, or to get an answer: the process has gone. */
  readonly cutOff: unknown[] = []
  readonly #newClient: () => Client
  readonly #loops: Promise<void>[]
  /** How often each browser got what it asked for. */
  readonly #successes: { writers: number[]; visitors: number[] } = { writers: [], visitors: [] }
  #isOver = false
  #lagMs = 0

  private constructor(writers: readonly Writer[], visitors: number, newClient: () => Client) {
    this.writers = writers
    this.#newClient = newClient
    this.#loops = [
      this.#heart(),
      ...writers.map((writer, index) => this.#write(writer, index)),
      ...Array.from({ length: visitors }, (_unused, index) => this.#visit(index)),
    ]
  }

  /** Begins: so many browsers write, or as many as it takes until `writers` says that they do, and so many log in and out. */
  static async start({
    newClient,
    writers,
    visitors,
  }: {
    newClient: () => Client
    writers: number | ((found: readonly Writer[]) => Promise<boolean>)
    visitors: number
  }): Promise<Load> {
    const found: Writer[] = []
    const suffice =
      typeof writers === 'number' ? async (): Promise<boolean> => found.length >= writers : () => writers(found)
    while (!(await suffice())) {
      const client = newClient()
      const answer = await client.post('/set?begun=1')
      // With `commit: 'after-response'` a cookie comes before its session.
      await until(async () => (await client.get('/peek')).body.includes('begun'))
      if (answer.status === 200) found.push({ id: answer.json<{ id: string }>().id, client, written: ['begun'] })
    }
    return new Load(found, visitors, newClient)
  }

  acknowledged(): Acknowledged {
    return {
      written: this.writers.map(({ written }) => written.length),
      open: this.open.length,
      over: this.over.length,
    }
  }

  /** Resolves when each of these browsers got what it asked for twice, from now on. */
  async progress(who: 'writers' | 'visitors' | 'all' = 'all'): Promise<void> {
    const kinds = who === 'all' ? (['writers', 'visitors'] as const) : [who]
    await Promise.all(
      kinds.map((kind) => {
        const before = [...this.#successes[kind]]
        return until(() => this.#successes[kind].every((count, index) => count >= (before[index] ?? 0) + 2), 20_000)
      }),
    )
  }

  /** Resolves when all have their last answer. */
  async stop(): Promise<void> {
    this.#isOver = true
    await Promise.all(this.#loops)
  }

  /** The failures that took longer than their store calls may, or look like something else than a store that is away. */
  unclearFailures(deadlineMs: number): unknown[] {
    return this.failures
      .map(({ path, answer }) => {
        const calls = STORE_CALLS[path.replace(/\?.*/, '')] as number
        const allowedMs = calls * (deadlineMs + this.#lagMs) + this.#lagMs + MARGIN_MS
        return {
          path,
          status: answer.status,
          retryAfter: answer.headers['retry-after'],
          cookies: answer.setCookies,
          tookTooLong: answer.headAfterMs > allowedMs && answer.headAfterMs,
        }
      })
      .filter(
        ({ status, retryAfter, cookies, tookTooLong }) =>
          status !== 503 || retryAfter !== '1' || cookies.length > 0 || tookTooLong !== false,
      )
  }

  async #write(writer: Writer, index: number): Promise<void> {
    this.#successes.writers[index] = 0
    for (let number = 0; !this.#isOver; number++) {
      const answer = await this.#post(writer.client, `/set?f${number}=1`)
      if (answer?.status !== 200) continue
      writer.written.push(`f${number}`)
      this.#successes.writers[index]++
    }
  }

  /** Logs in, half of the time with a session before; stays or logs out, until that is acknowledged. */
  async #visit(index: number): Promise<void> {
    this.#successes.visitors[index] = 0
    for (let number = 0; !this.#isOver; number++) {
      const client = this.#newClient()
      const user = `visitor-${index}`
      if (number % 4 >= 2 && (await this.#post(client, '/set?cart=1'))?.status !== 200) continue
      const login = await this.#post(client, `/login?user=${user}`)
      if (login?.status !== 200) continue
      const visit = { id: login.json<{ id: string }>().id, user, client: client.clone() }
      const stays = number % 2 === 1
      if (stays) this.open.push(visit)
      else {
        let logout: Answer | null = null
        while (!this.#isOver && logout?.status !== 200) logout = await this.#post(client, '/logout')
        if (logout?.status !== 200) continue
        this.over.push(visit)
      }
      this.#successes.visitors[index]++
    }
  }

  async #post(client: Client, path: string): Promise<Answer | null> {
    const answer = await client.post(path).catch((error: unknown) => {
      this.cutOff.push(error)
      return null
    })
    if (answer !== null && answer.status !== 200) this.failures.push({ path, answer })
    await pause()
    return answer
  }

  /** Notes how late this process is: so much more an answer may take. */
  async #heart(): Promise<void> {
    while (!this.#isOver) {
      const before = performance.now()
      await pause()
      this.#lagMs = Math.max(this.#lagMs, performance.now() - before - PAUSE_MS)
    }
  }
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
}
