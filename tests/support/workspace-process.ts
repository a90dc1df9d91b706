// A process that does to workspaces whatever a server does, without a pause, until it is killed: on the Redis of argv[2], in the
// root argv[3]. What it has saved, and was told so, stands in the set `saved` of that Redis.
import { randomInt } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { Redis } from 'ioredis'
import { workspaceOf, workspaces } from '../../src/features/workspace/index.js'
import { isSessionError, type Session, SessionManager } from '../../src/index.js'
import { RedisSessionStore } from '../../src/stores/redis.js'
import { Client, listen, SECRET } from './http.js'

const [, , url, root] = process.argv as [string, string, string, string]
const manager = new SessionManager({
  secret: SECRET,
  store: new RedisSessionStore({ url, prefix: 'kills:' }),
  storeTimeout: '20s',
})
const files = workspaces(manager, { root, sweepInterval: 0 })
const noted = new Redis(url)

const actions: Readonly<Record<string, (session: Session) => Promise<unknown>>> = {
  async save(session) {
    const workspace = await workspaceOf(session)
    await workspace.save(`${randomInt(3)}.txt`, 'x'.repeat(randomInt(20_000)), { whenTaken: 'replace' })
    await noted.sadd('saved', workspace.id)
    process.stdout.write('saved\n')
  },
  login: (session) => session.login('ann'),
  other: (session) => session.login('bob'),
  regenerate: (session) => session.regenerate({ keep: true }),
  logout: (session) => session.logout(),
  destroy: (session) => session.destroy(),
}
const { url: base } = await listen((req: IncomingMessage, res) => {
  manager.middleware()(req, res, () => {
    const act = actions[(req.url ?? '').slice(1)] as (session: Session) => Promise<unknown>
    act(req.session).then(
      () => res.end('done'),
      // Somebody else has ended it.
      () => res.writeHead(409).end(),
    )
  })
})

const clients = Array.from({ length: 4 }, () => new Client(base))
await Promise.all([...clients.map(browse), sweep(), revoke()])

async function browse(client: Client): Promise<void> {
  for (;;) {
    await client.get('/save')
    // Some leave, and come again as strangers.
    if (randomInt(3) === 0) client.cookies.clear()
    const names = Object.keys(actions)
    await client.get(`/${names[randomInt(names.length)]}`)
  }
}

async function sweep(): Promise<void> {
  for (;;) {
    await files.sweep().catch(unlessAway)
    await new Promise((resolve) => setTimeout(resolve, randomInt(20)))
  }
}

async function revoke(): Promise<void> {
  for (;;) {
    await revokeSome().catch(unlessAway)
    await new Promise((resolve) => setTimeout(resolve, randomInt(30)))
  }
}

async function revokeSome(): Promise<void> {
  for await (const { id } of manager.list()) if (randomInt(8) === 0) await manager.revoke(id)
}

/** A connection that is not there yet is no mistake of what is tested. */
function unlessAway(error: unknown): void {
  if (!isSessionError(error, 'STORE_UNAVAILABLE', 'STORE_TIMEOUT')) throw error
}
