// The event `ended`: once for each ID that counts no more, whose it was, and whether the session is over or goes on.
import { describe, expect, test } from '@jest/globals'
import type { Session, SessionEvent } from 'sojourn'
import { GROUNDS, idOf, Rig, type RigOptions, useGround } from '../support/rig.js'

const HOUR = 3_600_000

/** What is done with a session of Ann's, and what is told of it. */
interface Row {
  readonly options?: RigOptions
  readonly isAnonymous?: true
  act(rig: Rig, id: string): unknown
  readonly told: { reason: string; goesOn: boolean; hasSuccessor: boolean }
}

const within =
  (act: (session: Session) => unknown) =>
  (rig: Rig): Promise<unknown> =>
    rig.ask(act)
const over = (reason: string): Row['told'] => ({ reason, goesOn: false, hasSuccessor: false })
const MOVED = { reason: 'regenerated', goesOn: true, hasSuccessor: true }
const REPLACED = { reason: 'regenerated', goesOn: false, hasSuccessor: true }

const ROWS: Record<string, Row> = {
  'login()': { isAnonymous: true, act: within((s) => s.login('ann')), told: MOVED },
  'login() of the same user': { act: within((s) => s.login('ann')), told: MOVED },
  'reauthenticate()': { act: within((s) => s.reauthenticate()), told: MOVED },
  'regenerate({ keep: true })': { act: within((s) => s.regenerate({ keep: true })), told: MOVED },
  'regenerate({ keep: [n] })': { act: within((s) => s.regenerate({ keep: ['n'] })), told: REPLACED },
  'regenerate()': { act: within((s) => s.regenerate()), told: REPLACED },
  'logout()': { act: within((s) => s.logout()), told: over('logout') },
  'destroy()': { act: within((s) => s.destroy()), told: over('destroyed') },
  'revoke()': { act: (rig, id) => rig.manager.revoke(id), told: over('revoked') },
  'revokeUser()': { act: (rig) => rig.manager.revokeUser('ann'), told: over('revoked') },
  'a login over the limit': {
    options: { maxSessionsPerUser: 1 },
    act: (rig) => rig.login('ann'),
    told: over('limit'),
  },
  'the idle timeout': {
    act(rig) {
      rig.clock.advance(2 * HOUR)
      return rig.manager.cleanUp()
    },
    told: over('idle'),
  },
  'the absolute timeout': {
    options: { idleTimeout: '50m', absoluteTimeout: '1h' },
    async act(rig) {
      rig.clock.advance(HOUR / 2)
      await rig.ask((s) => s.touch())
      rig.clock.advance(HOUR / 2)
      return rig.manager.cleanUp()
    },
    told: over('absolute'),
  },
}

describe.each(GROUNDS)('on %s', (_name, makeGround) => {
  const ground = useGround(makeGround)

  test.each(Object.entries(ROWS))('%s', async (_way, { options, isAnonymous, act, told }) => {
    const rig = await Rig.start(ground, options)
    await rig.ask(async (s) => {
      s.set('n', 1)
      if (!isAnonymous) await s.login('ann')
    })
    const id = idOf(rig.client)
    const events: SessionEvent<'ended'>[] = []
    rig.manager.events.on('ended', (event) => events.push(event))
    await act(rig, id)
    expect(events).toHaveLength(1)
    const { successor, ...event } = events[0] as SessionEvent<'ended'>
    const userId = isAnonymous ? undefined : 'ann'
    expect({ ...event, hasSuccessor: successor !== undefined }).toMatchObject({ id, userId, ...told })
    if (told.hasSuccessor) expect(successor).toBe(idOf(rig.client))
  })

  test('of a session that is ended by its old ID, both are told, each as whose it was', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => s.set('n', 1))
    const id = idOf(rig.client)
    await rig.ask((s) => s.login('ann'))
    const successor = idOf(rig.client)
    const events: SessionEvent<'ended'>[] = []
    rig.manager.events.on('ended', (event) => events.push(event))
    expect(await rig.manager.revoke(id)).toBe(true)
    expect(events).toMatchObject([{ id: successor, userId: 'ann', reason: 'revoked', goesOn: false }])
  })

  test('what is ended again is not told again', async () => {
    const rig = await Rig.start(ground)
    await rig.ask((s) => s.set('n', 1))
    const id = idOf(rig.client)
    const events: unknown[] = []
    rig.manager.events.on('ended', (event) => events.push(event))
    await Promise.all(Array.from({ length: 5 }, () => rig.manager.revoke(id)))
    await rig.manager.revoke(id)
    expect(events).toHaveLength(1)
  })
})
