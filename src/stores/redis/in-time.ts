// Scripts that do nothing once their caller has given up. Whether it has is judged in Redis, by the clock over there: a server
// that stood still, or a packet that was held up, brings what nobody waits for any more.
import { cameTooLate, requireInTime } from '../../record/store.js'
import { ServerClocks } from '../server-clocks.js'
import { countOf, statusOf } from './replies.js'
import { type Script, TIME } from './scripts.js'

/** One call of such a script. Its first argument, when it is too late, is put before `args`. */
export interface CallInTime<Status extends string> {
  readonly operation: string
  readonly script: Script
  readonly keys: readonly string[]
  readonly args: readonly (string | number)[]
  /** What it may reply, besides that it was too late. */
  readonly statuses: readonly Status[]
  /** By `performance.now()`; `undefined`: whenever. */
  readonly notAfter: number | undefined
}

/** How scripts are sent. */
export interface ScriptSender {
  run(script: Script, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown>
  /** A name for the server that has a key. */
  serverOf(key: string): Promise<string>
}

/** Runs scripts of `IN_TIME`. */
export class ScriptsInTime {
  readonly #sender: ScriptSender
  readonly #clocks = new ServerClocks()

  constructor(sender: ScriptSender) {
    this.#sender = sender
  }

  /** @throws {SessionError} `STORE_TIMEOUT` when it came too late: it has not been done, and will not be. */
  async call<Status extends string>(call: CallInTime<Status>): Promise<[status: Status, ...rest: unknown[]]> {
    const { operation, script, keys, args, statuses, notAfter } = call
    requireInTime(operation, notAfter)
    const [key = ''] = keys
    const server = await this.#sender.serverOf(key)
    for (let isSecond = false; ; isSecond = true) {
      const until = notAfter === undefined ? '' : await this.#timeAt(server, key, notAfter)
      const [status, ...rest] = await this.#ask({ server, operation, script, keys, args: [until, ...args] }, statuses)
      if (status !== 'late') return [status, ...rest]
      // Its clock was set since it last told us the time. Now it has told us anew.
      if (isSecond || notAfter === undefined || performance.now() >= notAfter) throw cameTooLate(operation)
    }
  }

  async #timeAt(server: string, key: string, moment: number): Promise<number> {
    const known = this.#clocks.timeAt(server, moment)
    if (known !== null) return known
    await this.#ask({ server, operation: 'time', script: TIME, keys: [key], args: [''] }, ['now'])
    // When that took most of the time that there was, what is left is not worth asking again for.
    return this.#clocks.timeAt(server, moment) ?? 0
  }

  async #ask<Status extends string>(
    {
      server,
      operation,
      script,
      keys,
      args,
    }: Pick<CallInTime<Status>, 'operation' | 'script' | 'keys' | 'args'> & {
      server: string
    },
    statuses: readonly Status[],
  ): Promise<[status: Status | 'late', ...rest: unknown[]]> {
    const sentAt = performance.now()
    const reply = await this.#sender.run(script, keys, args)
    const [status, time, ...rest] = statusOf(reply, [...statuses, 'late' as const], operation)
    this.#clocks.note(server, { time: countOf(time, operation), sentAt })
    return [status, ...rest]
  }
}
