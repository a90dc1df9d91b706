// What an application of tests/runtimes/app.mjs has to do on each runtime. Each check has clients of its own, and throws.
import { connect } from 'node:net'

/** On machines that are busy everything takes long; what never comes is to fail, and not to hang. */
const PATIENCE_MS = 30_000

/** Checks, each with a client of its own. */
export const CHECKS = Object.entries({
  async 'fields are kept'(url) {
    const client = new Client(url)
    await client.get('/set/a')
    await client.get('/set/b')
    equal((await client.get('/keys')).body, '["a","b"]')
  },
  async 'an untouched session gets no cookie'(url) {
    equal((await new Client(url).get('/me')).headers['set-cookie'], undefined)
  },
  async 'parallel changes all survive'(url) {
    const client = new Client(url)
    await client.get('/set/first')
    await Promise.all(Array.from({ length: 20 }, (_, n) => client.get(`/set/f${n}`)))
    equal(JSON.parse((await client.get('/keys')).body).length, 21)
  },
  async 'update() is atomic'(url) {
    const client = new Client(url)
    await client.get('/set/first')
    await Promise.all(Array.from({ length: 20 }, () => client.get('/count')))
    equal((await client.get('/count')).body, '21')
  },
  async 'a redirect comes after the save'(url) {
    const client = new Client(url)
    equal((await client.get('/redirect')).status, 302)
    equal((await client.get('/keys')).body, '["redirected"]')
  },
  async 'login gives another ID and cookie, and logout ends it'(url) {
    const client = new Client(url)
    await client.get('/set/a')
    const before = client.cookie
    await client.post('/login')
    if (client.cookie === before) throw new Error('the cookie is the same')
    equal((await client.get('/me')).body, 'ann')
    equal((await client.get('/keys')).body, '["a"]')
    equal((await new Client(url, before).get('/me')).body, 'nobody')
    const loggedIn = client.cookie
    await client.post('/logout')
    equal((await new Client(url, loggedIn).get('/me')).body, 'nobody')
  },
  async 'all sessions of a user end'(url) {
    const clients = [new Client(url), new Client(url)]
    for (const client of clients) await client.post('/login')
    await clients[0].post('/revoke')
    for (const client of clients) equal((await client.get('/me')).body, 'nobody')
  },
  async 'an event reaches a subscriber that nobody else holds'(url) {
    await new Client(url).post('/login')
    const heard = JSON.parse((await new Client(url).get('/heard')).body)
    if (!heard.includes('ann')) throw new Error(`only ${heard.length} were heard`)
  },
  ...Object.fromEntries(
    ['throws', 'rejects', 'next', 'twice'].map((fault) => [
      `a handler that answers and then fails (${fault}) has answered`,
      async (url) => {
        const client = new Client(url)
        await client.get('/set/a')
        const path = fault === 'twice' ? '/answers-twice' : `/answers-then-${fault}`
        const { status, body } = await client.get(path)
        equal(`${status} ${body}`, '200 answered')
        const kept = JSON.parse((await client.get('/keys')).body)
        equal(kept.length, 2)
      },
    ]),
  ),
  async 'a second answer is an error for who gives it'(url) {
    const heard = JSON.parse((await new Client(url).get('/heard')).body)
    if (!heard.includes('ERR_HTTP_HEADERS_SENT')) throw new Error('nobody was told')
  },
  async 'a handler that throws is answered with 500'(url) {
    equal((await new Client(url).get('/throws')).status, 500)
  },
  async 'a stream comes whole, and its changes are stored'(url) {
    const client = new Client(url)
    await client.get('/set/a')
    equal((await client.get('/streams')).body, 'part 0 part 1 part 2 end')
    equal((await client.get('/keys')).body, '["a","streamed"]')
  },
  async 'a failed save is a 503'(url) {
    const client = new Client(url)
    await client.get('/set/a')
    const { status, headers } = await client.get('/store-fails')
    equal(status, 503)
    equal(headers['retry-after'], '1')
    equal((await client.get('/keys')).body, '["a"]')
  },
  ...Object.fromEntries(
    ['1.1', '1.0'].map((http) => [
      `a stream whose save fails is cut off, and does not look whole: HTTP/${http}`,
      async (url) => {
        const client = new Client(url)
        await client.get('/set/a')
        const answer = await client.raw('/stream-that-fails', http)
        if (!answer.text.includes('part one')) throw new Error('nothing came')
        if (answer.text.includes('part two')) throw new Error('all of it came')
        const isWhole = http === '1.0' ? answer.error === undefined : answer.text.endsWith('\r\n0\r\n\r\n')
        if (isWhole) throw new Error('it looks whole')
      },
    ]),
  ),
})

/** What is asked of a file of SQLite besides. `restart()` kills the application, and resolves to the URL of the next on the same file. */
export const SQLITE_CHECKS = Object.entries({
  // The second time in a thread of its own, where the client can be loaded there.
  ...Object.fromEntries(
    [3, 2_500].map((count) => [
      `${count} records whose time has come are cleaned up, and no others`,
      async (url) => {
        const client = new Client(url)
        await client.get('/set/a')
        equal((await client.post(`/clean-up/${count}`)).body, String(count))
        equal((await client.get('/keys')).body, '["a"]')
      },
    ]),
  ),
  async 'a session lives on in the next process, and one that has ended does not'(url, restart) {
    const [client, other] = [new Client(url), new Client(url)]
    await client.get('/set/a')
    await other.post('/login')
    const { cookie } = other
    await other.post('/logout')
    const next = await restart()
    equal((await new Client(next, client.cookie).get('/keys')).body, '["a"]')
    equal((await new Client(next, cookie).get('/me')).body, 'nobody')
  },
})

function equal(found, wanted) {
  if (found !== wanted) throw new Error(`${JSON.stringify(found)} instead of ${JSON.stringify(wanted)}`)
}

/** Keeps its cookie, and follows nothing. */
class Client {
  #url
  cookie

  constructor(url, cookie) {
    this.#url = url
    this.cookie = cookie
  }

  get(path) {
    return this.#send('GET', path)
  }

  post(path) {
    return this.#send('POST', path)
  }

  async #send(method, path) {
    const response = await fetch(`${this.#url}${path}`, {
      method,
      redirect: 'manual',
      headers: { connection: 'close', ...(this.cookie && { cookie: this.cookie }) },
      signal: AbortSignal.timeout(PATIENCE_MS),
    })
    const body = await response.text()
    const [line] = response.headers.getSetCookie()
    if (line !== undefined) this.cookie = line.split(';')[0]
    return { status: response.status, headers: Object.fromEntries(response.headers), body }
  }

  /** What comes over the wire until the connection ends, and the error that it ends with. */
  raw(path, http) {
    const { hostname, port } = new URL(this.#url)
    return new Promise((resolve) => {
      let text = ''
      let error
      const socket = connect(Number(port), hostname)
      socket.setTimeout(PATIENCE_MS, () => socket.destroy(new Error('nothing more comes')))
      socket.on('data', (chunk) => {
        text += chunk
      })
      socket.on('error', (failure) => {
        error = failure
      })
      socket.on('close', () => resolve({ text, error }))
      socket.write(`GET ${path} HTTP/${http}\r\nHost: localhost\r\nCookie: ${this.cookie}\r\n\r\n`)
    })
  }
}
