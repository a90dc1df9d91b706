// A fault logs nobody out: what a client holds after each operation that hands out a token, whatever the store did.

import type { ServerResponse } from 'node:http'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import connect from 'connect'
import express from 'express'
import { type Session, type SessionOptions, session } from 'sojourn'
import type { StoreFault } from 'sojourn/testing'
import { Client, listen, SECRET, type TestServer } from '../support/http.js'
import { closeRigs, GROUNDS, idOf, outside, partsOf, Rig } from '../support/rig.js'

const SECOND = 1_000
const MINUTE = 60 * SECOND

type Act = (session: Session) => Promise<unknown>

/** Each gives the session of ann, in which `n` is 1, another token. */
const ACTS: Record<string, Act> = {
  login: (session) => session.login('ann'),
  reauthenticate: (session) => session.reauthenticate(),
  'regenerate({ keep: true })': (session) => session.regenerate({ keep: true }),
  renew: (session) => session.renew(),
}

describe.each(GROUNDS)('tokens on %s', (_name, makeGround) => {
  const ground = makeGround()
  beforeAll(() => ground.start())
  beforeEach(() => ground.reset())
  afterEach(closeRigs)
  afterAll(() => ground.stop())

  /** A rig whose client is ann, with a field `n`. */
  async function begin(options: Partial<SessionOptions> = {}): Promise<Rig> {
    const rig = await Rig.start(ground, options)
    await rig.ask((session) => session.login('ann'))
    await rig.ask((session) => session.set('n', 1))
    return rig
  }

  async function isAnn(rig: Rig, client = rig.client): Promise<boolean> {
    return (await rig.ask((session) => [session.metadata.userId, session.get('n')].join(), client)) === 'ann,1'
  }

  describe('a commit that fails after an operation that gave out a token', () => {
    const faults: [string, (session: Session, rig: Rig) => void, number][] = [
      [
        'the store fails',
        (session, rig) => {
          session.set('m', 1)
          rig.store.fail({ kind: 'error', operations: ['update'], times: 1 })
        },
        503,
      ],
      [
        'a value cannot be stored',
        (session) => {
          const value: { self?: unknown } = {}
          session.set('m', value)
          value.self = value
        },
        500,
      ],
    ]
    for (const [act, run] of Object.entries(ACTS)) {
      test.each(faults)(
        `${act}: %s, and the client has the new cookie with the error`,
        async (_what, spoil, status) => {
          const rig = await begin()
          const before = rig.client.cookieHeader
          const failing = rig.ask(async (session) => {
            await run(session)
            spoil(session, rig)
          })
          await expect(failing).rejects.toBeDefined()
          expect(rig.answer).toMatchObject({ status, body: 'failed' })
          expect(rig.answer?.headers['cache-control']).toBe('no-store')
          expect(rig.client.cookieHeader).not.toBe(before)
          expect(await isAnn(rig)).toBe(true)
          // The change is not there, and was not said to be.
          expect(await rig.ask((session) => session.has('m'))).toBe(false)
        },
      )
    }

    test('a session that could not be created gets no cookie', async () => {
      const rig = await Rig.start(ground)
      rig.store.fail({ kind: 'error', operations: ['create'], times: 1 })
      await expect(rig.ask((session) => session.set('n', 1))).rejects.toMatchObject({ status: 503 })
      expect(rig.answer?.setCookies).toEqual([])
    })

    test('a logout clears the cookie also with an error answer', async () => {
      const rig = await begin()
      rig.store.fail({ kind: 'error', operations: ['create'], times: 1 })
      const failing = rig.ask(async (session, req) => {
        await session.logout()
        req.session.set('message', 'bye')
      })
      await expect(failing).rejects.toMatchObject({ status: 503 })
      expect(rig.answer?.setCookies).toEqual([expect.stringMatching(/^sid=;.*Max-Age=0/)])
    })
  })

  describe('an answer of the store that is lost', () => {
    const operations: [string, Act, NonNullable<StoreFault['operations']>][] = [
      ['login', ACTS['login'] as Act, ['regenerate']],
      ['reauthenticate', ACTS['reauthenticate'] as Act, ['regenerate']],
      ['regenerate({ keep: true })', ACTS['regenerate({ keep: true })'] as Act, ['regenerate']],
    ]
    test.each(operations)('%s: what was done is found, and goes on', async (_name, act, faulty) => {
      const rig = await begin()
      const before = rig.client.clone()
      rig.store.fail({ kind: 'lost-reply', operations: faulty, times: 1 })
      await rig.ask(async (session) => void (await act(session)))
      expect(rig.answer?.status).toBe(200)
      expect(await isAnn(rig)).toBe(true)
      expect(await isAnn(rig, before)).toBe(false)
      expect(rig.heard('storeError')).toHaveLength(1)
    })

    test.each(operations)('%s: what was not done leaves the old token good', async (_name, act, faulty) => {
      const rig = await begin()
      const before = rig.client.cookieHeader
      rig.store.fail({ kind: 'error', operations: faulty, times: 1 })
      await expect(rig.ask(async (session) => void (await act(session)))).rejects.toMatchObject({ status: 503 })
      expect(rig.client.cookieHeader).toBe(before)
      expect(await isAnn(rig)).toBe(true)
    })
  })

  describe('a renewal', () => {
    test.each(['lost-reply', 'error'] as const)(
      'in passing that ends in %s is made up for, however late',
      async (kind) => {
        const rig = await begin({ renewAfter: '5m', renewGrace: '10s' })
        const before = rig.client.cookieHeader
        rig.clock.advance(5 * MINUTE)
        rig.store.fail({ kind, operations: ['update'], times: 1 })
        expect(await isAnn(rig)).toBe(true)
        expect(rig.answer?.setCookies).toEqual([])
        // Long after the grace.
        rig.clock.advance(20 * MINUTE)
        expect(await isAnn(rig)).toBe(true)
        expect(rig.client.cookieHeader).not.toBe(before)
        expect(await isAnn(rig)).toBe(true)
      },
    )

    test('whose response was lost is sent again with each request, until the client shows that it has it', async () => {
      const rig = await begin({ renewAfter: '5m', renewGrace: '10s' })
      const old = rig.client.clone()
      rig.clock.advance(5 * MINUTE)
      // The responses go to clients that are never seen again.
      const lost = [old.clone(), old.clone(), old.clone()]
      for (const client of lost) {
        expect(await isAnn(rig, client)).toBe(true)
        rig.clock.advance(MINUTE)
      }
      expect(new Set(lost.map((client) => partsOf(client)[1])).size).toBe(1)
      expect(rig.heard('renewed')).toHaveLength(1)

      // Now it has arrived.
      expect(await isAnn(rig)).toBe(true)
      expect(await isAnn(rig)).toBe(true)
      rig.clock.advance(10 * SECOND - 1)
      expect(await isAnn(rig, old.clone())).toBe(true)
      expect(rig.answer?.setCookies).toEqual([])
      rig.clock.advance(1)
      expect(await isAnn(rig, old.clone())).toBe(false)
      expect(await isAnn(rig)).toBe(true)
    })

    test('is confirmed once: one write, and none after it', async () => {
      const rig = await begin({ renewAfter: '5m', renewGrace: '10s' })
      rig.clock.advance(5 * MINUTE)
      await isAnn(rig)
      const before = rig.store.calls.update
      await isAnn(rig)
      expect(rig.store.calls.update - before).toBe(1)
      for (let n = 0; n < 5; n++) await isAnn(rig)
      expect(rig.store.calls.update - before).toBe(1)
    })

    test('that cannot be confirmed leaves the response as it is, and the old token good', async () => {
      const rig = await begin({ renewAfter: '5m', renewGrace: '10s' })
      const old = rig.client.clone()
      rig.clock.advance(5 * MINUTE)
      await isAnn(rig)
      rig.store.fail({ kind: 'error', operations: ['update'], times: 1 })
      expect(await isAnn(rig)).toBe(true)
      expect(rig.answer?.status).toBe(200)
      rig.clock.advance(MINUTE)
      expect(await isAnn(rig, old)).toBe(true)
    })

    test('by another request while one confirms the last is not undone by that', async () => {
      const rig = await begin({ renewAfter: '5m', renewGrace: '10s' })
      await rig.ask((session) => session.renew())
      const second = rig.client.clone()
      rig.store.fail({ kind: 'delay', operations: ['update'], times: 1 })
      const confirming = isAnn(rig, second.clone())
      while (rig.store.heldCalls === 0) await new Promise((resolve) => setImmediate(resolve))
      await rig.ask((session) => session.renew())
      rig.store.release()
      expect(await confirming).toBe(true)
      // The token between the two is the previous one still.
      rig.clock.advance(MINUTE)
      expect(await isAnn(rig, second)).toBe(true)
      expect(partsOf(second)[1]).toBe(partsOf(rig.client)[1])
    })

    test('keeps its age when the grace is set otherwise', async () => {
      const rig = await begin({ renewAfter: '5m', renewGrace: '10s' })
      rig.clock.advance(5 * MINUTE)
      await isAnn(rig)
      const longer = await Rig.start(ground, { renewAfter: '5m', renewGrace: '4m' }, rig.clock)
      const client = longer.stranger(rig.client.cookies)
      rig.clock.advance(4 * MINUTE)
      expect(await isAnn(longer, client)).toBe(true)
      expect(client.cookieHeader).toBe(rig.client.cookieHeader)
    })

    test('leaves nothing in the store that opens the session', async () => {
      const rig = await begin({ renewAfter: '5m' })
      const [, first] = partsOf(rig.client)
      rig.clock.advance(5 * MINUTE)
      await isAnn(rig)
      const [id, second] = partsOf(rig.client)
      const record = await rig.manager.store.get(id)
      const stored = JSON.stringify([record, await ground.dump()])
      for (const secret of [first, second]) expect(stored).not.toContain(secret)
      const sealed = record?.previousToken?.sealed
      expect(sealed).toHaveLength(43)
      await isAnn(rig)
      expect((await rig.manager.store.get(id))?.previousToken?.sealed).toBeUndefined()
    })
  })

  describe('two logins of one session at once', () => {
    async function together(rig: Rig, users: readonly [string, string]): Promise<Client[]> {
      const clients = [rig.client.clone(), rig.client.clone()]
      const waiting: (() => void)[] = []
      const asked = users.map((user, index) =>
        rig.ask(async (session) => {
          session.get('n')
          await new Promise<void>((resolve) => waiting.push(resolve))
          await session.login(user)
        }, clients[index]),
      )
      while (waiting.length < 2) await new Promise((resolve) => setImmediate(resolve))
      for (const go of waiting) {
        go()
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      await Promise.all(asked)
      return clients
    }

    test('of one user: both succeed, and the last answer logs in', async () => {
      const rig = await Rig.start(ground)
      await rig.ask((session) => session.set('n', 1))
      const [, second] = await together(rig, ['ann', 'ann'])
      expect(await isAnn(rig, second)).toBe(true)
      expect(await rig.manager.sessionsOf('ann')).toHaveLength(1)
    })

    test('of two users: each is who they are, and sees nothing of the other', async () => {
      const rig = await Rig.start(ground)
      await rig.ask((session) => session.set('n', 1))
      const [first, second] = (await together(rig, ['ann', 'bob'])) as [Client, Client]
      expect(await rig.whoIs(first)).toBe('ann')
      expect(await rig.whoIs(second)).toBe('bob')
      expect(idOf(first)).not.toBe(idOf(second))
      expect(await rig.ask((session) => session.keys(), second)).toEqual([])
    })

    test('a login over a session that was ended meanwhile is refused', async () => {
      const rig = await Rig.start(ground)
      await rig.ask((session) => session.set('n', 1))
      const late = rig.ask(async (session) => {
        session.get('n')
        await outside(() => rig.manager.revoke(session.id))
        await session.login('ann')
      })
      await expect(late).rejects.toMatchObject({ code: 'SESSION_ENDED' })
    })
  })
})

describe('the cookie of an error answer', () => {
  let server: TestServer
  afterEach(() => server.close())

  test.each(['Express', 'Connect'])('passes the error page of %s itself', async (kind) => {
    const app = connect()
    app.use(session({ secret: SECRET }))
    app.use('/login', ((req: { session: Session }, res: ServerResponse, next: (error?: unknown) => void) => {
      void req.session.login('ann').then(() => {
        const value: { self?: unknown } = {}
        req.session.set('m', value)
        value.self = value
        res.end('never seen')
      }, next)
    }) as never)
    app.use('/who', ((req: { session: Session }, res: ServerResponse) => {
      res.end(String(req.session.metadata.userId))
    }) as never)
    const outer = express().set('env', 'test')
    server = await listen(kind === 'Express' ? outer.use(app) : app)
    const client = new Client(server)
    const answer = await client.get('/login')
    expect(answer.status).toBe(500)
    expect(answer.body).not.toContain('never seen')
    expect((await client.get('/who')).body).toBe('ann')
  })
})
