// How a field's value becomes text and comes back. The only place that knows the format of application data.
import { SessionError } from '../errors.js'
import { textOf } from './lifetime.js'

/**
 * Turns field values into text and back. Give your own as the `codec` option for richer formats (superjson, devalue,
 * encryption); it works on one field at a time.
 *
 * `decode(encode(value))` must equal `value`, by `isDeepStrictEqual` of `node:util`: that is how a field that was only read is
 * told from one that was altered. The texts may differ each time, as those of an encryption with a random nonce do.
 */
export interface SessionCodec {
  /**
   * `name` is the field's name: bind an encryption to it, and use it in messages. Throws for a value that it cannot keep what
   * the application should see.
   */
  encode(value: unknown, name: string): string
  /** Throws for text that `encode` never made; the field then reads as absent, and `corruptRecord` is told. */
  decode(text: string, name: string): unknown
  /**
   * Whether values that mean the same always have the same text. Texts are compared then instead of values, which is quicker,
   * and sees what deep equality does not, such as private members of a class.
   * @default false
   */
  readonly isDeterministic?: boolean
  /**
   * What the store keeps of an encoded text: the place of encryption, which works on text and leaves the format to the rest.
   * Called once for a text that has changed, and never for a field that was only read. It may draw a nonce.
   */
  seal?(text: string, name: string): string
  /** The text that `seal` was given. Throws for what `seal` never made, or made for a field of another name. */
  open?(text: string, name: string): string
  /**
   * The same codec for one session, whose `seal` and `open` are bound to it: `binding` is a random text that the session keeps
   * for as long as it goes on, under whatever ID. `''`, what the codec itself does, is for sessions from before, and for texts
   * that go from one session to another.
   */
  forSession?(binding: string): SessionCodec
  /**
   * Whether what is kept of the client (address, user agent, referrer, language) is sealed, too.
   * @default false
   */
  readonly sealsContext?: boolean
  /** Whether `seal` would make such a text now. If not, `manager.reencrypt()` makes it anew. */
  isCurrent?(text: string): boolean
}

/**
 * The value of a stored text.
 * @throws what the codec throws
 */
export function decodeStored(codec: SessionCodec, stored: string, name: string): unknown {
  const text = textOf(stored)
  return codec.decode(codec.open === undefined ? text : codec.open(text, name), name)
}

/** How deep objects and arrays may nest in one field before `jsonCodec` refuses them. */
const DEFAULT_MAX_DEPTH = 100

/**
 * The default codec: JSON that loses nothing in silence.
 *
 * Objects with `toJSON` (a `Date`) become what it returns, and a property that is `undefined` is absent, as in
 * `JSON.stringify`. What JSON would drop or bend (BigInt, NaN, Infinity, Map, Set, RegExp, Error, typed arrays,
 * functions, symbols, `undefined` and holes in arrays, cycles, nesting beyond `maxDepth`, default 100) is refused with
 * `INVALID_VALUE` and the path to it.
 */
export function jsonCodec({
  maxDepth = DEFAULT_MAX_DEPTH,
}: {
  maxDepth?: number
} = {}): Omit<SessionCodec, 'decode'> & { decode(text: string): unknown } {
  return {
    isDeterministic: true,
    encode(value, name) {
      return JSON.stringify(keepable(value, name, { maxDepth, parents: [] }))
    },
    decode(text) {
      if (text.length > 2 * maxDepth) refuseDeepText(text, maxDepth)
      try {
        return JSON.parse(text)
      } catch {
        // The parser's own message quotes the text, and nobody's data belongs in a log.
        throw new SessionError('CORRUPT_RECORD', 'A field is not JSON.')
      }
    },
  }
}

interface Walk {
  readonly maxDepth: number
  /** The objects above the present one. */
  readonly parents: object[]
}

/** `value` with every `toJSON` applied; the very same value when there is none. Throws for what JSON cannot keep. */
function keepable(value: unknown, path: string, walk: Walk): unknown {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value
    case 'number':
      if (!Number.isFinite(value)) throw refused(path, String(value), 'store null or text instead')
      return value
    case 'object':
      return value === null ? null : keepableObject(value, path, walk)
    case 'bigint':
      throw refused(path, 'a BigInt', 'store it as text, with String(value)')
    default:
      throw refused(path, `a value of type ${typeof value}`, 'store data only')
  }
}

function keepableObject(value: object, path: string, walk: Walk): unknown {
  if (walk.parents.includes(value)) throw refused(path, 'a reference to an object around it', 'store a tree')
  if (walk.parents.length >= walk.maxDepth) {
    throw new SessionError('INVALID_VALUE', `Field ${path.slice(0, 80)} nests deeper than ${walk.maxDepth} levels.`)
  }
  if ('toJSON' in value && typeof value.toJSON === 'function') {
    const json: unknown = value.toJSON(lastKey(path))
    if (json !== value) return keepable(json, path, { ...walk, parents: [...walk.parents, value] })
  }
  walk.parents.push(value)
  const kept = Array.isArray(value) ? keepableArray(value, path, walk) : keepableProperties(value, path, walk)
  walk.parents.pop()
  return kept
}

function keepableArray(array: unknown[], path: string, walk: Walk): unknown[] {
  let copy: unknown[] | undefined
  for (let index = 0; index < array.length; index++) {
    const item = array[index]
    if (item === undefined) throw refused(`${path}[${index}]`, 'undefined', 'store null instead')
    const kept = isPlain(item) ? item : keepable(item, `${path}[${index}]`, walk)
    if (kept !== item) {
      copy ??= [...array]
      copy[index] = kept
    }
  }
  return copy ?? array
}

function keepableProperties(object: object, path: string, walk: Walk): object {
  const kind = Object.prototype.toString.call(object).slice(8, -1)
  if (UNKEEPABLE.has(kind)) throw refused(path, `a ${kind}`, 'convert it to a plain object or array first')
  if (kind === 'Number' || kind === 'String' || kind === 'Boolean') {
    return keepable((object as { valueOf(): unknown }).valueOf(), path, walk) as object
  }
  let copy: Record<string, unknown> | undefined
  for (const key of Object.keys(object)) {
    const item = (object as Record<string, unknown>)[key]
    if (item === undefined || isPlain(item)) continue
    const kept = keepable(item, `${path}.${key}`, walk)
    if (kept !== item) {
      // Entries, not a spread: a key named __proto__ must stay a key.
      copy ??= Object.fromEntries(Object.entries(object))
      Object.defineProperty(copy, key, { value: kept, enumerable: true, writable: true, configurable: true })
    }
  }
  return copy ?? object
}

/** The values that need no further look. */
function isPlain(value: unknown): boolean {
  return typeof value === 'string' || typeof value === 'boolean' || value === null || Number.isFinite(value)
}

/** What `JSON.stringify` turns into `{}` or into an object of other shape, by its built-in tag. */
const UNKEEPABLE = new Set([
  'Map',
  'Set',
  'WeakMap',
  'WeakSet',
  'WeakRef',
  'RegExp',
  'Error',
  'Promise',
  'ArrayBuffer',
  'SharedArrayBuffer',
  'DataView',
  'Int8Array',
  'Uint8Array',
  'Uint8ClampedArray',
  'Int16Array',
  'Uint16Array',
  'Int32Array',
  'Uint32Array',
  'Float16Array',
  'Float32Array',
  'Float64Array',
  'BigInt64Array',
  'BigUint64Array',
  'Generator',
  'URLSearchParams',
  'Headers',
  'FormData',
  'Blob',
  'File',
  'BigInt',
  'Symbol',
])

/** Text from a store that nests so deep that walking it later would exhaust the stack. */
function refuseDeepText(text: string, maxDepth: number): void {
  let depth = 0
  let inString = false
  for (let index = 0; index < text.length; index++) {
    const char = text.charCodeAt(index)
    if (inString) {
      if (char === 92 /* \ */) index++
      else if (char === 34 /* " */) inString = false
    } else if (char === 34) inString = true
    else if (char === 91 /* [ */ || char === 123 /* { */) {
      depth++
      if (depth > maxDepth) throw new SessionError('CORRUPT_RECORD', `A field nests deeper than ${maxDepth} levels.`)
    } else if (char === 93 /* ] */ || char === 125 /* } */) depth--
  }
}

function lastKey(path: string): string {
  return path.slice(path.lastIndexOf('.') + 1)
}

function refused(path: string, what: string, advice: string): SessionError {
  return new SessionError(
    'INVALID_VALUE',
    `Field ${path.slice(0, 200)} holds ${what}, which JSON cannot keep: ${advice}, or give session() a codec that can.`,
  )
}
