// What can be chosen of a session's state, its types, and the checks.
import { didYouMean } from '../../did-you-mean.js'
import { type Duration, milliseconds } from '../../duration.js'
import { invalidArgument, invalidOption } from '../../errors.js'
import type { InferSchemaOutput, StandardSchema } from '../../session/typed.js'
import { copyOf, frozen, isPlain } from './changes.js'

/**
 * The types of your categories, where no schema gives them. Add to it once, and `sessionState()` knows them:
 *
 * ```ts
 * declare module 'sojourn/state' {
 *   interface StateCategories { preferences: { theme: 'light' | 'dark' } }
 * }
 * ```
 */
// biome-ignore lint/suspicious/noEmptyInterface: it is there to be added to
export interface StateCategories {}

/** What a category is, besides its name. */
export interface StateCategory {
  /** Judges what is written to the category: any Standard Schema (zod, valibot, arktype) of an object. What it makes of that is kept. */
  readonly schema?: StandardSchema | undefined
  /**
   * A temporary category: gone at the next `login()` or `reauthenticate()`, or when the workflow ends, which is when the logical ID
   * changes (`completeWorkflow()`, `restart()`, `logicalIdTimeout`).
   * @default as long as the session
   */
  readonly until?: 'login' | 'workflow' | undefined
  /**
   * How long after its last change the category is gone.
   * @default as long as the session
   */
  readonly ttl?: Duration | undefined
}

/** The categories by name: each a schema, or what else is to be said of it, `{}` at least. */
export type StateCategoryOptions = Readonly<Record<string, StandardSchema | StateCategory>>

type AnyObject = Record<string, unknown>

/** The categories of who names none: those of `StateCategories`, or any. */
export type DeclaredCategories = [keyof StateCategories] extends [never]
  ? Readonly<Record<string, StateCategory>>
  : { readonly [Name in keyof StateCategories]: StateCategory }

/** The type of each category: of its schema, as declared, or any object. */
export type StateTypes<Categories> = {
  -readonly [Name in keyof Categories]: Categories[Name] extends StandardSchema
    ? InferSchemaOutput<Categories[Name]>
    : Categories[Name] extends { readonly schema: infer Schema extends StandardSchema }
      ? InferSchemaOutput<Schema>
      : Name extends keyof StateCategories
        ? StateCategories[Name]
        : AnyObject
}

/** What can be chosen. An object that is made once is checked once. */
export interface StateOptions<
  Categories = StateCategoryOptions,
  Defaults = Readonly<Record<string, Readonly<AnyObject> | undefined>>,
> {
  /**
   * Which categories there are. With it, others are refused.
   * @default any
   */
  readonly categories?: Categories | undefined
  /**
   * What a category holds where nothing else was written. Not stored: a later release may have others.
   * @default nothing
   */
  readonly defaults?: Defaults | undefined
  /**
   * How many versions can be undone or restored, at most 1000. 0 keeps no history.
   * @default 20
   */
  readonly keep?: number | undefined
  /**
   * What the history may take, in bytes. Of both bounds the first that is met drops the oldest version.
   * @default 16384
   */
  readonly maxBytes?: number | undefined
}

/** A category as it is worked with. */
export interface ResolvedCategory {
  readonly schema: StandardSchema | undefined
  readonly until: StateCategory['until']
  readonly ttlMs: number | undefined
}

/** The options with their defaults. */
export interface ResolvedStateOptions {
  readonly categories: ReadonlyMap<string, ResolvedCategory> | null
  readonly defaults: Readonly<Record<string, AnyObject>>
  readonly keep: number
  readonly maxBytes: number
}

const DEFAULT_KEEP = 20
const DEFAULT_MAX_BYTES = 16_384
const MOST_VERSIONS = 1000
const LONGEST_NAME = 80
const PERMANENT: ResolvedCategory = { schema: undefined, until: undefined, ttlMs: undefined }

const resolved = new WeakMap<object, ResolvedStateOptions>()

/** @throws {SessionError} `INVALID_OPTION` */
export function resolveStateOptions(options: StateOptions): ResolvedStateOptions {
  const known = resolved.get(options)
  if (known !== undefined) return known
  const { categories, defaults = {}, keep = DEFAULT_KEEP, maxBytes = DEFAULT_MAX_BYTES, ...others } = options
  refuseOthers(others, 'sessionState()', ['categories', 'defaults', 'keep', 'maxBytes'])
  if (!isCount(keep) || keep > MOST_VERSIONS) {
    throw invalidOption(`keep is ${String(keep)}; use a whole number of versions from 0 to ${MOST_VERSIONS}.`)
  }
  if (!isCount(maxBytes)) throw invalidOption(`maxBytes is ${String(maxBytes)}; use a whole number of bytes.`)
  if (!isPlain(defaults)) throw invalidOption('defaults is not an object of categories.')
  for (const [name, value] of Object.entries(defaults)) {
    if (!isPlain(value)) throw invalidOption(`defaults.${name.slice(0, LONGEST_NAME)} is not an object.`)
    if (categories !== undefined && !Object.hasOwn(categories, name)) {
      throw invalidOption(`defaults has a category "${name.slice(0, LONGEST_NAME)}" that categories has not.`)
    }
  }
  const made = Object.freeze({
    categories: categories === undefined ? null : resolveCategories(categories),
    // Frozen when they are read, and the application's own need not be.
    defaults: frozen(copyOf(defaults)) as ResolvedStateOptions['defaults'],
    keep,
    maxBytes,
  })
  resolved.set(options, made)
  return made
}

/**
 * The category of a name.
 * @throws {SessionError} `INVALID_ARGUMENT` for what is no name, or not one of those that there are
 */
export function categoryOf({ categories }: ResolvedStateOptions, name: unknown): ResolvedCategory {
  if (typeof name !== 'string' || name === '' || name.length > LONGEST_NAME || !name.isWellFormed()) {
    throw invalidArgument(`The name of a category is text of 1 to ${LONGEST_NAME} characters.`)
  }
  if (categories === null) return PERMANENT
  const found = categories.get(name)
  if (found !== undefined) return found
  throw invalidArgument(`There is no category "${name}".${didYouMean(name, categories.keys())}`)
}

function resolveCategories(categories: StateCategoryOptions): ReadonlyMap<string, ResolvedCategory> {
  if (!isPlain(categories)) throw invalidOption('categories is not an object of categories by name.')
  return new Map(Object.entries(categories).map(([name, option]) => [name, resolveCategory(name, option)]))
}

function resolveCategory(name: string, option: StandardSchema | StateCategory): ResolvedCategory {
  const label = `categories.${name.slice(0, LONGEST_NAME)}`
  if (isSchema(option)) return { ...PERMANENT, schema: option }
  if (!isPlain(option)) throw invalidOption(`${label} is neither a Standard Schema nor an object such as {}.`)
  const { schema, until, ttl, ...others } = option as StateCategory
  refuseOthers(others, label, ['schema', 'until', 'ttl'])
  if (schema !== undefined && !isSchema(schema)) {
    throw invalidOption(`${label}.schema is not a Standard Schema, such as one of zod, valibot, arktype.`)
  }
  if (until !== undefined && until !== 'login' && until !== 'workflow') {
    throw invalidOption(`${label}.until is ${JSON.stringify(until)}; use 'login' or 'workflow'.`)
  }
  return { schema, until, ttlMs: ttl === undefined ? undefined : milliseconds(ttl, `${label}.ttl`) }
}

function isSchema(value: unknown): value is StandardSchema {
  return typeof (value as Partial<StandardSchema> | null)?.['~standard']?.validate === 'function'
}

function refuseOthers(others: object, of: string, known: readonly string[]): void {
  for (const name of Object.keys(others)) {
    throw invalidOption(`There is no option "${name.slice(0, LONGEST_NAME)}" of ${of}.${didYouMean(name, known)}`)
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}
