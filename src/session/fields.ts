// The application's fields of one session in one request: decoded when read, compared only when touched.
import { isDeepStrictEqual } from 'node:util'
import { SessionError } from '../errors.js'
import { BINDING } from '../record/binding.js'
import type { SessionCodec } from '../record/codec.js'
import { isHiddenField, requireOwnField } from '../record/hidden-fields.js'
import { endOf, isPast, textOf, withEnd } from '../record/lifetime.js'
import { type SessionLimits, sizeError } from '../record/limits.js'
import { unitsOfFields } from '../record/session-data.js'

/** The fields that a commit writes and removes. */
export interface FieldChanges {
  readonly set: ReadonlyMap<string, string>
  readonly delete: readonly string[]
}

/** A field that this request has read or assigned. */
interface TouchedField {
  /** The present value; `undefined` when the field was deleted. */
  value: unknown
  /** The encoded text of what is stored, or was when it was read. */
  text: string | undefined
  /** A text of this field as the store keeps it, when that is another one: sealed once, however often it is asked for. */
  sealed?: { readonly text: string; readonly stored: string }
  /** The text of a value that was assigned and that nobody can alter: encoding it once is enough. */
  readonly encoded?: string
  /** Whether the value may have changed: it was assigned, or it is an object that the caller may have altered. */
  suspect: boolean
  /** When the field is over, if it does not stay. */
  endsAt?: number | undefined
  /** The schema that has seen this value, see `adopt()`. */
  schema?: object
  /** Where `value` is what a schema made of another: that other value and its text, which stay while nothing is altered. */
  input?: { readonly value: unknown; readonly text: string | undefined; readonly outputText: string | undefined }
}

const NO_FIELDS: ReadonlyMap<string, string> = new Map()
/** Equal to nothing that a codec gives. */
const UNREADABLE = Symbol('unreadable')
/** Stands for what is stored and cannot be opened. No codec encodes to it. */
const UNOPENED = '\u0000'
const NO_CHANGES: FieldChanges = { set: new Map(), delete: [] }

interface Clock {
  /** Milliseconds since the epoch. */
  now(): number
}

/** What `Fields` are made of. */
interface FieldsOptions {
  codec: SessionCodec
  limits: SessionLimits
  stored?: ReadonlyMap<string, string> | undefined
  /** Whose time it is by which fields are over; default the system's. */
  clock?: Clock
  /** What a session that is not stored yet is to be bound to, where the codec binds texts. */
  binding?: string | undefined
  onCorrupt: (field: string, cause: unknown) => void
}

/** A live view of encoded fields. Reading decodes one field; nothing else is looked at until it is touched. */
export class Fields {
  readonly #base: SessionCodec
  readonly #newBinding: string | undefined
  #codec: SessionCodec
  readonly #limits: SessionLimits
  readonly #onCorrupt: (field: string, cause: unknown) => void
  readonly #clock: Clock
  #stored: ReadonlyMap<string, string>
  #touched = new Map<string, TouchedField>()
  /** Whether this request has met a field that does not stay. */
  #knowsEnds = false

  constructor(options: FieldsOptions) {
    this.#base = options.codec
    this.#codec = options.codec
    this.#newBinding = options.binding
    this.#limits = options.limits
    this.#clock = options.clock ?? Date
    this.#stored = options.stored ?? NO_FIELDS
    this.#onCorrupt = options.onCorrupt
    if (this.#base.forSession !== undefined) this.#codec = this.#base.forSession(this.binding ?? '')
  }

  /** The codec of these fields. */
  get codec(): SessionCodec {
    return this.#codec
  }

  /** What these fields are bound to, if they are. */
  get binding(): string | undefined {
    return this.#stored.get(BINDING) ?? this.#newBinding
  }

  get(name: string): unknown {
    const touched = this.#touched.get(name)
    if (touched) return this.#isOver(touched.endsAt) ? undefined : touched.value
    const stored = this.#stored.get(name)
    if (stored === undefined) return undefined
    const endsAt = endOf(stored)
    if (this.#isOver(endsAt)) return undefined
    let text = UNOPENED
    let value: unknown
    try {
      text = this.#open(stored, name)
      value = this.#codec.decode(text, name)
    } catch (cause) {
      // Set aside: the field reads as absent and stays in the store as it is until it is assigned.
      this.#onCorrupt(name, cause)
      value = undefined
    }
    const suspect = typeof value === 'object' && value !== null
    this.#touched.set(name, endsAt === undefined ? { value, text, suspect } : { value, text, suspect, endsAt })
    return value
  }

  /** Whether a field is stored that cannot be read, and was not assigned since: `get()` says that there is none. */
  isUnreadable(name: string): boolean {
    if (this.get(name) !== undefined) return false
    const touched = this.#touched.get(name)
    // What was deleted is suspect.
    return touched !== undefined && !touched.suspect && !this.#isOver(touched.endsAt)
  }

  /** When a field is over that does not stay. */
  endOf(name: string): number | undefined {
    const touched = this.#touched.get(name)
    const endsAt = touched ? touched.endsAt : endOf(this.#stored.get(name))
    return this.#isOver(endsAt) ? undefined : endsAt
  }

  has(name: string): boolean {
    const touched = this.#touched.get(name)
    if (touched) return touched.value !== undefined && !this.#isOver(touched.endsAt)
    const stored = this.#stored.get(name)
    return stored !== undefined && !this.#isOver(endOf(stored))
  }

  /**
   * @param endsAt when the field is over; default: it stays
   * @throws {SessionError} `INVALID_FIELD`, `INVALID_VALUE` or `SESSION_TOO_LARGE`; the old value stays.
   */
  set(name: string, value: unknown, endsAt?: number): void {
    if (value === undefined) {
      this.delete(name)
      return
    }
    if (typeof name !== 'string' || !name.isWellFormed()) {
      throw new SessionError('INVALID_FIELD', 'A field name must be a string of well-formed Unicode.')
    }
    const text = this.#codec.encode(value, name)
    this.#checkLimits(name, text)
    const isObject = typeof value === 'object' && value !== null
    if (endsAt !== undefined) this.#knowsEnds = true
    const stays = endsAt === undefined && endOf(this.#stored.get(name)) === undefined
    this.#touched.set(name, {
      value,
      // The same value with another end is to be written as well.
      text: stays ? this.#storedText(name) : UNOPENED,
      suspect: true,
      ...(!isObject && { encoded: text }),
      ...(endsAt !== undefined && { endsAt }),
    })
  }

  delete(name: string): boolean {
    const existed = this.has(name)
    if (existed || this.#stored.has(name)) {
      this.#touched.set(name, { value: undefined, text: this.#storedText(name), suspect: true })
    }
    return existed
  }

  clear(): void {
    for (const name of this.names()) this.delete(name)
  }

  /** Takes each property of an object as a field. */
  setAll(values: Record<string, unknown>): void {
    for (const [name, value] of Object.entries(values)) {
      requireOwnField(name)
      this.set(name, value)
    }
  }

  /** The names of the application's fields. */
  names(): string[] {
    return this.allNames().filter((name) => !isHiddenField(name))
  }

  /** With those that features keep. */
  allNames(): string[] {
    const names: string[] = []
    for (const name of this.#stored.keys()) if (this.has(name)) names.push(name)
    for (const [name, field] of this.#touched) {
      if (field.value !== undefined && !this.#stored.has(name)) names.push(name)
    }
    return names
  }

  /** The schema whose output this field holds, if any. */
  schemaOf(name: string): object | undefined {
    return this.#touched.get(name)?.schema
  }

  /** The value for a schema to validate: not what a schema has made of it, unless that was altered since. */
  input(name: string): unknown {
    const value = this.get(name)
    const field = this.#touched.get(name)
    return field?.input && this.#isAsMade(name, field) ? field.input.value : value
  }

  /** Takes `value`, which `schema` made of the field, as what the field holds. Only later alterations of it count. */
  adopt(name: string, value: unknown, schema: object): void {
    const field = this.#touched.get(name)
    // The same object stays, since others may hold it, when the schema did no more than copy it.
    if (field && isDeepStrictEqual(field.value, value)) {
      field.schema = schema
      return
    }
    const { text, suspect, endsAt } = field ?? { text: this.#storedText(name), suspect: false }
    this.#touched.set(name, {
      value,
      text,
      suspect: suspect || (typeof value === 'object' && value !== null),
      endsAt,
      schema,
      input: {
        value: this.input(name),
        text: field && suspect ? this.#encode(name, field) : text,
        outputText: this.#textOf(name, { value }),
      },
    })
  }

  /**
   * What has to be written for this one field, changed or not.
   * @throws {SessionError} `INVALID_VALUE` or `SESSION_TOO_LARGE`.
   */
  changeOf(name: string): FieldChanges {
    const field = this.#touched.get(name)
    const text = field ? this.#seal(name, field, this.#encode(name, field)) : this.#stored.get(name)
    const change =
      text === undefined ? { set: NO_FIELDS, delete: [name] } : { set: new Map([[name, text]]), delete: [] }
    this.#checkTotal(change)
    return change
  }

  /** Takes other stored fields as the base, and this one field's value from them. */
  refresh(name: string, stored: ReadonlyMap<string, string>): void {
    this.#takeStored(stored)
    this.#touched.delete(name)
  }

  /** Whether this field was assigned or altered. */
  isChanged(name: string): boolean {
    const field = this.#touched.get(name)
    return field?.suspect === true && this.#encode(name, field) !== field.text
  }

  /** Whether any field differs from what the store holds. A value that can no longer be encoded counts as different. */
  isModified(): boolean {
    try {
      return this.changes() !== null
    } catch {
      return true
    }
  }

  /**
   * What a commit has to write, or `null` when that is nothing.
   * @throws {SessionError} `INVALID_VALUE` or `SESSION_TOO_LARGE`, for objects that were altered after they were set.
   */
  changes(): FieldChanges | null {
    let changes: { set: Map<string, string>; delete: string[] } | null = null
    for (const [name, field] of this.#touched) {
      if (!field.suspect) continue
      const text = this.#encode(name, field)
      if (text === field.text) continue
      changes ??= { set: new Map(), delete: [] }
      const stored = this.#seal(name, field, text)
      if (stored === undefined) changes.delete.push(name)
      else changes.set.set(name, stored)
    }
    if (changes !== null) this.#checkTotal(changes)
    return changes
  }

  /** Every field as it is stored once `changes` are. */
  all(changes: FieldChanges): ReadonlyMap<string, string> {
    if (this.#stored.size === 0) return changes.set
    const all = new Map<string, string>()
    this.#eachText(changes, (name, text) => all.set(name, text))
    return all
  }

  /** The changes were written: from now on they are what is stored. */
  committed(changes: FieldChanges, stored: ReadonlyMap<string, string>): void {
    this.#takeStored(stored)
    // The handler may have gone on while the write was under way: only the text to compare with moves.
    for (const name of changes.delete) this.#rebase(name, undefined)
    for (const [name, text] of changes.set) this.#rebase(name, text)
  }

  /** Starts over from other stored fields, forgetting every local change. */
  reset(stored: ReadonlyMap<string, string>): void {
    this.#takeStored(stored)
    this.#touched = new Map()
  }

  /** Stored fields whose end has come, as they are stored; none where no field that ends was met. */
  overdue(): [name: string, stored: string][] {
    if (!this.#knowsEnds) return []
    return [...this.#stored].filter(([name, stored]) => !this.#touched.has(name) && this.#isOver(endOf(stored)))
  }

  #takeStored(stored: ReadonlyMap<string, string>): void {
    const before = this.binding
    this.#stored = stored
    if (this.binding !== before) this.#codec = this.#base.forSession?.(this.binding ?? '') ?? this.#base
  }

  #isOver(endsAt: number | undefined): boolean {
    if (endsAt === undefined) return false
    this.#knowsEnds = true
    return isPast(endsAt, this.#clock.now())
  }

  #rebase(name: string, stored: string | undefined): void {
    const field = this.#touched.get(name)
    if (field === undefined) return
    const text = stored === undefined ? undefined : textOf(stored)
    field.text = field.sealed !== undefined && field.sealed.stored === text ? field.sealed.text : text
  }

  /** The encoded text of what is stored. */
  #storedText(name: string): string | undefined {
    const stored = this.#stored.get(name)
    if (stored === undefined) return undefined
    if (this.#codec.open === undefined) return textOf(stored)
    try {
      return this.#open(stored, name)
    } catch {
      return UNOPENED
    }
  }

  #open(stored: string, name: string): string {
    const text = textOf(stored)
    return this.#codec.open === undefined ? text : this.#codec.open(text, name)
  }

  /** What the store is to keep of the text that a field has now: what it keeps already, when that is the same. */
  #seal(name: string, field: TouchedField, text: string | undefined): string | undefined {
    if (text === undefined) return undefined
    if (text === field.text) return this.#stored.get(name)
    if (this.#codec.seal === undefined) return withEnd(text, field.endsAt)
    if (field.sealed?.text !== text) field.sealed = { text, stored: this.#codec.seal(text, name) }
    return withEnd(field.sealed.stored, field.endsAt)
  }

  /** The text of a field now: the very one that is stored when that says the same. */
  #encode(name: string, field: TouchedField): string | undefined {
    const { input, text } = field
    if (input === undefined) return this.#textOf(name, field, text)
    const output = this.#textOf(name, field, input.outputText)
    if (output === input.outputText) return input.text
    // What was altered may be what is stored again.
    return this.#codec.isDeterministic ? output : this.#textOf(name, field, text)
  }

  #isAsMade(name: string, field: TouchedField): boolean {
    return field.input !== undefined && this.#textOf(name, field, field.input.outputText) === field.input.outputText
  }

  /** The text of a value: `known` when that stands for it, else a new one. */
  #textOf(
    name: string,
    { value, encoded }: Pick<TouchedField, 'value' | 'encoded'>,
    known?: string,
  ): string | undefined {
    if (value === undefined) return undefined
    const codec = this.#codec
    if (codec.isDeterministic) return encoded ?? codec.encode(value, name)
    if (known === undefined) return encoded ?? codec.encode(value, name)
    // Where equal values may have different texts, only what the texts stand for can be compared.
    const before = this.#decoded(known, name)
    if (isDeepStrictEqual(before, value)) return known
    const text = encoded ?? codec.encode(value, name)
    // What comes back may differ from what was assigned: a Date may come back as text.
    return text === known || (before !== UNREADABLE && isDeepStrictEqual(before, this.#decoded(text, name)))
      ? known
      : text
  }

  #decoded(text: string, name: string): unknown {
    try {
      return this.#codec.decode(text, name)
    } catch {
      return UNREADABLE
    }
  }

  #checkLimits(name: string, text: string): void {
    const bytes = Buffer.byteLength(name) + Buffer.byteLength(text)
    if (bytes > this.#limits.maxBytes) throw sizeError(`Field ${name.slice(0, 80)} takes ${bytes} bytes`, this.#limits)
    if (!this.has(name) && this.allNames().length >= this.#limits.maxFields) {
      throw sizeError(`Field ${name.slice(0, 80)} would be one too many`, this.#limits)
    }
  }

  /**
   * By what this request has read: the store decides by what it has then. A session that is over its limits, because they were
   * higher once, may be made smaller.
   */
  #checkTotal(changes: FieldChanges): void {
    const { maxBytes, maxFields } = this.#limits
    const { bytes, count } = this.#sizeWith(changes)
    if (bytes <= maxBytes && count <= maxFields) return
    const stored = this.#sizeWith(NO_CHANGES)
    if (bytes > Math.max(maxBytes, stored.bytes)) throw sizeError(`The session takes ${bytes} bytes`, this.#limits)
    if (count > Math.max(maxFields, stored.count)) throw sizeError(`The session has ${count} fields`, this.#limits)
  }

  #sizeWith(changes: FieldChanges): { bytes: number; count: number } {
    const stored = this.#stored
    let count = stored.size
    let units = unitsOfFields(stored)
    for (const name of changes.delete) {
      const before = changes.set.has(name) ? undefined : stored.get(name)
      if (before === undefined) continue
      count--
      units -= name.length + before.length
    }
    for (const [name, text] of changes.set) {
      const before = stored.get(name)
      if (before === undefined) count++
      units += before === undefined ? name.length + text.length : text.length - before.length
    }
    // A UTF-16 unit takes at most three bytes: exact ones matter only near the limit.
    if (units * 3 <= this.#limits.maxBytes) return { bytes: units, count }
    let bytes = 0
    this.#eachText(changes, (name, text) => {
      bytes += Buffer.byteLength(name) + Buffer.byteLength(text)
    })
    return { bytes, count }
  }

  /** Calls `visit` with every field as it will be stored. */
  #eachText(changes: FieldChanges, visit: (name: string, text: string) => void): void {
    for (const [name, text] of this.#stored) {
      if (!changes.set.has(name) && !changes.delete.includes(name)) visit(name, text)
    }
    for (const [name, text] of changes.set) visit(name, text)
  }
}
