// Store round trips per request, counted and not timed.
import { CONTENDERS } from './contenders.mjs'
import { Server, urlAndCookies } from './measure.mjs'

const REQUESTS = 50

/** Round trips per request of one contender, by work: Redis is asked what it received, other stores count their calls. */
export async function countTrips(name, { redis, setting }) {
  const usesRedis = ['redis', 'raw'].includes(CONTENDERS[name].kind)
  const server = await Server.start(name, { ...setting, isCounted: true })
  try {
    await server.seed('0.2', 1)
    const counts = {}
    for (const work of ['none', 'read', 'write']) {
      const { url, cookies } = urlAndCookies(server, { work, size: '0.2' })
      const send = () => sendAll(url, cookies[0])
      await send()
      counts[work] = (usesRedis ? await commandsOf(redis, send) : await callsOf(server, send)) / REQUESTS
    }
    return counts
  } finally {
    await server.stop()
  }
}

async function sendAll(url, cookie) {
  for (let index = 0; index < REQUESTS; index++) {
    const answer = await fetch(url, { headers: cookie === '' ? {} : { cookie } })
    await answer.arrayBuffer()
  }
}

async function callsOf(server, task) {
  const before = await server.usage()
  await task()
  return (await server.usage()).storeCalls - before.storeCalls
}

/** Commands that clients sent; what a script calls inside of Redis is no round trip. */
async function commandsOf(redis, task) {
  const monitor = await redis.client.monitor()
  let count = 0
  const marker = `end-${Math.random()}`
  const seen = new Promise((resolve) => {
    monitor.on('monitor', (_time, [command, argument, ...rest], source) => {
      // By time, however many requests there are: the epoch once a second, heartbeats of a near cache.
      const isOfTheClock = rest.some((part) => part.endsWith(':epoch')) || command.toLowerCase() === 'ping'
      if (command.toLowerCase() === 'echo' && argument === marker) resolve()
      else if (source !== 'lua' && !isOfTheClock) count++
    })
  })
  await task()
  await redis.client.echo(marker)
  await seen
  monitor.disconnect()
  return count
}
