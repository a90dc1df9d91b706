// Logs in on two devices, kills the worker that answered, goes on with the same session, and ends sessions from outside.
// Needs the server of this folder, its Redis, and to run on the same machine, since it kills a process.
import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { openSessions } from './sessions.js'

const [url = 'http://127.0.0.1:3000'] = process.argv.slice(2)
const user = `ann-${process.pid}`

interface Page {
  worker: number
  session: string
  user?: string
  visits?: number
  previousEnd?: { reason: string; by?: string; detail?: string }
}

/** As much of a browser as this takes: one cookie, and another try when a connection is lost. */
class Browser {
  readonly #name: string
  #cookie = ''

  constructor(name: string) {
    this.#name = name
  }

  async get(path: string): Promise<Page> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#send(path, { signal: AbortSignal.timeout(2_000) })
      } catch (error) {
        // For an instant the first process may still hand connections to the worker that is gone.
        if (attempt === 5) throw error
        await delay(100)
      }
    }
  }

  post(path: string, body: object): Promise<Page> {
    const headers = { 'content-type': 'application/json' }
    return this.#send(path, { method: 'POST', headers, body: JSON.stringify(body) })
  }

  async #send(path: string, init: RequestInit): Promise<Page> {
    // A new connection each time, so that any worker may answer.
    const headers = { ...init.headers, 'user-agent': this.#name, cookie: this.#cookie, connection: 'close' }
    const response = await fetch(`${url}${path}`, { ...init, headers })
    if (!response.ok) throw new Error(`${path} answered ${response.status}.`)
    for (const line of response.headers.getSetCookie()) this.#cookie = line.split(';', 1)[0] as string
    return (await response.json()) as Page
  }
}

const [laptop, phone] = [new Browser('Laptop'), new Browser('Phone')]
// The same sessions without a request. It signs no cookie, so its secret may be any.
const sessions = openSessions(randomBytes(32).toString('base64'))

try {
  await tell()
} finally {
  await sessions.close()
}

async function tell(): Promise<void> {
  const login = await laptop.post('/login', { name: user })
  console.log(`Laptop: ${login.user} is logged in. Session ${login.session}, answered by worker ${login.worker}.`)
  await phone.post('/login', { name: user })

  process.kill(login.worker, 'SIGKILL')
  console.log(`Worker ${login.worker} is killed.`)
  const after = await laptop.get('/')
  console.log(`Laptop: still ${after.user}. Session ${after.session}, answered by worker ${after.worker}.`)

  const list = await sessions.sessionsOf(user)
  for (const { id, context } of list) console.log(`Listed: ${id}, ${context.userAgent} at ${context.ip}.`)

  const lost = list.find(({ context }) => context.userAgent === 'Phone')
  if (lost) await sessions.revoke(lost.id, { by: 'story', detail: 'The phone is lost.' })
  const { user: whoIsThat, previousEnd } = await phone.get('/')
  console.log(`Phone: ${whoIsThat ?? 'nobody'}. ${previousEnd?.reason} by ${previousEnd?.by}: ${previousEnd?.detail}`)

  console.log(`Ended: ${await sessions.revokeUser(user)} more. Left: ${(await sessions.sessionsOf(user)).length}.`)
}
