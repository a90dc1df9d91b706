// Requests that renew a token at once: one of them sends it, and the old one does not come back to the browser.
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import type { Response } from 'express'
import type { Session } from 'sojourn'
import type { Client } from '../support/http.js'
import { closeRigs, GROUNDS, type Ground, partsOf, Rig, type RigOptions } from '../support/rig.js'

const MINUTE = 60_000
const HOUR = 60 * MINUTE

/** Lets nobody through before so many have come. */
function meeting(size: number): () => Promise<void> {
  let open = (): void => {}
  const everybody = new Promise<void>((resolve) => {
    open = resolve
  })
  return () => {
    size--
    if (size === 0) open()
    return everybody
  }
}

describe.each(GROUNDS)('with sessions in %s', (_name, make) => {
  const ground: Ground = make()
  beforeAll(() => ground.start())
  afterAll(() => ground.stop())
  afterEach(async () => {
    await closeRigs()
    await ground.reset()
  })

  /** A process with one session in a persistent cookie, which was begun more than an hour ago. */
  async function anHourLater(options: RigOptions = {}): Promise<Rig> {
    const rig = await Rig.start(ground, { cookie: { persistent: true }, idleTimeout: '2h', ...options })
    await rig.ask((session) => session.set('n', 1))
    rig.clock.advance(HOUR + MINUTE)
    return rig
  }

  const tokenOf = (client: Client): string => partsOf(client)[1]

  /** The cookies that one answer of several at once carries. */
  async function cookiesSent(
    rig: Rig,
    client: Client,
    handler: (session: Session) => Promise<void>,
  ): Promise<readonly string[]> {
    let response: Response | undefined
    await rig.ask(async (session, _req, res) => {
      response = res
      await handler(session)
    }, client)
    return [response?.getHeader('Set-Cookie') ?? []].flat().map(String)
  }

  describe('of requests that renew a token at once', () => {
    test.each([
      ['and only read', undefined],
      ['and write', 'write'],
    ])('%s, one sends a cookie: the old token does not come back to the browser', async (_what, write) => {
      const rig = await anHourLater({ renewAfter: '1h' })
      const old = tokenOf(rig.client)
      const arrive = meeting(3)
      const clients = [1, 2, 3].map(() => rig.client.clone())
      const answers = await Promise.all(
        clients.map((client, index) =>
          cookiesSent(rig, client, async (session) => {
            await arrive()
            if (write !== undefined) session.set(`${write}${index}`, true)
          }),
        ),
      )
      // Whichever answer comes last is what the browser goes on with: it has the new token, or none.
      const sent = answers.filter((cookies) => cookies.length > 0)
      expect(sent).toHaveLength(1)
      expect(clients.map(tokenOf).filter((token) => token !== old)).toHaveLength(1)
      expect(rig.heard('renewed')).toHaveLength(1)
    })

    test('renew() that comes second sends none either', async () => {
      const rig = await anHourLater()
      const arrive = meeting(2)
      const answers = await Promise.all(
        [1, 2].map(() =>
          cookiesSent(rig, rig.client.clone(), async (session) => {
            await arrive()
            await session.renew()
            await session.touch()
          }),
        ),
      )
      expect(answers.filter((cookies) => cookies.length > 0)).toHaveLength(1)
    })

    test('one that reads the session anew learns that its token is the old one', async () => {
      const rig = await anHourLater()
      const sent = await cookiesSent(rig, rig.client.clone(), async (session) => {
        await rig.ask((other) => other.renew())
        await session.reload()
        await session.touch()
      })
      expect(sent).toEqual([])
    })
  })
})
