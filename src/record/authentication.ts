// What proved who the user of a session is: the methods, by the names of RFC 8176, and the level that they amount to. Kept in a
// field of the session's own, so that it goes where the login goes.
import { invalidArgument } from '../errors.js'
import { ownField } from './hidden-fields.js'
import type { SessionData } from './session-data.js'

/** What proved who the user is. */
export interface Authentication {
  /** By the names of RFC 8176, such as `pwd`, `otp`, `hwk`; empty when the login did not say. */
  readonly methods: readonly string[]
  /** How strong it is all together: what `requireLevel()` looks at. 1 when the login did not say. */
  readonly level: number
  /** When it last was; `undefined` when that cannot be told any more, because a clock was wrong. */
  readonly at: Date | undefined
}

/** What a login or another proof says of itself. */
export interface ProofOptions {
  /**
   * What the user proved it with, by the names of RFC 8176: `pwd`, `otp`, `sms`, `hwk`, `fpt`, … Text of 1 to 40 characters each.
   * @default none
   */
  methods?: readonly string[] | undefined
  /**
   * How strong that is, a whole number from 0 to 9. 0 is no proof at all, such as a cookie that remembers the user.
   * @default how many kinds of factor the methods are of: what one knows, has, or is; at least 1, and at least 2 with `mfa`
   */
  level?: number | undefined
}

/** The field that holds it, as JSON: the level, and the methods. */
export const PROOF = ownField('proof')

const MAX_METHODS = 20
const MAX_METHOD_LENGTH = 40
const MAX_LEVEL = 9

/** RFC 8176, section 2, by what each is a factor of. Others count for nothing by themselves. */
const KINDS: Readonly<Record<string, 'knows' | 'has' | 'is'>> = {
  pwd: 'knows',
  pin: 'knows',
  kba: 'knows',
  otp: 'has',
  sms: 'has',
  tel: 'has',
  swk: 'has',
  hwk: 'has',
  sc: 'has',
  pop: 'has',
  fpt: 'is',
  face: 'is',
  iris: 'is',
  retina: 'is',
  vbm: 'is',
}

type Proof = Pick<Authentication, 'methods' | 'level'>

const UNSAID: Proof = Object.freeze({ methods: Object.freeze([]), level: 1 })

/**
 * What a login says, or `undefined` when it says nothing.
 * @throws {SessionError} `INVALID_ARGUMENT`
 */
export function proofOf({ methods, level }: ProofOptions): Proof | undefined {
  if (methods === undefined && level === undefined) return undefined
  const checked = checkMethods(methods ?? [])
  return { methods: checked, level: level === undefined ? levelOf(checked) : checkLevel(level) }
}

/** What was proved before, and now something more: it is never worth less, unless it says so. */
export function raised(before: Proof | undefined, added: ProofOptions): Proof | undefined {
  const now = proofOf(added)
  if (now === undefined || before === undefined) return now ?? before
  const methods = checkMethods([...new Set([...before.methods, ...now.methods])])
  return { methods, level: added.level === undefined ? Math.max(before.level, levelOf(methods)) : now.level }
}

/** As it is stored. */
export function proofText({ methods, level }: Proof): string {
  return JSON.stringify([level, ...methods])
}

/** What is stored, if a login said something. */
export function storedProof(fields: ReadonlyMap<string, string>): Proof | undefined {
  const text = fields.get(PROOF)
  if (text === undefined) return undefined
  try {
    const [level, ...methods] = JSON.parse(text) as [number, ...string[]]
    return { methods: checkMethods(methods), level: checkLevel(level) }
  } catch {
    // Nobody has proved what cannot be read.
    return { methods: [], level: 0 }
  }
}

/** What proved who the user of a record is; `undefined` when nobody is logged in. */
export function authenticationOf(record: SessionData | null): Authentication | undefined {
  if (record?.userId === undefined) return undefined
  const { methods, level } = storedProof(record.fields) ?? UNSAID
  return Object.freeze({ methods, level, at: record.unproven ? undefined : new Date(record.createdAt) })
}

/** @throws {SessionError} `INVALID_ARGUMENT` */
export function checkLevel(level: unknown): number {
  if (Number.isInteger(level) && (level as number) >= 0 && (level as number) <= MAX_LEVEL) return level as number
  throw invalidArgument(`A level is a whole number from 0 to ${MAX_LEVEL}.`)
}

function checkMethods(methods: unknown): readonly string[] {
  const isValid =
    Array.isArray(methods) &&
    methods.length <= MAX_METHODS &&
    methods.every((name) => typeof name === 'string' && name !== '' && name.length <= MAX_METHOD_LENGTH)
  if (isValid) return Object.freeze([...(methods as string[])])
  throw invalidArgument(
    `methods is a list of at most ${MAX_METHODS} names of RFC 8176, such as ['pwd', 'otp'], each of 1 to ${MAX_METHOD_LENGTH} characters.`,
  )
}

function levelOf(methods: readonly string[]): number {
  const kinds = new Set(methods.map((name) => (Object.hasOwn(KINDS, name) ? KINDS[name] : undefined)))
  kinds.delete(undefined)
  return Math.max(1, kinds.size, methods.includes('mfa') ? 2 : 0)
}
