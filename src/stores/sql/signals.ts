// The signals of the SQL store: LISTEN and NOTIFY of PostgreSQL. Others have nothing of the kind.
import { createHash, randomUUID } from 'node:crypto'
import type { SessionSignals } from '../../record/signals.js'
import type { SqlDriver } from './driver.js'
import { explained } from './faults.js'
import type { Calls } from './names.js'

/** A notification takes less than 8,000 bytes. */
const LONGEST_PART = 7_800
/** Texts that wait for parts which may never come. */
const MOST_INCOMPLETE = 100
/** More of them no text of ours has. */
const MOST_PARTS = 1_000

/** What the signals are sent over. */
export interface SignalSettings {
  calls(): Promise<Calls> | Calls
  driver(): Promise<SqlDriver>
  /** The name of a table of the store: who shares its tables hears it. */
  readonly table: string
}

/** `SessionSignals` by LISTEN and NOTIFY. */
export class SqlSignals implements SessionSignals {
  readonly #settings: SignalSettings
  readonly #stops = new Set<() => Promise<void>>()
  #place: Promise<string> | undefined

  constructor(settings: SignalSettings) {
    this.#settings = settings
  }

  async send(channel: string, text: string): Promise<void> {
    const { query } = await this.#settings.calls()
    const parts = partsOf(text)
    const sql = `select ${parts.map((_part, index) => `pg_notify($1, $${index + 2})`).join(', ')}`
    await query(sql, [await this.#nameOf(channel), ...parts])
  }

  async listen(channel: string, listener: (text: string) => void): Promise<() => Promise<void>> {
    const driver = await this.#settings.driver()
    const name = await this.#nameOf(channel)
    try {
      const stop = await driver.listen?.(name, joined(listener))
      const stopOnce = async (): Promise<void> => {
        if (this.#stops.delete(stopOnce)) await stop?.()
      }
      this.#stops.add(stopOnce)
      return stopOnce
    } catch (error) {
      throw explained(error)
    }
  }

  async close(): Promise<void> {
    // Of a connection that is lost nobody can take leave.
    await Promise.allSettled([...this.#stops].map((stop) => stop()))
  }

  /** Channels are of the whole database, and have names of at most 63 bytes. */
  async #nameOf(channel: string): Promise<string> {
    this.#place ??= this.#placeOf().catch((error) => {
      this.#place = undefined
      throw error
    })
    const hash = createHash('sha256').update(`${await this.#place}\n${channel}`)
    return `sojourn_${hash.digest('hex').slice(0, 32)}`
  }

  async #placeOf(): Promise<string> {
    const { table } = this.#settings
    if (table.includes('.')) return table
    const { query } = await this.#settings.calls()
    const { rows } = await query('select current_schema() as name', [])
    return `${String(rows[0]?.['name'])}.${table}`
  }
}

/** A text as JSON in ASCII, of which each character is a byte; in several parts that can be told from a whole one if need be. */
function partsOf(text: string): string[] {
  const json = JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
  if (json.length <= LONGEST_PART) return [json]
  const id = randomUUID()
  const count = Math.ceil(json.length / LONGEST_PART)
  return Array.from(
    { length: count },
    (_unused, index) => `${id} ${index} ${count} ${json.slice(index * LONGEST_PART, (index + 1) * LONGEST_PART)}`,
  )
}

/** Takes parts, and tells the texts that they make. */
function joined(listener: (text: string) => void): (payload: string) => void {
  const incomplete = new Map<string, string[]>()
  return (payload) => {
    if (payload.startsWith('"')) return tell(listener, payload)
    const [, id = '', index = '', count = '', part = ''] = /^(\S+) (\d+) (\d+) ([\s\S]*)$/.exec(payload) ?? []
    if (!(Number(index) < Number(count) && Number(count) <= MOST_PARTS)) return
    const parts = incomplete.get(id) ?? []
    parts[Number(index)] = part
    incomplete.set(id, parts)
    if (Object.keys(parts).length === Number(count)) {
      incomplete.delete(id)
      tell(listener, parts.join(''))
    }
    for (const oldest of incomplete.keys()) {
      if (incomplete.size <= MOST_INCOMPLETE) break
      incomplete.delete(oldest)
    }
  }
}

/** Others may send to the channel what is none of ours. */
function tell(listener: (text: string) => void, json: string): void {
  let text: unknown
  try {
    text = JSON.parse(json)
  } catch {
    return
  }
  if (typeof text === 'string') listener(text)
}
