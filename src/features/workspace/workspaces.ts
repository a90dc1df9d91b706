// All workspaces of an application: which session has which, and the end of those whose session is over.
//
// The order of things makes it safe to kill a process anywhere. A session has its workspace's ID before there is a folder, so
// a folder without a session is nobody's. What is over never comes back, so what is found to be nobody's stays so. A folder
// leaves by one step, whoever takes it.

import { randomUUID } from 'node:crypto'
import { isAbsolute, resolve } from 'node:path'
import { didYouMean } from '../../did-you-mean.js'
import { type Duration, milliseconds } from '../../duration.js'
import { invalidArgument, invalidOption, isSessionError, SessionError } from '../../errors.js'
import type { SessionEvents } from '../../events/events.js'
import type { SessionManager, SessionMiddleware } from '../../manager/manager.js'
import { type Drawer, inside } from '../../session/inside.js'
import type { Session } from '../../session/session.js'
import { warnOfFailure } from '../../warn.js'
import type { WriteLimits } from './file-writer.js'
import { isId, Places } from './places.js'
import { explained } from './storage-errors.js'
import { type TellFile, Workspace } from './workspace.js'

/** What `workspaces()` takes. Only `root` is required. */
export interface WorkspacesOptions {
  /**
   * The folder of all workspaces, with an absolute path, for this application alone: what is in it belongs to sessions of its
   * store, and goes with them. It is made if it is not there. Processes on several machines may share it, or have one each.
   */
  readonly root: string
  /**
   * How many bytes the files of one session may have together.
   * @default 100_000_000
   */
  readonly maxBytes?: number | undefined
  /**
   * How many files one session may have.
   * @default 1_000
   */
  readonly maxFiles?: number | undefined
  /**
   * How often the workspaces of sessions that are over are looked for, by one of the processes on this disk. 0 never does; the
   * timer keeps no process alive.
   * @default '10m'
   */
  readonly sweepInterval?: Duration | undefined
  /**
   * Told what fails behind the scenes, where the next sweep tries again.
   * @default a process warning
   */
  readonly onError?: ((error: unknown) => void) | undefined
}

/** What a sweep did. */
export interface SweepResult {
  /** Workspaces whose session was over. */
  readonly removed: number
  /** Workspaces of live sessions. */
  readonly kept: number
  /** Workspaces that were left alone because it could not be told, or the disk failed; the next sweep tries again. */
  readonly failed: number
}

const DRAWER = 'sojourn.workspace'
const DEFAULTS = { maxBytes: 100_000_000, maxFiles: 1_000, sweepInterval: '10m' } as const
const KNOWN = ['root', 'maxBytes', 'maxFiles', 'sweepInterval', 'onError'] satisfies (keyof WorkspacesOptions)[]
/** How often it is looked whether a sweep is due: a process that lives shorter than the interval sweeps as well. */
const LOOKS_PER_INTERVAL = 10
const LONGEST_LOOK_MS = 3_600_000
const PARALLEL = 10

/** By the events of their manager: what a session knows of it. */
const ofManager = new WeakMap<SessionEvents, Workspaces>()

/**
 * Files that belong to sessions: `const ws = await workspaceOf(req.session)`. They go along with `login()`, `reauthenticate()` and
 * `regenerate({ keep: true })`, and are removed with the session, whatever ends it.
 *
 * ```ts
 * const sessions = session({ secret })
 * workspaces(sessions, { root: '/var/lib/shop/workspaces', maxBytes: 50_000_000, maxFiles: 100 })
 * ```
 * @throws {SessionError} `INVALID_OPTION`, also for a store that cannot be gone through
 */
export function workspaces(sessions: SessionManager | SessionMiddleware, options: WorkspacesOptions): Workspaces {
  return new Workspaces(sessions, options)
}

/**
 * The workspace of a session; the first time it is made, and the session stored with what has changed so far.
 *
 * With `create: false`, `null` for a session that has none, and nothing is made or stored.
 * @throws {SessionError} `INVALID_ARGUMENT` where no `workspaces()` was called for these sessions; `SESSION_ENDED`; what
 *   `session.save()` throws; `STORAGE_FULL` and `STORAGE_UNAVAILABLE`
 */
export function workspaceOf(session: Session): Promise<Workspace>
export function workspaceOf(session: Session, options: { create: false }): Promise<Workspace | null>
export async function workspaceOf(session: Session, options: { create?: boolean } = {}): Promise<Workspace | null> {
  const found = ofManager.get(inside(session).events)
  if (found === undefined) {
    throw invalidArgument(
      'These sessions have no workspaces: call workspaces(sessions, { root }) when the application starts.',
    )
  }
  return options.create === false ? found.existing(session) : found.of(session)
}

/** The workspaces of the sessions of one manager. */
export class Workspaces {
  readonly #manager: SessionManager
  readonly #places: Places
  readonly #limits: WriteLimits
  readonly #onError: (error: unknown) => void
  readonly #stopHearing: () => void
  readonly #timer: NodeJS.Timeout | undefined
  /** What follows from endings, by the ID of the session that goes on, or is over. */
  readonly #underWay = new Map<string, Promise<void>>()
  #sweeping: Promise<SweepResult> | undefined

  constructor(sessions: SessionManager | SessionMiddleware, options: WorkspacesOptions) {
    const manager = managerOf(sessions)
    const { root, limits, sweepIntervalMs, onError } = resolveOptions(options)
    if (ofManager.has(manager.events))
      throw invalidOption('These sessions have workspaces already: call workspaces() once.')
    this.#manager = manager
    this.#places = new Places(root)
    this.#limits = limits
    this.#onError = onError
    this.#stopHearing = manager.events.on('ended', ({ id, successor, goesOn }) => {
      if (goesOn && successor !== undefined) this.#follow(successor, () => this.#move(id, successor), id)
      else this.#follow(id, () => this.#removeOf(id), id)
    })
    ofManager.set(manager.events, this)
    if (sweepIntervalMs === 0) return
    const look = Math.min(sweepIntervalMs / LOOKS_PER_INTERVAL, LONGEST_LOOK_MS)
    this.#timer = setInterval(() => void this.#sweepInTurn(sweepIntervalMs).catch(this.#onError), look)
    this.#timer.unref()
  }

  /** See `workspaceOf()`. */
  async of(session: Session): Promise<Workspace> {
    const drawer = inside(session).drawer<string>(DRAWER)
    const known = drawer.get()
    const id = isId(known) ? known : await begin(session, drawer)
    await this.#enter(id, session.id)
    return this.#open(id, session)
  }

  /** The workspace that a session has, or `null`. */
  async existing(session: Session): Promise<Workspace | null> {
    const id = inside(session).drawer<string>(DRAWER).get()
    return isId(id) ? this.of(session) : null
  }

  /** The workspace of a live session, for jobs, which have no request; `null` when it has none, or is over. */
  async find(sessionId: string): Promise<Workspace | null> {
    const found = await this.#manager.drawers.find<string>(sessionId, DRAWER)
    if (found.status !== 'live' || !isId(found.value)) return null
    await this.#enter(found.value, found.id)
    return this.#open(found.value, undefined)
  }

  /**
   * Removes the workspaces of sessions that are over and could not be removed when they ended: since no process ran, or one was
   * killed. Several may do it at once. It never removes what a live session has; when the store does not answer, nothing goes.
   * @throws {SessionError} what the store fails with; `STORAGE_UNAVAILABLE`
   */
  sweep(): Promise<SweepResult> {
    this.#sweeping ??= this.#sweep().finally(() => {
      this.#sweeping = undefined
    })
    return this.#sweeping
  }

  /** Waits for the removals that endings in this process have begun. */
  async settled(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay.values())
  }

  /** For the end of the process: no sweep begins any more, and what was begun is finished. Before the manager is closed. */
  async close(): Promise<void> {
    this.#stopHearing()
    clearInterval(this.#timer)
    ofManager.delete(this.#manager.events)
    await Promise.all([this.settled(), this.#sweeping?.catch(() => {})])
  }

  // --- Inside ---

  #open(id: string, session: Session | undefined): Workspace {
    const tell: TellFile = (type, details) => {
      if (session !== undefined) inside(session).recordActivity(type, details, { keepsLogicalId: false })
    }
    return new Workspace({ id, place: this.#places.of(id), limits: this.#limits, tell })
  }

  /** Makes the folders of a session's workspace if they are not there. */
  async #enter(id: string, sessionId: string): Promise<void> {
    if (!(await this.#places.exists(id))) {
      await this.#places.requireRoot()
      // It may have been removed with its session, which this request does not know of yet.
      const found = await this.#manager.drawers.find<string>(sessionId, DRAWER)
      if (found.status !== 'live' || found.value !== id) {
        throw new SessionError(
          'SESSION_ENDED',
          'The session ended while this request was under way, and its files with it.',
        )
      }
      await this.#places.make(id)
    }
    await this.#places.own(id, sessionId)
  }

  /** Does what follows from an ending, after what followed from the one before. */
  #follow(key: string, task: () => Promise<void>, before: string): void {
    const previous = this.#underWay.get(before) ?? Promise.resolve()
    const work = previous
      .then(task)
      .catch((error) => this.#onError(explained(error)))
      .finally(() => {
        if (this.#underWay.get(key) === work) this.#underWay.delete(key)
      })
    this.#underWay.set(key, work)
  }

  async #move(sessionId: string, successor: string): Promise<void> {
    const id = await this.#places.ownedBy(sessionId)
    if (id === undefined) return
    await this.#places.own(id, successor)
    await this.#places.disown(sessionId)
  }

  async #removeOf(sessionId: string): Promise<void> {
    const id = await this.#places.ownedBy(sessionId)
    if (id === undefined) return
    // The note may be late: the session itself has to be over, and its successor, if it has one, without this workspace.
    const found = await this.#manager.drawers.find(sessionId, DRAWER)
    if (found.status === 'unreadable' || (found.status === 'live' && found.value === id)) return
    await this.#places.remove(id)
    await this.#places.disown(sessionId)
  }

  async #sweepInTurn(intervalMs: number): Promise<void> {
    if (await this.#places.takeTurn(intervalMs)) await this.sweep()
  }

  async #sweep(): Promise<SweepResult> {
    const tally = { removed: 0, kept: 0, failed: 0 }
    // Before the sessions are asked: what is here now was in a session's drawer before.
    const ids = await this.#places.all()
    const uncertain = new Set<string>()
    await inParallel(ids, async (id) => {
      try {
        const verdict = await this.#verdictOf(id)
        if (verdict === 'unknown') uncertain.add(id)
        else if (verdict === 'over') await this.#discard(id, tally)
        else tally.kept++
      } catch (error) {
        tally.failed++
        this.#onError(explained(error))
      }
    })
    if (uncertain.size > 0) await this.#settleByScan(uncertain, tally)
    await this.#places.emptyTrash()
    for (const sessionId of await this.#places.owners()) {
      const id = await this.#places.ownedBy(sessionId)
      if (id === undefined || !(await this.#places.exists(id))) await this.#places.disown(sessionId)
    }
    return tally
  }

  /** What the session that a workspace is known to belong to says of it. */
  async #verdictOf(id: string): Promise<'alive' | 'over' | 'unknown'> {
    const owner = await this.#places.ownerOf(id)
    if (owner === undefined) return 'unknown'
    const found = await this.#manager.drawers.find<string>(owner, DRAWER)
    if (found.status === 'ended') return 'over'
    if (found.status !== 'live' || found.value !== id) return 'unknown'
    await this.#places.own(id, found.id)
    await this.#places.clearAsides(id)
    return 'alive'
  }

  /** Goes through all sessions for the workspaces of which nobody is known. */
  async #settleByScan(uncertain: Set<string>, tally: { removed: number; kept: number; failed: number }): Promise<void> {
    try {
      for await (const { id: sessionId, value } of this.#manager.drawers.scan<string>(DRAWER)) {
        if (!uncertain.has(value)) continue
        // One that has just run out comes, too: this ends it.
        const found = await this.#manager.drawers.find<string>(sessionId, DRAWER)
        if (found.status === 'ended') continue
        uncertain.delete(value)
        tally.kept++
        if (found.status === 'live') await this.#places.own(value, found.id)
      }
    } catch (error) {
      tally.failed += uncertain.size
      if (!isSessionError(error, 'CORRUPT_RECORD')) throw error
      this.#onError(error)
      return
    }
    await inParallel([...uncertain], (id) => this.#discard(id, tally))
  }

  async #discard(id: string, tally: { removed: number; failed: number }): Promise<void> {
    try {
      // Asking about the session may have ended it, and what hears of that removes as well: one of the two is first.
      await this.#places.remove(id)
      tally.removed++
    } catch (error) {
      tally.failed++
      this.#onError(explained(error))
    }
  }
}

/** Gives a session a workspace's ID, and stores it: only then may there be a folder. */
async function begin(session: Session, drawer: Drawer<string>): Promise<string> {
  const id = (await drawer.update((known) => (isId(known) ? known : randomUUID()))) as string
  await session.save()
  return id
}

function managerOf(sessions: SessionManager | SessionMiddleware): SessionManager {
  const manager = 'manager' in sessions ? sessions.manager : sessions
  // By shape, not by class: the manager may come from the package's other build.
  if (typeof manager?.events?.on !== 'function' || typeof manager.drawers?.find !== 'function') {
    throw invalidOption('The sessions are a SessionManager, or the middleware that session() returned.')
  }
  if (manager.store.scan === undefined) {
    throw invalidOption('workspaces() needs a store that can be gone through; this one has no "scan".')
  }
  return manager
}

function resolveOptions(options: WorkspacesOptions): {
  root: string
  limits: WriteLimits
  sweepIntervalMs: number
  onError: (error: unknown) => void
} {
  if (typeof options !== 'object' || options === null) throw invalidOption('workspaces() needs { root }.')
  for (const name of Object.keys(options)) {
    if (!(KNOWN as string[]).includes(name)) {
      throw invalidOption(`There is no option "${name}".${didYouMean(name, KNOWN)}`)
    }
  }
  const { root, maxBytes = DEFAULTS.maxBytes, maxFiles = DEFAULTS.maxFiles, onError } = options
  if (typeof root !== 'string' || !isAbsolute(root)) {
    throw invalidOption(
      'root is the absolute path of a folder for the workspaces alone, such as /var/lib/shop/workspaces.',
    )
  }
  for (const [name, value] of Object.entries({ maxBytes, maxFiles })) {
    if (Number.isSafeInteger(value) && value >= 1) continue
    throw invalidOption(`${name} is ${String(value)}; use a whole number of at least 1.`)
  }
  if (onError !== undefined && typeof onError !== 'function') throw invalidOption('onError is not a function.')
  return {
    root: resolve(root),
    limits: Object.freeze({ maxBytes, maxFiles }),
    sweepIntervalMs: milliseconds(options.sweepInterval ?? DEFAULTS.sweepInterval, 'sweepInterval', 0),
    onError: onError ?? ((error) => warnOfFailure('Something about workspaces', error)),
  }
}

async function inParallel<T>(items: readonly T[], task: (item: T) => Promise<void>): Promise<void> {
  const rest = items.values()
  await Promise.all(
    Array.from({ length: PARALLEL }, async () => {
      for (const item of rest) await task(item)
    }),
  )
}
