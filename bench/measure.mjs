// Starts the contenders and measures them in turn: A B C A B C …, so that a noisy moment hits all of them alike.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { runLoad } from './load.mjs'
import { median, quartiles } from './statistics.mjs'

/** What a request of each kind of work asks for. */
const PATHS = { none: '/read', read: '/read', write: '/write', all: '/all' }

const children = new Set()

/** Ends the servers that a failure has left behind. */
export function endServers() {
  for (const child of children) child.kill()
}

/** A running server process. */
export class Server {
  #child
  /** Cookie headers by session size. @type {Record<string, string[]>} */
  cookies = {}

  constructor(name, child, port) {
    this.name = name
    this.url = `http://127.0.0.1:${port}`
    this.#child = child
  }

  /** @param {{ redisUrl?: string, packageDirectory: string, isCounted?: boolean, execPath?: string }} setting */
  static async start(name, { execPath = process.execPath, ...setting }, alias = name) {
    const child = fork(fileURLToPath(new URL('server.mjs', import.meta.url)), [name, JSON.stringify(setting)], {
      env: { ...process.env, NODE_ENV: 'production' },
      execPath,
      execArgv: ['--max-old-space-size=8192', ...(process.env.BENCH_NODE_ARGS?.split(' ') ?? [])],
    })
    children.add(child)
    child.once('exit', () => children.delete(child))
    const [{ port }] = await Promise.race([
      once(child, 'message'),
      once(child, 'exit').then(([code]) => Promise.reject(new Error(`${name} ended with code ${code}`))),
    ])
    return new Server(alias, child, port)
  }

  /** What the process has used so far: `{ requests, storeCalls, cpuUs }`. */
  usage() {
    return this.#ask({ ask: 'usage' })
  }

  /** Notes from now on where the process spends its time. */
  async startProfile() {
    await this.#ask({ ask: 'profile' })
  }

  /** What was noted: a profile as the inspector of V8 gives it. */
  async stopProfile() {
    return (await this.#ask({ ask: 'profiled' })).profile
  }

  /** Adds so many sessions to the store. */
  fill(count) {
    return this.#ask({ ask: 'fill', count })
  }

  /** Makes `count` sessions of a size, over HTTP. */
  async seed(size, count) {
    this.cookies[size] ??= []
    const cookies = this.cookies[size]
    const end = cookies.length + count
    while (cookies.length < end) {
      const batch = Array.from({ length: Math.min(16, end - cookies.length) }, (_, index) => cookies.length + index)
      cookies.push(...(await Promise.all(batch.map((n) => this.#seedOne(size, n)))))
    }
  }

  async #seedOne(size, n) {
    const answer = await fetch(`${this.url}/seed?size=${size}&n=${n}`)
    await answer.arrayBuffer()
    const pairs = answer.headers.getSetCookie().map((line) => line.split(';')[0])
    if (answer.status !== 200 || pairs.length === 0) throw new Error(`${this.name} made no session of ${size} KB.`)
    return pairs.join('; ')
  }

  async stop() {
    const exit = once(this.#child, 'exit')
    this.#child.send({ ask: 'stop' })
    await exit
  }

  async #ask(question) {
    const answer = once(this.#child, 'message')
    this.#child.send(question)
    return (await answer)[0]
  }
}

export function urlAndCookies(server, { work, size }) {
  return { url: `${server.url}${PATHS[work]}`, cookies: work === 'none' ? [''] : server.cookies[size] }
}

/**
 * Lets every server compile what it will run. That takes so many requests, not so much time: V8 optimizes what has run often, and
 * the first thousands of requests cost several times what they do later, on a slow machine as on a fast one.
 */
export async function warmUp(servers, { tool, warmUpRequests, sliceMs }) {
  for (const server of servers) {
    const size = Object.keys(server.cookies).sort((a, b) => a - b)[0]
    for (const work of ['none', 'write', 'read']) {
      const load = { tool, ...urlAndCookies(server, { work, size }), ms: sliceMs }
      for (let served = 0; served < warmUpRequests; ) served += (await runLoad(load)).requests
    }
  }
}

/**
 * Measures one piece of work on all servers.
 * @returns {Promise<Record<string, Sample[]>>} by name, one sample a round
 * @typedef {{ cpuUs: number, redisUs: number, perSecond: number, p99Us: number }} Sample
 */
export async function measure(servers, task, { rounds, sliceMs, tool, redis }) {
  const samples = Object.fromEntries(servers.map(({ name }) => [name, []]))
  const load = (server, ms) => runLoad({ tool, ...urlAndCookies(server, task), ms })
  for (const server of servers) await load(server, sliceMs / 2)
  for (let round = 0; round < rounds; round++) {
    for (const server of servers) {
      const redisBefore = await redis.cpuUs()
      const before = await server.usage()
      const { requests, us, p99Us } = await load(server, sliceMs)
      const after = await server.usage()
      const redisAfter = await redis.cpuUs()
      const served = after.requests - before.requests
      samples[server.name].push({
        cpuUs: (after.cpuUs - before.cpuUs) / served,
        redisUs: (redisAfter - redisBefore) / served,
        perSecond: requests / (us / 1e6),
        p99Us,
      })
    }
  }
  return samples
}

/**
 * Each contender beside the bare one: medians over the rounds of the difference or ratio within a round.
 * @returns {Record<string, Row>}
 * @typedef {object} Row
 * @property {number} cpuUs CPU a request
 * @property {number} addedUs of that, over bare Express
 * @property {[number, number]} addedRange the middle half of the rounds
 * @property {number} throughput as a ratio to bare Express
 * @property {number} p99 latency as a ratio to bare Express
 * @property {number} redisUs CPU of redis-server a request
 */
export function compare(samples, baseline = 'bare') {
  const rows = {}
  for (const [name, rounds] of Object.entries(samples)) {
    const base = samples[baseline]
    const added = rounds.map((sample, round) => sample.cpuUs - base[round].cpuUs)
    rows[name] = {
      cpuUs: median(rounds.map(({ cpuUs }) => cpuUs)),
      addedUs: median(added),
      addedRange: quartiles(added),
      throughput: median(rounds.map((sample, round) => sample.perSecond / base[round].perSecond)),
      p99: median(rounds.map((sample, round) => sample.p99Us / base[round].p99Us)),
      redisUs: median(rounds.map(({ redisUs }) => redisUs)),
    }
  }
  return rows
}
