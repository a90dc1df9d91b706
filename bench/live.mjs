// How soon endings are heard in another process, and how soon the sockets of a user are closed. Prints JSON.
//   argv: directory of the package, URL of a Redis, number of sockets, number of endings
// This process ends sessions; one that it starts holds their sockets, and a third is their clients.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { Agent, createServer, request } from 'node:http'
import { Redis } from 'ioredis'
import { load } from './contenders.mjs'
import { median } from './statistics.mjs'

const [, file, packageDirectory, redisUrl, sockets, endings, role] = process.argv
const SECRET = 'Jb2mV6xq9tRz4nKc7wLp3yHd8sFg5aQe'
const USER = 'ann'
const AT_ONCE = 50

if (role === 'holder') await hold()
else if (role === 'clients') await openSockets()
else await measure()

async function measure() {
  const { sessions, close } = await watched()
  const holder = start('holder')
  const { url } = await next(holder)
  const latency = await latencies(sessions.manager, holder)
  const clients = start('clients', url)
  await next(clients)
  const redis = new Redis(redisUrl)
  const subscribers = (await redis.client('LIST', 'TYPE', 'pubsub')).trim().split('\n').length
  redis.disconnect()
  const closed = next(holder)
  const begun = now()
  const revoked = await sessions.manager.revokeUser(USER)
  const revokedMs = now() - begun
  const { last, cpuMs } = await closed
  console.log(
    JSON.stringify({
      latency,
      sockets: { count: Number(sockets), revoked, subscribers, revokedMs, closedMs: last - begun, cpuMs },
    }),
  )
  for (const child of [holder, clients]) child.kill()
  await close()
}

/** From the call that ends a session in this process to the event in the other, in ms. */
async function latencies(manager, holder) {
  const found = []
  for (let n = 0; n < Number(endings); n++) {
    const { id } = await manager.create({})
    const heard = next(holder)
    const begun = now()
    await manager.revoke(id)
    found.push((await heard).heard - begun)
  }
  const sorted = found.sort((a, b) => a - b)
  return {
    count: sorted.length,
    median: median(sorted),
    p99: sorted[Math.floor(sorted.length * 0.99)],
    max: sorted.at(-1),
  }
}

/** A server with a stream for each session. */
async function hold() {
  const { closeOnEnd } = await load(packageDirectory, './live')
  const { sessions } = await watched()
  let closedCount = 0
  let cpuBefore
  sessions.events.on('ended', ({ isRemote, userId }) => {
    if (isRemote && userId === undefined) process.send({ heard: now() })
    else if (isRemote) cpuBefore ??= process.cpuUsage()
  })
  const server = createServer((req, res) => {
    sessions(req, res, async (error) => {
      if (error) return res.writeHead(503).end()
      if (req.url === '/login') {
        await req.session.login(USER)
        return res.end()
      }
      res.writeHead(200, { 'content-type': 'text/event-stream' })
      res.write('data: open\n\n')
      closeOnEnd(req.session, res)
      res.once('close', () => {
        if (++closedCount < Number(sockets)) return
        const { user, system } = process.cpuUsage(cpuBefore)
        process.send({ last: now(), cpuMs: (user + system) / 1000 })
      })
    })
  })
  server.listen(0, '127.0.0.1', () => process.send({ url: `http://127.0.0.1:${server.address().port}` }))
}

/** One stream for each session, all of one user. */
async function openSockets() {
  const url = process.argv[7]
  const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE })
  let left = Number(sockets)
  const openOne = async () => {
    const [login] = await once(request(`${url}/login`, { agent }).end(), 'response')
    login.resume()
    const cookie = login.headers['set-cookie'][0].split(';')[0]
    const [stream] = await once(request(`${url}/events`, { agent: false, headers: { cookie } }).end(), 'response')
    stream.on('error', () => {})
    await once(stream, 'data')
    stream.resume()
  }
  const work = async () => {
    while (left-- > 0) await openOne()
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  agent.destroy()
  process.send({ areOpen: true })
}

async function watched() {
  const { session } = await load(packageDirectory)
  const { RedisSessionStore } = await load(packageDirectory, './redis')
  const { watchEndings } = await load(packageDirectory, './live')
  const store = new RedisSessionStore({ url: redisUrl })
  const sessions = session({ secret: SECRET, store, storeTimeout: '30s', cookie: { secure: false } })
  const watch = await watchEndings(sessions.manager)
  return {
    sessions,
    async close() {
      await watch.stop()
      await sessions.manager.close()
      await store.close()
    },
  }
}

function start(as, ...args) {
  const child = fork(file, [packageDirectory, redisUrl, sockets, endings, as, ...args])
  child.once('exit', (code) => {
    if (code) throw new Error(`The process of ${as} ended with code ${code}.`)
  })
  return child
}

async function next(child) {
  const [message] = await once(child, 'message')
  return message
}

/** Milliseconds by the clock that all processes share. */
function now() {
  return Number(process.hrtime.bigint()) / 1e6
}
