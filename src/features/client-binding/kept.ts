// What a session keeps of its client: keyed hashes, from which nobody without the secret can tell the values, nor that two sessions
// have the same client. One text of parts with dots between them:
//   a random part, the key's name, one hash for each trait (empty: not kept), and the hash of the strange client told of last.
import { createHmac, type KeyObject, randomBytes } from 'node:crypto'
import { type ClientTrait, type RawClient, TRAITS, traitOf } from './client.js'

/** What followed when a client was told of, and the session went on. */
export type Outcome = 'told' | 'challenged'

/** What a session's text says of the client at hand. */
export interface Verdict {
  /** In what it differs from the one that the session is bound to. */
  readonly changed: readonly ClientTrait[]
  /** Whether the session is to be bound anew: it was with an older key, or not by all that is looked at now. */
  readonly isStale: boolean
  /** Which client this is, for telling of it once. */
  readonly stranger: string
  /** As what this one was told of before, if it was. */
  readonly toldAs: Outcome | undefined
}

const SALT_BYTES = 9
/** Of 43 characters: 132 bits. */
const HASH_LENGTH = 22
const KEY_NAME_LENGTH = 6

/** Of a client that a session is bound to. */
export function boundTo(client: RawClient, on: readonly ClientTrait[], key: KeyObject): string {
  const salt = randomBytes(SALT_BYTES).toString('base64url')
  const hashes = TRAITS.map((trait) => (on.includes(trait) ? hashOf(key, salt, trait, traitOf(trait, client)) : ''))
  return [salt, nameOf(key), ...hashes, ''].join('.')
}

/** The traits that a text holds a hash of. */
export function traitsIn(text: unknown): readonly ClientTrait[] {
  const parts = typeof text === 'string' ? text.split('.') : []
  return parts.length === TRAITS.length + 3 ? TRAITS.filter((_trait, index) => parts[index + 2] !== '') : []
}

/** `null` for what none of these keys has made: nothing is known of the client then. */
export function judge(
  text: string,
  client: RawClient,
  on: readonly ClientTrait[],
  keys: readonly KeyObject[],
): Verdict | null {
  const parts = text.split('.')
  const [salt, keyName] = parts as [string, string]
  const key = keys.find((one) => nameOf(one) === keyName)
  if (key === undefined || parts.length !== TRAITS.length + 3) return null
  const changed: ClientTrait[] = []
  let isComplete = key === keys[0]
  let mayBindAnew = true
  let all = ''
  for (const [index, trait] of TRAITS.entries()) {
    const value = traitOf(trait, client)
    const kept = parts[index + 2]
    const isSame = value !== undefined && kept === hashOf(key, salt, trait, value)
    if (!on.includes(trait)) {
      // Another `clientBinding()` looks at it, and is to see that it has changed.
      if (kept !== '' && !isSame) mayBindAnew = false
      continue
    }
    if (value === undefined) continue
    all += `${trait} ${value}\n`
    if (kept === '') isComplete = false
    else if (!isSame) changed.push(trait)
  }
  if (changed.length === 0) return { changed, isStale: !isComplete && mayBindAnew, stranger: '', toldAs: undefined }
  const stranger = hashOf(key, salt, 'all', all)
  const toldAs = OUTCOMES.find((outcome) => parts.at(-1) === markOf(stranger, outcome))
  return { changed, isStale: false, stranger, toldAs }
}

/** The same text, which says that this client has been told of. */
export function toldOf(text: string, stranger: string, outcome: Outcome): string {
  return text.slice(0, text.lastIndexOf('.') + 1) + markOf(stranger, outcome)
}

const OUTCOMES: readonly Outcome[] = ['told', 'challenged']

function markOf(stranger: string, outcome: Outcome): string {
  return outcome === 'told' ? stranger : `${stranger}!`
}

function hashOf(key: KeyObject, salt: string, what: string, value: string | undefined): string {
  if (value === undefined) return ''
  return createHmac('sha256', key).update(`${salt}.${what}.${value}`).digest('base64url').slice(0, HASH_LENGTH)
}

const names = new WeakMap<KeyObject, string>()

function nameOf(key: KeyObject): string {
  let name = names.get(key)
  if (name === undefined) {
    name = createHmac('sha256', key).update('name').digest('base64url').slice(0, KEY_NAME_LENGTH)
    names.set(key, name)
  }
  return name
}
