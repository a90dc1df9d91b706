// What protection costs, inside one process: the same request with it and without it, in turns. Prints JSON: microseconds of CPU
// by what is protected, the least of many batches, since others use the processor as well.
//   argv: directory of the package, milliseconds for each step
import { createCipheriv, createSecretKey, generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { load } from './contenders.mjs'
import { exchange } from './in-process.mjs'

const [, , packageDirectory, ms] = process.argv
const { MemorySessionStore, session } = await load(packageDirectory)
const { csrf } = await load(packageDirectory, './csrf')
const { clientBinding } = await load(packageDirectory, './client-binding')
const { deviceBound } = await load(packageDirectory, './device-bound')
const { encrypted } = await load(packageDirectory, './encryption')
const options = { secret: 'Jb2mV6xq9tRz4nKc7wLp3yHd8sFg5aQe', cookie: { secure: false } }

const costs = [await csrfCost(), await clientCost(), await deviceCost(), await encryptionCost()]
console.log(JSON.stringify(Object.assign({}, ...costs)))

/** A POST of a session that reads one field. */
async function csrfCost() {
  const plain = session(options)
  const guard = csrf()
  const guarded = (req, res, next) => plain(req, res, (error) => (error ? next(error) : guard(req, res, next)))
  const cookie = await exchange(plain, { handler: (req) => Object.assign(req.session, { views: 1 }) })
  let token = ''
  await exchange(guarded, {
    cookie,
    handler: (req) => {
      token = req.csrfToken()
    },
  })
  const handler = (req) => req.session.views
  const post = (headers) => ({ method: 'POST', headers, cookie, handler })
  const bySite = post({ 'sec-fetch-site': 'same-origin' })
  const byToken = post({ 'x-csrf-token': token })
  const best = await leastOf({
    without: () => exchange(plain, bySite),
    site: () => exchange(guarded, bySite),
    token: () => exchange(guarded, byToken),
  })
  return {
    'csrf(), by Fetch Metadata: added': best.site - best.without,
    'csrf(), by a token: added': best.token - best.without,
  }
}

/** A session that reads one field, of a client that has not changed. */
async function clientCost() {
  const plain = session(options)
  const binding = clientBinding()
  const bound = (req, res, next) => plain(req, res, (error) => (error ? next(error) : binding(req, res, next)))
  const ip = '192.0.2.7'
  const headers = {
    'user-agent':
      'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36',
    'accept-language': 'de-AT,de;q=0.9,en-US;q=0.8,en;q=0.7',
  }
  const begin = (req) => Object.assign(req.session, { views: 1 })
  const cookie = await exchange(plain, { handler: begin })
  const boundCookie = await exchange(bound, { headers, ip, handler: begin })
  const handler = (req) => req.session.views
  const best = await leastOf({
    without: () => exchange(plain, { headers, ip, cookie, handler }),
    bound: () => exchange(bound, { headers, ip, cookie: boundCookie, handler }),
  })
  return { 'clientBinding(): added': best.bound - best.without }
}

/** A request of a bound session that reads one field. */
async function deviceCost() {
  const store = new MemorySessionStore()
  const plain = session({ ...options, store, trustProxy: true })
  const bound = deviceBound(session({ ...options, store, trustProxy: true }))
  const headers = { 'x-forwarded-proto': 'https' }
  let offer
  const login = (req, res, next) => {
    offer = res
    bound(req, res, () => req.session.login(1, { fields: { views: 1 } }).then(() => next(), next))
  }
  const first = await exchange(login, { cookie: '', headers, handler() {} })
  const [, challenge] = /challenge="([^"]+)"/.exec(offer.getHeader('secure-session-registration'))
  const proof = { ...headers, 'secure-session-response': registration(challenge) }
  const path = '/device-bound/registration'
  const second = await exchange(bound, { url: path, method: 'POST', cookie: first, headers: proof, handler() {} })
  const cookie = `${first}; ${second}`
  const request = { headers, cookie, handler: (req) => req.session.views }
  const best = await leastOf({
    without: () => exchange(plain, request),
    bound: () => exchange(bound, request),
  })
  return { 'deviceBound(), a bound cookie: added': best.bound - best.without }
}

/** What a browser sends to register a key. */
function registration(challenge) {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const parts = [{ alg: 'ES256', typ: 'dbsc+jwt', jwk: publicKey.export({ format: 'jwk' }) }, { jti: challenge }]
  const text = parts.map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
  return `${text}.${sign('sha256', Buffer.from(text), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
}

/** A field of 200 bytes. */
async function encryptionCost() {
  const text = 'x'.repeat(200)
  const codec = encrypted({ keys: randomBytes(32) }).forSession('a random text of it')
  const key = createSecretKey(randomBytes(32))
  const sealed = codec.seal(text, 'field')
  const best = await leastOf({
    alone() {
      const cipher = createCipheriv('aes-256-gcm', key, randomBytes(12))
      const body = cipher.update(text, 'utf8')
      cipher.final()
      return [body, cipher.getAuthTag()]
    },
    seal: () => codec.seal(text, 'field'),
    open: () => codec.open(sealed, 'field'),
  })
  return {
    'createCipheriv alone, 200 bytes': best.alone,
    'encrypted(), to seal 200 bytes': best.seal,
    'encrypted(), to open 200 bytes': best.open,
  }
}

/** Microseconds of CPU for each of these steps. */
async function leastOf(steps) {
  const BATCHES = 15
  const best = {}
  const counts = {}
  for (const [name, step] of Object.entries(steps)) counts[name] = await countIn(step, ms / BATCHES)
  for (let batch = 0; batch < BATCHES; batch++) {
    for (const [name, step] of Object.entries(steps)) {
      const us = (await cpuOf(step, counts[name])) / counts[name]
      best[name] = Math.min(best[name] ?? Number.POSITIVE_INFINITY, us)
    }
  }
  return best
}

/** How often a step goes into so many milliseconds. */
async function countIn(step, milliseconds) {
  await cpuOf(step, 2_000)
  return Math.max(200, Math.round((milliseconds * 1000 * 2_000) / (await cpuOf(step, 2_000))))
}

async function cpuOf(step, count) {
  const isAsync = step() instanceof Promise
  const before = process.cpuUsage()
  if (isAsync) for (let index = 0; index < count; index++) await step()
  else for (let index = 0; index < count; index++) step()
  const { user, system } = process.cpuUsage(before)
  return user + system
}
