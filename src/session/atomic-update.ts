// One field, or a group of fields, read, changed and written as one atomic step: when another request got in between, it is done
// again with what that one wrote.
import { SessionError } from '../errors.js'
import { type Left, pauseAfter } from '../lifecycle/turns.js'
import type { SessionData } from '../record/session-data.js'
import { storeChanges, takeUpdated } from './commit.js'
import type { FieldChanges } from './fields.js'
import { keepLogicalId } from './logical-id.js'
import { cookieNote } from './response-cookie.js'
import { MAX_RACES, type SessionState } from './state.js'

type Modify = (value: unknown) => unknown

/** `session.update()`: resolves to the new value. `modify` is called once for each race. */
export function updateField(state: SessionState, name: string, modify: Modify): Promise<unknown> {
  return state.inTurn(async () => {
    state.requireWritable()
    if (state.record === null) {
      state.requireCookie()
      const value = await modify(state.fields.get(name))
      state.fields.set(name, value, state.fields.endOf(name))
      state.noticeLateChange()
      return value
    }
    if (state.fields.isChanged(name)) await storeChanges(state)
    await keepLogicalId(state)
    try {
      const key = `${state.record.id} field ${name}`
      return await state.lifecycle.turns.run(key, (left) => race(state, name, modify, left))
    } catch (error) {
      // What update() did not store, the commit must not store either: it would overwrite what others wrote.
      state.fields.refresh(name, state.record.fields)
      throw error
    }
  })
}

async function race(
  state: SessionState,
  name: string,
  modify: Modify,
  left: Left | undefined,
): Promise<{ value: unknown; left: Left }> {
  const { fields, lifecycle } = state
  let record = state.record as SessionData
  const goOnWith = (text: string | undefined): void => {
    record = record.withField(name, text)
    state.record = record
    fields.refresh(name, record.fields)
  }
  if (left !== undefined && left.text !== record.fields.get(name)) goOnWith(left.text)
  for (let attempt = 1; attempt <= MAX_RACES; attempt++) {
    const value = await modify(fields.get(name))
    fields.set(name, value, fields.endOf(name))
    const write = fields.changeOf(name)
    const expect = { field: name, text: record.fields.get(name) }
    const metadata = cookieNote(state)
    const change = lifecycle.change(record, { ...write, expect, metadata, isPassive: state.host.isPassive })
    const result = await lifecycle.update(record, change)
    if (result.status === 'updated') {
      takeUpdated(state, change, result.record)
      return { value, left: { text: write.set.get(name) } }
    }
    if (result.status !== 'conflict') throw state.ended()
    lifecycle.events.emit('conflict', { id: record.id, userId: record.userId, field: name })
    goOnWith(result.text)
    await pauseAfter(attempt)
  }
  throw new SessionError('UPDATE_CONFLICT', `update() lost ${MAX_RACES} races for one field in a row.`)
}

/** The fields of a group within one step; `undefined` as a value removes one. */
export interface FieldGroup {
  get(name: string): unknown
  set(name: string, value: unknown): void
}

/**
 * The same for the field `lead` and all whose names begin with it and a dot. A step counts only if `lead` is still as it was read, so
 * each step that writes changes `lead` as well. Resolves to what `change` returned.
 */
export function updateFieldGroup<T>(
  state: SessionState,
  lead: string,
  change: (fields: FieldGroup) => T | Promise<T>,
): Promise<T> {
  return state.inTurn(async () => {
    state.requireWritable()
    const step = new GroupStep(state, lead)
    if (state.record === null) state.requireCookie()
    else await keepLogicalId(state)
    try {
      if (state.record === null) {
        const value = await change(step)
        state.noticeLateChange()
        return value
      }
      const key = `${state.record.id} fields ${lead}`
      return await state.lifecycle.turns.run(key, (left) => raceForGroup(state, step, change, left))
    } catch (error) {
      step.giveUp()
      throw error
    }
  })
}

async function raceForGroup<T>(
  state: SessionState,
  step: GroupStep,
  change: (fields: FieldGroup) => T | Promise<T>,
  left: Left | undefined,
): Promise<{ value: T; left: Left }> {
  const { lifecycle } = state
  const { lead } = step
  if (left?.fields !== undefined && left.text !== state.record?.fields.get(lead)) step.goOnWith(left.fields)
  for (let attempt = 1; attempt <= MAX_RACES; attempt++) {
    const value = await change(step)
    const record = state.record as SessionData
    const write = step.changes()
    if (write === null) return { value, left: { text: record.fields.get(lead), fields: record.fields } }
    const expect = { field: lead, text: record.fields.get(lead) }
    const metadata = cookieNote(state)
    const update = lifecycle.change(record, { ...write, expect, metadata, isPassive: state.host.isPassive })
    const result = await lifecycle.update(record, update)
    if (result.status === 'updated') {
      takeUpdated(state, update, result.record)
      return { value, left: { text: result.record.fields.get(lead), fields: result.record.fields } }
    }
    if (result.status !== 'conflict') throw state.ended()
    lifecycle.events.emit('conflict', { id: record.id, userId: record.userId, field: lead })
    await pauseAfter(attempt)
    const present = await lifecycle.reload(record.id)
    if (present === null) throw state.ended()
    step.goOnWith(present.fields)
  }
  throw new SessionError('UPDATE_CONFLICT', `A change lost ${MAX_RACES} races for one field in a row.`)
}

/** What one step on a group has changed, and what it stands on. */
class GroupStep implements FieldGroup {
  readonly lead: string
  readonly #state: SessionState
  readonly #touched = new Set<string>()
  /** What the fields of a session that is not stored held before. */
  readonly #before = new Map<string, unknown>()

  constructor(state: SessionState, lead: string) {
    this.#state = state
    this.lead = lead
  }

  get = (name: string): unknown => this.#state.fields.get(name)

  set = (name: string, value: unknown): void => {
    const { fields } = this.#state
    if (!this.#touched.has(name)) this.#before.set(name, fields.get(name))
    this.#touched.add(name)
    fields.set(name, value)
  }

  /** What there is to write, or `null`. */
  changes(): FieldChanges | null {
    const { fields } = this.#state
    const changes = [...this.#touched].filter((name) => fields.isChanged(name)).map((name) => fields.changeOf(name))
    if (changes.length === 0) return null
    return {
      set: new Map(changes.flatMap(({ set }) => [...set])),
      delete: changes.flatMap(({ delete: removed }) => removed),
    }
  }

  /** Takes the fields of the group from `stored`, which is newer than what this request has. */
  goOnWith(stored: ReadonlyMap<string, string>): void {
    const record = this.#state.record as SessionData
    const members = new Map([...stored].filter(([name]) => this.#isMember(name)))
    const others = [...record.fields].filter(([name]) => !this.#isMember(name))
    const stale = [...record.fields.keys()].filter((name) => this.#isMember(name))
    this.#state.record = record.with({ fields: [...others, ...members] })
    this.#forget([...stale, ...members.keys()])
  }

  /** What was not stored by this, the commit must not store either. */
  giveUp(): void {
    if (this.#state.record !== null) this.#forget([])
    else for (const [name, value] of this.#before) this.#state.fields.set(name, value)
  }

  #forget(names: readonly string[]): void {
    const { fields, record } = this.#state
    for (const name of [...names, ...this.#touched, this.lead]) {
      fields.refresh(name, (record as SessionData).fields)
    }
    this.#touched.clear()
  }

  #isMember(name: string): boolean {
    return name === this.lead || name.startsWith(`${this.lead}.`)
  }
}
