// Makes the inside of a session, for features: see inside.ts for what it promises.
import { createSecretKey, hkdfSync, type KeyObject } from 'node:crypto'
import { invalidArgument } from '../errors.js'
import { type Activity, type ActivityRequest, checkActivity, recordActivity } from '../events/activity-hook.js'
import type { SessionEvents } from '../events/events.js'
import { resealed } from '../record/binding.js'
import { decodeStored } from '../record/codec.js'
import { hiddenField, isHiddenField, isOwnField } from '../record/hidden-fields.js'
import { endOf, isPast } from '../record/lifetime.js'
import { updateField, updateFieldGroup } from './atomic-update.js'
import { NO_CHANGES } from './commit.js'
import { Fields } from './fields.js'
import type { Drawer, DrawerGroup, Inside } from './inside.js'
import { replaceWith, revoke } from './life.js'
import { askLogicalId, showLogicalId } from './logical-id.js'
import { doubtProof } from './proof.js'
import { endsWithLogin, fieldsLeftBehind, fieldsOfLogin, staysBehind } from './protection.js'
import type { SessionState } from './state.js'

const MAX_NAME_LENGTH = 100
const KEY_BYTES = 32
/** Room for changes of how keys are derived, without two purposes ever having the same key. */
const KEY_VERSION = 'sojourn keys 1'

/** What `sharedKeys()` has derived, by the list of secrets and the purpose. */
const sharedKeys = new WeakMap<readonly KeyObject[], Map<string, readonly KeyObject[]>>()

export class Insider implements Inside {
  readonly #state: SessionState

  constructor(state: SessionState) {
    this.#state = state
  }

  drawer<T>(
    name: string,
    options: { staysBehind?: boolean | undefined; endsWithLogin?: boolean | undefined } = {},
  ): Drawer<T> {
    const field = hiddenField(checked(name, 'The name of a drawer'))
    if (isOwnField(field)) throw invalidArgument('The name of a drawer does not begin with a colon.')
    if (options.staysBehind) staysBehind(field)
    if (options.endsWithLogin) endsWithLogin(field)
    return new FieldDrawer<T>(this.#state, field)
  }

  updateGroup<T>(group: string, change: (drawers: DrawerGroup) => T | Promise<T>): Promise<T> {
    const lead = hiddenField(checked(group, 'The name of a group'))
    this.#state.use()
    return updateFieldGroup(this.#state, lead, ({ get, set }) =>
      change({
        get: (name) => get(memberOf(group, name)),
        set: (name, value) => set(memberOf(group, name), value),
        delete: (name) => set(memberOf(group, name), undefined),
      }),
    )
  }

  now(): number {
    return this.#state.lifecycle.now()
  }

  texts(): ReadonlyMap<string, string> {
    this.#state.use()
    const { fields } = this.#state
    const all = fields.all(fields.changes() ?? NO_CHANGES)
    const { lifecycle } = this.#state
    const now = lifecycle.now()
    const own = [...all].filter(([name, text]) => !isHiddenField(name) && !isPast(endOf(text), now))
    const { codec } = lifecycle.options
    // They are for other sessions, too.
    return codec.forSession === undefined ? new Map(own) : resealed(own, fields.codec, codec)
  }

  restore(texts: ReadonlyMap<string, string>): void {
    const { codec } = this.#state.lifecycle.options
    const now = this.#state.lifecycle.now()
    const values = [...texts]
      .filter(([, text]) => !isPast(endOf(text), now))
      .map(([name, text]) => [name, decodeStored(codec, text, name), endOf(text)] as const)
    this.#state.use()
    for (const [name, value, endsAt] of values) this.#state.set(name, value, endsAt)
  }

  carried(groups: readonly string[] = []): ReadonlyMap<string, string> {
    this.#state.use()
    const { fields } = this.#state
    const left = fieldsLeftBehind()
    const leads = groups.map((group) => hiddenField(checked(group, 'The name of a group')))
    const isCarried = (name: string): boolean =>
      isHiddenField(name) ? leads.some((lead) => name === lead || name.startsWith(`${lead}.`)) : !left.includes(name)
    return new Map([...fields.all(fields.changes() ?? NO_CHANGES)].filter(([name]) => isCarried(name)))
  }

  async replaceWith({
    texts,
    userId,
    logicalId,
    drawers = {},
  }: {
    texts: ReadonlyMap<string, string>
    userId: string | number | undefined
    logicalId?: string | undefined
    drawers?: Readonly<Record<string, unknown>>
  }): Promise<void> {
    const { codec, limits } = this.#state.lifecycle.options
    const own = new Fields({ codec, limits, onCorrupt: () => {} })
    for (const [name, value] of Object.entries(drawers)) own.set(hiddenField(name), value)
    this.#state.use()
    const { record, fields } = this.#state
    // Of the same user it is the same login: what belongs to that, such as the key of its device, goes on.
    if (userId !== undefined && record?.userId === userId) {
      for (const field of fieldsOfLogin()) {
        const value = fields.get(field)
        if (value !== undefined) own.set(field, value)
      }
    }
    await replaceWith(this.#state, {
      userId,
      logicalId,
      fields: new Map([...texts, ...(own.changes() ?? NO_CHANGES).set]),
    })
  }

  keys(purpose: string): readonly KeyObject[] {
    const { id, lifecycle } = this.#state
    const info = JSON.stringify([checked(purpose, 'The purpose of a key'), id])
    // What is made with them holds for this session: the response depends on the cookie.
    this.#state.use()
    return lifecycle.options.cookie.keys.map((secret) => derivedKey(secret, info))
  }

  sharedKeys(purpose: string): readonly KeyObject[] {
    this.#state.use()
    const secrets = this.#state.lifecycle.options.cookie.keys
    let kept = sharedKeys.get(secrets)
    if (kept === undefined) {
      kept = new Map()
      sharedKeys.set(secrets, kept)
    }
    let found = kept.get(purpose)
    if (found === undefined) {
      const info = JSON.stringify([checked(purpose, 'The purpose of a key')])
      found = secrets.map((secret) => derivedKey(secret, info))
      kept.set(purpose, found)
    }
    return found
  }

  get events(): SessionEvents {
    return this.#state.lifecycle.events
  }

  request(): ActivityRequest {
    return this.#state.host.activityRequest()
  }

  isHttps(): boolean {
    return this.#state.host.isHttps()
  }

  beforeCommit(listener: () => void): void {
    const { host } = this.#state
    host.commitListeners ??= []
    host.commitListeners.push(listener)
  }

  beforeHead(listener: () => void): void {
    const { host } = this.#state
    host.headListeners ??= []
    host.headListeners.push(listener)
  }

  passive(): void {
    this.#state.host.isPassive = true
  }

  doubtProof(): void {
    doubtProof(this.#state)
  }

  revoke(why: { readonly by: string; readonly detail: string }): Promise<void> {
    this.#state.use()
    return revoke(this.#state, why)
  }

  showLogicalId(): string {
    return showLogicalId(this.#state)
  }

  recordActivity(
    type: string,
    details?: Record<string, unknown>,
    { keepsLogicalId } = { keepsLogicalId: true },
  ): Activity | undefined {
    checkActivity(type, details)
    const { lifecycle, host, record, id } = this.#state
    if (lifecycle.options.activity === undefined) return undefined
    return recordActivity(lifecycle, {
      type,
      sessionId: id,
      logicalId: keepsLogicalId ? askLogicalId(this.#state) : showLogicalId(this.#state),
      userId: record?.userId,
      details,
      request: host.activityRequest(),
    })
  }
}

class FieldDrawer<T> implements Drawer<T> {
  readonly #state: SessionState
  readonly #field: string

  constructor(state: SessionState, field: string) {
    this.#state = state
    this.#field = field
  }

  get(): T | undefined {
    this.#state.use()
    return this.#state.fields.get(this.#field) as T | undefined
  }

  isUnreadable(): boolean {
    this.#state.use()
    return this.#state.fields.isUnreadable(this.#field)
  }

  set(value: T | undefined, { ttlMs }: { ttlMs?: number | undefined } = {}): void {
    this.#state.use()
    this.#state.setAny(this.#field, value, ttlMs === undefined ? undefined : this.#state.lifecycle.now() + ttlMs)
  }

  delete(): boolean {
    this.#state.use()
    return this.#state.deleteAny(this.#field)
  }

  update<U extends T | undefined>(modify: (value: T | undefined) => U | Promise<U>): Promise<U> {
    this.#state.use()
    return updateField(this.#state, this.#field, modify as (value: unknown) => unknown) as Promise<U>
  }
}

function derivedKey(secret: KeyObject, info: string): KeyObject {
  return createSecretKey(Buffer.from(hkdfSync('sha256', secret, KEY_VERSION, info, KEY_BYTES)))
}

function memberOf(group: string, name: string): string {
  if (name === group || name.startsWith(`${group}.`)) return hiddenField(checked(name, 'The name of a drawer'))
  throw invalidArgument(`A drawer of this group is named "${group}", or "${group}." and more.`)
}

function checked(name: unknown, what: string): string {
  if (typeof name === 'string' && name !== '' && name.length <= MAX_NAME_LENGTH && name.isWellFormed()) return name
  throw invalidArgument(`${what} is text of 1 to ${MAX_NAME_LENGTH} characters.`)
}
