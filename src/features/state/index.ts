// State by category, with versions that can be undone, redone and restored: `sojourn/state`.
//
// Each category is a drawer of the session, so that what is not touched costs nothing; the history is another one. Every change is one
// atomic step on both, and the history is what it stands on: of two that change at once, the second is made on what the first has left.

import { isDeepStrictEqual } from 'node:util'
import { invalidArgument } from '../../errors.js'
import { type DrawerGroup, type Inside, inside } from '../../session/inside.js'
import type { Session } from '../../session/session.js'
import { validate } from '../../session/typed.js'
import { copyOf, frozen, isPlain, type Step, stepsBack, takeStep } from './changes.js'
import {
  type Kind,
  nextOf,
  type StoredHistory,
  stepsTo,
  type Version,
  versionsOf,
  withLabel,
  without,
  withVersion,
} from './history.js'
import {
  categoryOf,
  type DeclaredCategories,
  type ResolvedStateOptions,
  resolveStateOptions,
  type StateCategoryOptions,
  type StateOptions,
  type StateTypes,
} from './options.js'

export type {
  DeclaredCategories,
  StateCategories,
  StateCategory,
  StateCategoryOptions,
  StateOptions,
  StateTypes,
} from './options.js'

/** A value as it is read: nobody can alter it, and TypeScript says so. */
export type StateReading<T> = unknown extends T
  ? T
  : T extends Date | ReadonlyMap<unknown, unknown> | ReadonlySet<unknown> | ((...args: never[]) => unknown)
    ? T
    : T extends readonly (infer Item)[]
      ? readonly StateReading<Item>[]
      : T extends object
        ? { readonly [Key in keyof T]: StateReading<T[Key]> }
        : T

/** What a category holds: any part of its type, or all of it where it has defaults. */
export type StateValue<Types, Defaults, Name extends keyof Types> = Name extends keyof Defaults
  ? Types[Name]
  : Partial<Types[Name]>

/** One version in the history. */
export interface StateVersion {
  readonly version: number
  readonly at: Date
  readonly kind: 'update' | 'undo' | 'redo' | 'restore'
  /** The version that it undoes, redoes or restores. */
  readonly of: number | undefined
  /** Who made it: `by` of the call, or the user of the session; `undefined` when nobody was logged in. */
  readonly by: string | number | undefined
  /** What it changed, each key once. */
  readonly changed: readonly { readonly category: string; readonly key: string }[]
  /** The labels that `snapshot()` gave it. */
  readonly labels: readonly string[]
}

/** Who makes a change. */
export interface StateChangeOptions {
  /**
   * A name of 1 to 200 characters, for the history.
   * @default the user of the session
   */
  readonly by?: string | undefined
}

/**
 * The state of a session by category: read it as it was when the request began, change it in atomic steps, undo and redo.
 *
 * ```ts
 * const state = sessionState(req.session, { categories: { form: Form, view: {} }, defaults: { view: { step: 1 } } })
 * await state.update('form', 'name', 'Ann')
 * await state.undo()
 * ```
 *
 * It is kept in the session and goes where that goes: along with `login()` and `regenerate({ keep: true })`, and away with its end. It
 * is none of its fields, and counts towards `limits`. Give an `options` object that is made once: it is checked once then.
 * @throws {SessionError} `INVALID_OPTION`; `INVALID_ARGUMENT` for what is no session.
 */
export function sessionState<
  const Categories extends StateCategoryOptions = DeclaredCategories,
  const Defaults extends { readonly [Name in keyof Categories]?: StateReading<StateTypes<Categories>[Name]> } = Record<
    never,
    never
  >,
>(
  session: Session,
  options: StateOptions<Categories, Defaults> = NO_OPTIONS as StateOptions<Categories, Defaults>,
): SessionStateByCategory<StateTypes<Categories>, Defaults> {
  return new SessionStateByCategory(session, resolveStateOptions(options as StateOptions))
}

const NO_OPTIONS: StateOptions = Object.freeze({})

/** The drawer of the history; those of the categories begin with it and a dot. */
const HISTORY = 'state'
const EMPTY: StoredHistory = Object.freeze({ v: 0, h: [] })
const MOST_NAME = 200
const MOST_LABEL = 100

type Plain = Record<string, unknown>

/** A category as it is stored. */
interface StoredCategory {
  readonly d: Plain
  /** When it is gone, in milliseconds since the epoch. */
  readonly t?: number
  /** The workflow with which it goes, by its logical ID. */
  readonly w?: string
  /** The login with which it goes: when that was, or 0 before any. */
  readonly l?: number
}

/** Reads drawers, in a step or outside of one. */
type Reader = (drawer: string) => unknown

/** The history at hand, and the categories that are still stored though their time is over. */
interface Present {
  readonly history: StoredHistory
  readonly gone: readonly string[]
}

/** What a change is to make: the new values of categories, by what cause. */
interface Plan {
  readonly kind: Kind
  readonly of?: number
  readonly next: ReadonlyMap<string, Plain>
}

/** What `sessionState()` gives. */
export class SessionStateByCategory<Types, Defaults> {
  readonly #session: Session
  readonly #inside: Inside
  readonly #options: ResolvedStateOptions

  constructor(session: Session, options: ResolvedStateOptions) {
    this.#session = session
    this.#inside = inside(session)
    this.#options = options
  }

  // --- To read ---

  /**
   * All of the state, one category, or one value of it: as it was when the request began, with what this request has changed since.
   * Reading one category decodes no other. What is given cannot be altered: use `update()`.
   * @throws {SessionError} `INVALID_ARGUMENT` for a category that there is not.
   */
  get(): { readonly [Name in keyof Types]: StateReading<StateValue<Types, Defaults, Name>> }
  get<Name extends keyof Types & string>(category: Name): StateReading<StateValue<Types, Defaults, Name>>
  get<Name extends keyof Types & string, Key extends keyof Types[Name] & string>(
    category: Name,
    key: Key,
  ): StateReading<StateValue<Types, Defaults, Name>[Key & keyof StateValue<Types, Defaults, Name>]> | undefined
  get(category?: string, key?: string): unknown {
    if (category === undefined) return frozen(Object.fromEntries(this.#names().map((name) => [name, this.#read(name)])))
    categoryOf(this.#options, category)
    const value = this.#read(category)
    if (key === undefined) return value
    return Object.hasOwn(value, key) ? value[key] : undefined
  }

  /** How many changes there have been: 0 before the first, and one more with each, undo and redo included. */
  get version(): number {
    return this.#stored().v
  }

  /** Whether there is something to undo. */
  get canUndo(): boolean {
    return nextOf(this.#present(this.#reader).history).undo !== undefined
  }

  /** Whether there is something to redo: what was undone, until something else is changed. */
  get canRedo(): boolean {
    return nextOf(this.#present(this.#reader).history).redo !== undefined
  }

  /** The versions that are kept, the newest first. */
  history(): StateVersion[] {
    const { history } = this.#present(this.#reader)
    const labels = history.l ?? []
    return versionsOf(history)
      .map(({ version, at, kind, of, by, steps }) => ({
        version,
        at: new Date(at),
        kind,
        of,
        by: by === true ? this.#session.metadata.userId : by,
        changed: changedBy(steps),
        labels: labels.filter(([, labelled]) => labelled === version).map(([label]) => label),
      }))
      .reverse()
  }

  // --- To change ---

  /**
   * Changes one category, at once and in one atomic step: sets one of its keys (`undefined` removes it), or runs a recipe, which
   * alters the copy that it is given, or returns what is to be in its place. A recipe may be called several times, so it must do nothing
   * else. Resolves to the version, which is the present one when nothing has changed.
   *
   * Requests that change at the same time, in one process or many, get a version each, and each is made on what the one before has left.
   * @throws {SessionError} `VALIDATION_FAILED` with the schema's issues; `INVALID_ARGUMENT`; and as `session.update()`.
   */
  update<Name extends keyof Types & string, Key extends keyof Types[Name] & string>(
    category: Name,
    key: Key,
    value: Types[Name][Key] | undefined,
    options?: StateChangeOptions,
  ): Promise<number>
  update<Name extends keyof Types & string>(
    category: Name,
    recipe: (
      draft: StateValue<Types, Defaults, Name>,
    ) => StateValue<Types, Defaults, Name> | void | Promise<StateValue<Types, Defaults, Name> | void>,
    options?: StateChangeOptions,
  ): Promise<number>
  async update(category: string, first: unknown, second?: unknown, third?: StateChangeOptions): Promise<number> {
    categoryOf(this.#options, category)
    const isRecipe = typeof first === 'function'
    if (!isRecipe && typeof first !== 'string') {
      throw invalidArgument('update() takes a category, and a key with its value, or a function.')
    }
    const recipe = isRecipe ? (first as (draft: Plain) => unknown) : (draft: Plain) => put(draft, first, second)
    const { by } = (isRecipe ? (second as StateChangeOptions | undefined) : third) ?? {}
    const version = await this.#change([category], by, async (_history, before) => ({
      kind: 'update',
      next: new Map([[category, await this.#cooked(category, before(category), recipe)]]),
    }))
    return version ?? this.version
  }

  /** Takes the last change back, whoever made it. Resolves to the version that this makes, or to `null` when there is nothing to undo. */
  undo({ by }: StateChangeOptions = {}): Promise<number | null> {
    return this.#takeBack('undo', by)
  }

  /** Takes the last `undo()` back. Resolves to the version that this makes, or to `null` when there is nothing to redo. */
  redo({ by }: StateChangeOptions = {}): Promise<number | null> {
    return this.#takeBack('redo', by)
  }

  /**
   * Makes the state what it was in a version, given by its number or the label of a snapshot. That is a change as any other, and can be
   * undone. Resolves to the version that this makes, the present one when nothing has to change, or to `null` when the history does not reach
   * there.
   * @throws {SessionError} `INVALID_ARGUMENT` for what is neither a version nor a label.
   */
  async restore(target: number | string, { by }: StateChangeOptions = {}): Promise<number | null> {
    if (typeof target !== 'string' && !(Number.isSafeInteger(target) && target >= 0)) {
      throw invalidArgument('restore() takes the number of a version, or the label of a snapshot.')
    }
    return this.#change(null, by, (history, before) => {
      const version = typeof target === 'number' ? target : history.l?.find(([label]) => label === target)?.[1]
      const steps = version === undefined ? null : stepsTo(history, version)
      return steps && { kind: 'restore', of: version as number, next: takenBack(steps, before) }
    })
  }

  /**
   * Gives the present version a label, to `restore()` by it. Labels of 1 to 100 characters; one that is given again stands for the later
   * version. A snapshot is a name and no copy: it lasts as long as the history reaches back to it, so choose `keep` by that. Resolves
   * to the version.
   * @throws {SessionError} as `session.update()`.
   */
  async snapshot(label: string): Promise<number> {
    if (!isText(label, MOST_LABEL)) throw invalidArgument(`A label is text of 1 to ${MOST_LABEL} characters.`)
    return this.#inside.updateGroup(HISTORY, (drawers) => {
      const { history, gone } = this.#present((name) => drawers.get(name))
      const labelled = withLabel(without(history, gone), label, this.#options)
      write(drawers, labelled, gone)
      return labelled.v
    })
  }

  // --- How it is read ---

  readonly #reader: Reader = (name) => this.#inside.drawer(name).get()

  #stored(read: Reader = this.#reader): StoredHistory {
    return (read(HISTORY) as StoredHistory | undefined) ?? EMPTY
  }

  /** The history without what is gone. */
  #present(read: Reader): Present {
    const stored = this.#stored(read)
    const gone = (stored.t ?? []).filter((name) => this.#live(read, name) === undefined)
    return { history: without(stored, gone), gone }
  }

  #names(): string[] {
    const { categories, defaults } = this.#options
    const names = categories === null ? [...Object.keys(defaults), ...(this.#stored().c ?? [])] : categories.keys()
    return [...new Set(names)]
  }

  #read(category: string): Plain {
    return frozen({ ...this.#defaultsOf(category), ...this.#live(this.#reader, category) })
  }

  #defaultsOf(category: string): Plain {
    const { defaults } = this.#options
    return Object.hasOwn(defaults, category) ? (defaults[category] as Plain) : {}
  }

  /** What is stored of a category, unless its time is over. */
  #live(read: Reader, category: string): Plain | undefined {
    const stored = read(drawerOf(category)) as StoredCategory | undefined
    if (stored === undefined || this.#isGone(stored)) return undefined
    return stored.d
  }

  #isGone({ t, w, l }: StoredCategory): boolean {
    if (t !== undefined && this.#inside.now() >= t) return true
    if (w !== undefined && this.#inside.showLogicalId() !== w) return true
    if (l === undefined) return false
    const { userId, createdAt } = this.#session.metadata
    return l === 0 ? userId !== undefined : createdAt.getTime() !== l
  }

  // --- How it is changed ---

  /**
   * One change as one atomic step. `plan` may be made anew on what somebody else has left, and gives `null` where there is nothing to be done.
   * @param categories those that are to be written, as far as that is known before
   */
  async #change(
    categories: readonly string[] | null,
    by: string | undefined,
    plan: (history: StoredHistory, before: (category: string) => Plain) => Plan | null | Promise<Plan | null>,
  ): Promise<number | null> {
    if (by !== undefined && !isText(by, MOST_NAME)) {
      throw invalidArgument(`by is text of 1 to ${MOST_NAME} characters.`)
    }
    this.#keepWorkflow(categories)
    return this.#inside.updateGroup(HISTORY, async (drawers) => {
      const read: Reader = (name) => drawers.get(name)
      const { history, gone } = this.#present(read)
      const before = (category: string): Plain => this.#live(read, category) ?? {}
      const planned = await plan(history, before)
      if (planned === null) return null
      const steps = [...planned.next].flatMap(([category, after]) => stepsBack(category, before(category), after))
      if (steps.length === 0) return history.v
      const { kind, of } = planned
      const who = by ?? (this.#session.metadata.userId === undefined ? undefined : (true as const))
      const cause = { kind, of, by: who, at: this.#inside.now() }
      const changed = withVersion(history, steps, cause, this.#options)
      write(drawers, this.#withCategories(changed, planned.next), gone)
      for (const [category, after] of planned.next) {
        if (Object.keys(after).length === 0) drawers.delete(drawerOf(category))
        else drawers.set(drawerOf(category), { d: after, ...this.#marksOf(category) })
      }
      return changed.v
    })
  }

  #takeBack(kind: 'undo' | 'redo', by: string | undefined): Promise<number | null> {
    return this.#change(null, by, (history, before) => {
      const version: Version | undefined = nextOf(history)[kind]
      return version === undefined ? null : { kind, of: version.version, next: takenBack(version.steps, before) }
    })
  }

  /** What a recipe makes of a category, as it is to be stored. */
  async #cooked(category: string, stored: Plain, recipe: (draft: Plain) => unknown): Promise<Plain> {
    const defaults = this.#defaultsOf(category)
    const draft = copyOf({ ...defaults, ...stored })
    const made = (await recipe(draft)) ?? draft
    const { schema } = categoryOf(this.#options, category)
    const names = { what: `The category "${category}"`, by: 'sessionState()' }
    const value = schema === undefined ? made : validate(schema, made, names)
    if (!isPlain(value)) throw invalidArgument(`The category "${category}" holds an object with keys, nothing else.`)
    const kept = Object.entries(value).filter(
      ([key, item]) =>
        item !== undefined && (Object.hasOwn(stored, key) || !isDeepStrictEqual(item, own(defaults, key))),
    )
    // What the recipe was given, or has taken from elsewhere, may be altered after it.
    return copyOf(Object.fromEntries(kept))
  }

  /** When a category is gone that is written now. */
  #marksOf(category: string): Omit<StoredCategory, 'd'> {
    const { ttlMs, until } = this.#temporary(category)
    const { userId, createdAt } = this.#session.metadata
    return {
      ...(ttlMs !== undefined && { t: this.#inside.now() + ttlMs }),
      ...(until === 'workflow' && { w: this.#session.logicalId }),
      ...(until === 'login' && { l: userId === undefined ? 0 : createdAt.getTime() }),
    }
  }

  /** The logical ID has to be kept, where something goes with it. */
  #keepWorkflow(categories: readonly string[] | null): void {
    const names = categories ?? [...(this.#options.categories?.keys() ?? [])]
    if (names.some((name) => this.#temporary(name).until === 'workflow')) void this.#session.logicalId
  }

  #withCategories(history: StoredHistory, next: ReadonlyMap<string, Plain>): StoredHistory {
    const names = new Set(history.c)
    for (const [name, value] of next) {
      if (Object.keys(value).length === 0) names.delete(name)
      else names.add(name)
    }
    const c = [...names]
    const t = c.filter((name) => history.t?.includes(name) || this.#isTemporary(name))
    const { t: _before, ...others } = history
    return { ...others, c, ...(t.length > 0 && { t }) }
  }

  #temporary(category: string): { ttlMs?: number | undefined; until?: 'login' | 'workflow' | undefined } {
    return this.#options.categories?.get(category) ?? {}
  }

  #isTemporary(category: string): boolean {
    const { ttlMs, until } = this.#temporary(category)
    return ttlMs !== undefined || until !== undefined
  }
}

function drawerOf(category: string): string {
  return `${HISTORY}.${category}`
}

function write(drawers: DrawerGroup, history: StoredHistory, gone: readonly string[]): void {
  for (const name of gone) drawers.delete(drawerOf(name))
  drawers.set(HISTORY, history)
}

/** The values of the categories that steps lead to. */
function takenBack(steps: readonly Step[], before: (category: string) => Plain): Map<string, Plain> {
  const values = new Map<string, Plain>()
  for (const step of steps) {
    const [category] = step
    const value = values.get(category) ?? copyOf(before(category))
    values.set(category, value)
    takeStep(value, step)
  }
  return values
}

function changedBy(steps: readonly Step[]): { category: string; key: string }[] {
  const seen = new Map<string, { category: string; key: string }>()
  for (const [category, [key]] of steps) seen.set(JSON.stringify([category, key]), { category, key: String(key) })
  return [...seen.values()]
}

function put(draft: Plain, key: string, value: unknown): void {
  Object.defineProperty(draft, key, { value, writable: true, enumerable: true, configurable: true })
}

function own(object: Plain, key: string): unknown {
  return Object.hasOwn(object, key) ? object[key] : undefined
}

function isText(value: unknown, most: number): value is string {
  return typeof value === 'string' && value !== '' && value.length <= most && value.isWellFormed()
}
