// What takes long is done beside this thread: a worker with a connection of its own to the same file removes rows and writes back what
// stands in the log. Its steps are short, since while one writes nobody else can.
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import { Worker } from 'node:worker_threads'
import type { Removal } from '../driver.js'

/** A file, and the module that opens it. */
export interface SqliteFile {
  readonly path: string
  readonly module: string
}

/** The members of a connection that are called. */
interface Connection {
  prepare(sql: string): { all(): unknown }
}

/** Where a connection leads, if another thread can open the same: not to memory, nor with Bun's client. */
export function fileOf(database: Connection): SqliteFile | null {
  const [main] = database.prepare('pragma database_list').all() as { file?: unknown }[]
  const path = main?.file
  if (typeof path !== 'string' || !existsSync(path)) return null
  const module = database.constructor.name === 'DatabaseSync' ? 'node:sqlite' : moduleOf(database.constructor)
  return module === null ? null : { path: resolve(path), module }
}

/** The file that a class was loaded from: where an application has its packages is not known here. */
function moduleOf(opens: unknown): string | null {
  const { cache } = createRequire(resolve('any.js'))
  const module = Object.values(cache).find((each) => each?.exports === opens)
  return module?.filename ?? null
}

/**
 * Removes rows in a thread of its own. Resolves to how many of each, or to `null` when the file could not be opened there and
 * nothing was done.
 */
export function removeInWorker(
  { path, module }: SqliteFile,
  removals: readonly Removal[],
  signal: AbortSignal,
): Promise<readonly number[] | null> {
  const flag = new Int32Array(new SharedArrayBuffer(4))
  const stop = (): void => {
    Atomics.store(flag, 0, 1)
    Atomics.notify(flag, 0)
  }
  return new Promise<readonly number[] | null>((settle, reject) => {
    let worker: Worker
    try {
      worker = new Worker(SOURCE, { eval: true, workerData: { path, module, removals, flag, ...PACE } })
    } catch {
      // Threads are forbidden here.
      settle(null)
      return
    }
    if (signal.aborted) stop()
    signal.addEventListener('abort', stop)
    let removed: readonly number[] | null = null
    worker.on('message', (told: readonly number[]) => {
      removed = told
    })
    worker.on('error', reject)
    worker.on('exit', () => settle(removed))
  }).finally(() => signal.removeEventListener('abort', stop))
}

/** How much is done at a time. */
const PACE = {
  /** Rows that one step looks at. */
  rows: 100,
  /** Steps that write between two times that the log is written back: before another connection would, within a commit. */
  steps: 8,
  /** How long a lock of others is waited for. */
  busyMs: 5_000,
}

/** A text, so that no bundler has to find a file. On Deno it stands beside a `module` of its own. */
const SOURCE = `
'use strict'
const { parentPort, workerData } = require('node:worker_threads')
const { path, module: client, removals, flag, rows, steps, busyMs } = workerData
const isStopped = () => Atomics.load(flag, 0) !== 0
const open = () => {
  try {
    const found = require(client)
    const database = new (client === 'node:sqlite' ? found.DatabaseSync : found)(path)
    database.exec('pragma busy_timeout = ' + busyMs)
    // What is lost of it is removed the next time.
    database.exec('pragma synchronous = normal')
    database.exec('pragma wal_autocheckpoint = 0')
    return database
  } catch {
    return null
  }
}
const database = open()
let written = 0
const writeBack = () => {
  written = 0
  database.prepare('pragma wal_checkpoint(passive)').all()
}
const remove = ({ end, some, all }) => {
  const [endOf, has, removeThem] = [end, some, all].map((sql) => database.prepare(sql))
  let removed = 0
  for (let start = -1; start !== null && !isStopped(); ) {
    const began = performance.now()
    const [row] = endOf.all(start, rows - 1)
    const last = row === undefined ? null : Number(row.last)
    const range = [start, last === null ? Number.MAX_SAFE_INTEGER : last]
    // To look takes no lock.
    if (has.all(...range).length > 0) {
      removed += Number(removeThem.run(...range).changes)
      written++
    }
    if (written >= steps) writeBack()
    start = last
    // Others have their turn, as long as this one was.
    Atomics.wait(flag, 0, 0, performance.now() - began)
  }
  return removed
}
if (database !== null) {
  const counts = removals.map(remove)
  writeBack()
  database.close()
  parentPort.postMessage(counts)
}
`
