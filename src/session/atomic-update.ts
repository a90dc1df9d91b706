// One field, read, changed and written as one atomic step: when another request got in between, it is done again with what
// that one wrote.
import { SessionError } from '../errors.js'
import { type Left, pauseAfter } from '../lifecycle/turns.js'
import type { SessionData } from '../record/session-data.js'
import { storeChanges, takeUpdated } from './commit.js'
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
