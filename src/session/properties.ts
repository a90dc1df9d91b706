// Fields as properties: what reading, assigning and deleting a property of a session does.
import { SessionError } from '../errors.js'
import { inherited } from './inherited.js'
import { tellShadowed, WATCHES_MEMBERS, watched } from './misread-members.js'
import { type SessionState, STATE } from './state.js'

interface Target {
  [STATE]: SessionState
}

/** Makes every property that is not a member, which is what stands on `prototype`, a field. */
export function propertiesOf(prototype: object): ProxyHandler<Target> {
  const members: ReadonlySet<PropertyKey> = new Set(Object.getOwnPropertyNames(prototype))

  function requireFieldName(name: PropertyKey): asserts name is string {
    if (typeof name !== 'string') throw new SessionError('INVALID_FIELD', 'A field name must be text, not a symbol.')
    if (!members.has(name) && name !== '__proto__') return
    throw new SessionError(
      'INVALID_FIELD',
      `"${name}" is a member of Session and not a field by property; use session.set('${name}', value), ` +
        `session.get('${name}') and session.delete('${name}').${name === 'cookie' ? COOKIE_ADVICE : ''}`,
    )
  }

  const handler: ProxyHandler<Target> = {
    get(target, name, receiver) {
      const state = target[STATE]
      if (typeof name === 'symbol') return Reflect.get(target, name, receiver)
      state.use()
      if (members.has(name) && name !== 'constructor') {
        const member: unknown = Reflect.get(target, name, receiver)
        if (!WATCHES_MEMBERS) return member
        if (state.has(name)) tellShadowed(name, handler.get as () => unknown)
        return typeof member === 'function' ? watched(state, name, member, handler.get as () => unknown) : member
      }
      const value = state.get(name)
      return value === undefined ? inherited(name) : value
    },
    set(target, name, value) {
      requireFieldName(name)
      target[STATE].use()
      target[STATE].set(name, value)
      return true
    },
    has(target, name) {
      target[STATE].use()
      return typeof name === 'string' && target[STATE].has(name)
    },
    deleteProperty(target, name) {
      requireFieldName(name)
      target[STATE].use()
      target[STATE].delete(name)
      return true
    },
    ownKeys(target) {
      target[STATE].use()
      return target[STATE].fields.names()
    },
    getOwnPropertyDescriptor(target, name) {
      target[STATE].use()
      if (typeof name !== 'string' || !target[STATE].has(name)) return undefined
      return { value: target[STATE].get(name), writable: true, enumerable: true, configurable: true }
    },
    defineProperty(target, name, descriptor) {
      requireFieldName(name)
      if (!('value' in descriptor)) {
        throw new SessionError('INVALID_FIELD', `Field ${name.slice(0, 80)} cannot be a getter: a session holds data.`)
      }
      target[STATE].set(name, descriptor.value)
      return true
    },
    preventExtensions() {
      throw new SessionError('INVALID_FIELD', 'A session cannot be frozen or sealed.')
    },
    setPrototypeOf() {
      throw new SessionError('INVALID_FIELD', 'A session has no other prototype than its own.')
    },
  }
  return handler
}

const COOKIE_ADVICE =
  ' Of the cookie itself, set maxAge, expires, sameSite, priority, partitioned or httpOnly; the rest is an option of session().'
