// Workspaces over HTTP: files go where their session goes, and with it, whatever ends it; what a sweep removes and what not.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import { MemorySessionStore, type Session, SessionManager, SessionStore, session as sessions } from 'sojourn'
import { ActivityLog, memorySink } from 'sojourn/activity'
import { type Workspaces, type WorkspacesOptions, workspaceOf, workspaces } from 'sojourn/workspace'
import { type Client, SECRET } from '../../support/http.js'
import {
  closeRigs,
  GROUNDS,
  type Ground,
  idOf,
  MemoryGround,
  outside,
  Rig,
  type RigOptions,
  refusal,
} from '../../support/rig.js'

const NEVER = { sweepInterval: 0 } as const

/** A process on a disk. */
interface Place {
  readonly rig: Rig
  readonly files: Workspaces
}

describe.each(GROUNDS)('workspaces, on %s', (_name, makeGround) => {
  let ground: Ground
  let root = ''
  const places: Place[] = []
  const failures: unknown[] = []

  async function start(options: RigOptions = {}, clock?: Rig['clock'], limits = {}): Promise<Place> {
    const rig = await Rig.start(ground, options, clock)
    const onError = (error: unknown): void => void failures.push(error)
    const place = { rig, files: workspaces(rig.manager, { root, ...NEVER, onError, ...limits }) }
    places.push(place)
    return place
  }
  const onDisk = (): string[] => readdirSync(join(root, 'workspaces'))
  const save = (rig: Rig, client = rig.client): Promise<string> =>
    rig.ask(async (s) => {
      const workspace = await workspaceOf(s)
      await workspace.save('a.txt', 'hello', { whenTaken: 'replace' })
      return workspace.id
    }, client)
  const read = (rig: Rig, client?: Client): Promise<string | null> => rig.ask((s) => contentOf(s, 'a.txt'), client)

  beforeAll(async () => {
    ground = makeGround()
    await ground.start()
    root = mkdtempSync(join(tmpdir(), 'sojourn-workspaces-'))
  })
  afterEach(async () => {
    await Promise.all(places.splice(0).map(({ files }) => files.close()))
    await closeRigs()
    await ground.reset()
    rmSync(root, { recursive: true, force: true })
    expect(failures.splice(0)).toEqual([])
  })
  afterAll(() => ground.stop())

  test('has an ID of its own, folders that are there, and files that the next request finds', async () => {
    const { rig } = await start()
    const seen = await rig.ask(async (s) => {
      const workspace = await workspaceOf(s)
      const { id, dataDir, tempDir, cachePrefix } = workspace
      return { id, sessionId: s.id, cachePrefix, areThere: existsSync(dataDir) && existsSync(tempDir) }
    })
    expect(seen.id).not.toBe(seen.sessionId)
    expect(seen).toMatchObject({ areThere: true, cachePrefix: `workspace:${seen.id}:` })
    expect(await save(rig)).toBe(seen.id)
    expect(await read(rig)).toBe('hello')
  })

  test('is one for requests that ask for it at once', async () => {
    const { rig } = await start()
    await rig.ask((s) => s.login('ann'))
    const ids = await Promise.all(Array.from({ length: 10 }, () => rig.ask(async (s) => (await workspaceOf(s)).id)))
    expect(new Set(ids).size).toBe(1)
    expect(onDisk()).toEqual([ids[0]])
  })

  test('is not made by who only looks', async () => {
    const { rig } = await start()
    expect(await rig.ask((s) => workspaceOf(s, { create: false }))).toBeNull()
    expect(rig.answer?.setCookies).toEqual([])
    expect(onDisk()).toEqual([])
    const id = await save(rig)
    expect(await rig.ask(async (s) => (await workspaceOf(s, { create: false }))?.id)).toBe(id)
  })

  test('goes along with a login, a reauthentication and a regeneration', async () => {
    const { rig, files } = await start()
    const id = await save(rig)
    await rig.ask((s) => s.login('ann'))
    await rig.ask((s) => s.reauthenticate())
    await rig.ask((s) => s.regenerate({ keep: true }))
    await files.settled()
    expect(await read(rig)).toBe('hello')
    expect(await files.sweep()).toEqual({ removed: 0, kept: 1, failed: 0 })
    expect(onDisk()).toEqual([id])
  })

  test('stays behind, and goes, when another user logs in over it', async () => {
    const { rig, files } = await start()
    await rig.ask((s) => s.login('ann'))
    await save(rig)
    await rig.ask((s) => s.login('bob'))
    await files.settled()
    expect(onDisk()).toEqual([])
    expect(await read(rig)).toBeNull()
  })

  test.each<[how: string, end: (place: Place) => Promise<unknown>]>([
    ['a logout', ({ rig }) => rig.ask((s) => s.logout())],
    ['destroy()', ({ rig }) => rig.ask((s) => s.destroy())],
    ['a regeneration that keeps nothing', ({ rig }) => rig.ask((s) => s.regenerate())],
    ['a revocation from outside', ({ rig }) => rig.manager.revoke(idOf(rig.client))],
    ['the end of all sessions of the user', ({ rig }) => rig.manager.revokeUser('ann')],
    ['the limit of sessions', ({ rig }) => rig.login('ann')],
    [
      'the clean-up of what ran out',
      ({ rig }) => {
        rig.clock.advance(31 * 60_000)
        return rig.manager.cleanUp()
      },
    ],
  ])('goes with its session after %s', async (_how, end) => {
    const place = await start({ maxSessionsPerUser: 1 })
    await place.rig.ask((s) => s.login('ann'))
    await save(place.rig)
    expect(onDisk()).toHaveLength(1)
    await end(place)
    await place.files.settled()
    expect([onDisk(), readdirSync(join(root, 'owners')), readdirSync(join(root, 'removed'))]).toEqual([[], [], []])
  })

  test('goes when the session is ended by a process that has never seen it', async () => {
    const { rig } = await start()
    await save(rig)
    const other = await start({}, rig.clock)
    await other.rig.manager.revoke(idOf(rig.client))
    await other.files.settled()
    expect(onDisk()).toEqual([])
  })

  test('goes with the next sweep when the session ran out, or was revoked with all, while no process ran', async () => {
    const first = await start()
    await save(first.rig)
    await save(first.rig, first.rig.stranger())
    await stop(first)
    first.rig.clock.advance(31 * 60_000)
    const second = await start({}, first.rig.clock)
    const id = await save(second.rig)
    expect(await second.files.sweep()).toEqual({ removed: 2, kept: 1, failed: 0 })
    expect(onDisk()).toEqual([id])
    await second.rig.manager.revokeAll()
    expect(await second.files.sweep()).toEqual({ removed: 1, kept: 0, failed: 0 })
  })

  test('stays when the process dies between a login and what follows from it, and all is forgotten but the session', async () => {
    const first = await start({ endedRetention: '1s' })
    const id = await save(first.rig)
    // As a crash would: nobody hears of what happens now.
    await first.files.close()
    await first.rig.ask((s) => s.login('ann'))
    const { cookies } = first.rig.client
    const second = await start({}, first.rig.clock)
    await ground.store().delete(sessionIdIn(root))
    expect(await second.files.sweep()).toEqual({ removed: 0, kept: 1, failed: 0 })
    expect(await read(second.rig, second.rig.stranger(cookies))).toBe('hello')
    expect(onDisk()).toEqual([id])
    await second.rig.manager.revoke(idOf(first.rig.client))
    await second.files.settled()
    expect(onDisk()).toEqual([])
  })

  test('stays when the store does not answer, or cannot say', async () => {
    const { rig, files } = await start()
    await save(rig)
    rig.store.fail({ kind: 'error' })
    await expect(outside(() => files.sweep())).resolves.toEqual({ removed: 0, kept: 0, failed: 1 })
    expect(failures.splice(0)).toMatchObject([{ code: 'STORE_UNAVAILABLE' }])
    rig.store.repair()
    expect(await files.sweep()).toEqual({ removed: 0, kept: 1, failed: 0 })
    expect(await read(rig)).toBe('hello')
  })

  test('what is no workspace is left alone', async () => {
    const { rig, files } = await start()
    await save(rig)
    const stranger = join(root, 'workspaces', 'lost+found')
    mkdirSync(stranger)
    await files.sweep()
    expect(existsSync(stranger)).toBe(true)
  })

  test('a request that does not know yet of the end gets SESSION_ENDED, and leaves nothing', async () => {
    const { rig, files } = await start()
    await save(rig)
    const other = await start({}, rig.clock)
    const outcome = await rig.ask(async (s) => {
      const workspace = await workspaceOf(s)
      await outside(() => other.rig.manager.revoke(s.id))
      await other.files.settled()
      return {
        saving: (await refusal(workspace.save('b.txt', 'late'))).code,
        reading: (await refusal(workspace.open('a.txt'))).code,
        listing: (await refusal(workspace.list())).code,
        again: (await refusal(workspaceOf(s))).code,
      }
    })
    const ended = 'SESSION_ENDED'
    expect(outcome).toEqual({ saving: ended, reading: ended, listing: ended, again: ended })
    await files.settled()
    expect(onDisk()).toEqual([])
  })

  test('an end during an upload leaves nothing, and the upload fails', async () => {
    const { rig, files } = await start()
    await save(rig)
    const error = await rig.ask(async (s) => {
      const workspace = await workspaceOf(s)
      async function* slowly(): AsyncGenerator<string> {
        yield 'one'
        await outside(() => rig.manager.revoke(s.id))
        await files.settled()
        yield 'two'
      }
      return refusal(workspace.save('b.txt', Readable.from(slowly())))
    })
    expect(error).toMatchObject({ code: 'SESSION_ENDED', status: 409 })
    expect([onDisk(), readdirSync(join(root, 'removed'))]).toEqual([[], []])
  })

  test('is reached by nobody else: two sessions, two workspaces', async () => {
    const { rig, files } = await start()
    const own = await save(rig)
    const stranger = rig.stranger()
    expect(await read(rig, stranger)).toBeNull()
    const others = await rig.ask(async (s) => {
      const workspace = await workspaceOf(s)
      return {
        id: workspace.id,
        owns: await workspace.owns(join(workspace.dataDir, '..', '..', own, 'data', 'a.txt')),
        ownsPlain: await workspace.owns(join(root, 'workspaces', own, 'data', 'a.txt')),
      }
    }, stranger)
    expect(others).toMatchObject({ owns: false, ownsPlain: false })
    expect(others.id).not.toBe(own)
    expect(await files.find(idOf(rig.client)).then((ws) => ws?.id)).toBe(own)
    expect(await files.find('00000000-0000-4000-8000-000000000000')).toBeNull()
  })

  test('its files stand in the report of the session', async () => {
    const log = new ActivityLog({ sinks: [memorySink()] })
    const { rig } = await start({ activity: log })
    await rig.ask(async (s) => {
      const workspace = await workspaceOf(s)
      await workspace.save('a.txt', 'hello')
      await workspace.save('b.txt', 'hello again')
      await workspace.remove('a.txt')
    })
    const { files, counts } = await log.report({ sessionId: idOf(rig.client) })
    expect(counts).toMatchObject({ 'file.saved': 2, 'file.removed': 1 })
    expect(files).toMatchObject([
      { name: 'a.txt', bytes: 5, removedAt: expect.any(Date) },
      { name: 'b.txt', bytes: 11, removedAt: undefined },
    ])
    await log.close()
  })
})

describe('what is refused', () => {
  const root = join(tmpdir(), 'sojourn-workspaces-refused')
  const made: Workspaces[] = []
  const make = (options: unknown, store = new MemorySessionStore()): void => {
    made.push(workspaces(new SessionManager({ secret: SECRET, store }), options as WorkspacesOptions))
  }
  afterEach(() => rmSync(root, { recursive: true, force: true }))

  test.each([
    ['no root', {}, /absolute path/],
    ['a root that is relative', { root: 'files' }, /absolute path/],
    ['a quota of nothing', { root, maxBytes: 0 }, /maxBytes is 0/],
    ['half a file', { root, maxFiles: 1.5 }, /maxFiles is 1.5/],
    ['a misspelt option', { root, maxbytes: 5 }, /Did you mean maxBytes/],
    ['a root that is a file', { root: join(import.meta.dirname, 'names.test.ts') }, /root cannot be used/],
  ])('%s', (_what, options, message) => {
    expect(() => make(options)).toThrow(message)
  })

  test('a store that cannot be gone through', () => {
    class Three extends SessionStore {
      async get(): Promise<null> {
        return null
      }
      async set(): Promise<void> {}
      async delete(): Promise<void> {}
    }
    expect(() => make({ root }, new Three() as never)).toThrow(/gone through/)
  })

  test('a second workspaces() for the same sessions, and a session without any', async () => {
    const middleware = sessions({ secret: SECRET })
    const files = workspaces(middleware, { root, ...NEVER })
    expect(() => workspaces(middleware, { root })).toThrow(/already/)
    await files.close()
    const rig = await Rig.start(new MemoryGround())
    expect((await refusal(rig.ask((s) => workspaceOf(s)))).message).toMatch(/call workspaces\(/)
    await closeRigs()
  })
})

async function contentOf(session: Session, name: string): Promise<string | null> {
  const file = await (await workspaceOf(session, { create: false }))?.open(name)
  return file ? text(file.stream) : null
}

async function stop({ rig, files }: Place): Promise<void> {
  await files.close()
  await rig.close()
}

/** The session that the one workspace on the disk is noted for. */
function sessionIdIn(root: string): string {
  return readdirSync(join(root, 'owners'))[0] as string
}
