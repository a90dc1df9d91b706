// The session cookie, from the header of a request to the header of a response.
import { once } from 'node:events'
import { createServer as createHttpServer, type RequestListener } from 'node:http'
import { createServer as createHttpsServer, request as httpsRequest, type RequestOptions } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { ConnectionOptions } from 'node:tls'
import { inspect } from 'node:util'
import { afterEach, describe, expect, jest, test } from '@jest/globals'
import { sign } from 'cookie-signature'
import type { Express, Request, Response } from 'express'
import fc from 'fast-check'
import {
  type CookieOptions,
  MemorySessionStore,
  SessionError,
  type SessionEventMap,
  type SessionMiddleware,
  type SessionOptions,
  session,
} from 'sojourn'
import { FakeClock, FaultyStore } from 'sojourn/testing'
import { clearCookie, readCookie, VerifiedCookies, writeCookie } from '../../src/cookie/cookie.js'
import { resolveCookie } from '../../src/cookie/cookie-options.js'
import { hashToken, newSessionId, newToken } from '../../src/ids.js'
import { testApp } from '../support/app.js'
import { bytesOfHeap } from '../support/garbage.js'
import { type Answer, Client, OTHER_SECRET, SECRET, send, type TestServer } from '../support/http.js'
import { callsOf } from '../support/records.js'

const HTTPS = { 'x-forwarded-proto': 'https' }
const MINUTE = 60_000
const open: { close(): Promise<void> }[] = []

afterEach(async () => {
  jest.restoreAllMocks()
  await Promise.all(open.splice(0).map((server) => server.close()))
})

interface Site {
  readonly server: TestServer
  readonly app: Express
  readonly middleware: SessionMiddleware
  readonly store: FaultyStore
  readonly client: Client
}

/** The test app with `extend` on it, in front of a store that counts. */
async function site(options: Partial<SessionOptions> = {}, extend: (app: Express) => void = () => {}): Promise<Site> {
  const store = options.store instanceof FaultyStore ? options.store : new FaultyStore(memory())
  const { app, middleware } = testApp({ ...options, store })
  extend(app)
  const server = await listening(app)
  return { server, app, middleware, store, client: new Client(server) }
}

function memory(): MemorySessionStore {
  return new MemorySessionStore({ cleanupInterval: 0, warnInProduction: false })
}

/** As `listen()`, closed after the test, with room for headers that are larger than Node's default. */
async function listening(handler: RequestListener): Promise<TestServer> {
  const server = createHttpServer({ maxHeaderSize: 128 * 1024 }, handler).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const close = async (): Promise<void> => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }
  const result = { url: `http://127.0.0.1:${port}`, port, server, close }
  open.push(result)
  return result
}

const behindProxy = (app: Express): void => {
  app.set('trust proxy', true)
}

function route(path: string, handler: (req: Request, res: Response) => unknown): (app: Express) => void {
  return (app) => {
    app.all(path, async (req, res) => {
      await handler(req, res)
      if (!res.headersSent) res.json({})
    })
  }
}

interface ParsedCookie {
  readonly name: string
  readonly value: string
  /** Attribute names in lower case; an attribute without a value holds `true`. */
  readonly attributes: Record<string, string | true>
}

function parse(line: string | undefined): ParsedCookie {
  if (line === undefined) throw new Error('There is no Set-Cookie header.')
  const [pair = '', ...rest] = line.split(';')
  const attributes: ParsedCookie['attributes'] = {}
  for (const part of rest) {
    const [name = '', value] = part.trim().split('=')
    attributes[name.toLowerCase()] = value ?? true
  }
  const equals = pair.indexOf('=')
  return { name: pair.slice(0, equals), value: pair.slice(equals + 1), attributes }
}

function cookieOf(answer: Answer): ParsedCookie {
  expect(answer.setCookies).toHaveLength(1)
  return parse(answer.setCookies[0])
}

/** What the clearing of a cookie must repeat, or a browser keeps the cookie. */
function identity({ name, attributes }: ParsedCookie): object {
  const { 'max-age': _maxAge, expires: _expires, ...kept } = attributes
  return { name, ...kept }
}

function inProduction<T>(build: () => T): T {
  const before = process.env['NODE_ENV']
  process.env['NODE_ENV'] = 'production'
  try {
    return build()
  } finally {
    process.env['NODE_ENV'] = before
  }
}

const plain = resolveCookie(SECRET, { secure: false })
const KEYS = plain.keys
/** A value that is rightly signed for the name `sid`. */
function signed(id = newSessionId(), token = newToken().token): { id: string; token: string; value: string } {
  return { id, token, value: parse(writeCookie(plain, { id, token, isSecure: false })).value }
}

const VALID = signed()
const [ID, TOKEN, SIGNATURE] = VALID.value.split('.') as [string, string, string]

/** A value with the signature in standard base64, as it was written once; this one has both characters that differ. */
const OLDER = ((): string => {
  for (;;) {
    const value = rightlySigned(newSessionId(), newToken().token)
    if (value.includes('+') && value.includes('/')) return value
  }
})()

function percentCodes(text: string): string {
  return [...text].map((char) => `%${char.charCodeAt(0).toString(16).padStart(2, '0').toUpperCase()}`).join('')
}

/** Values of `sid` that we never issued. Each is the whole header. */
const MALFORMED: readonly (readonly [what: string, header: string])[] = [
  ['an empty value', 'sid='],
  ['a name without a value', 'sid'],
  ['only separators', ';;; ; ;=;=;'],
  ['an unsigned value', `sid=${ID}.${TOKEN}`],
  ['an ID alone', `sid=${ID}`],
  ['a token alone', `sid=${TOKEN}`],
  ['a signature alone', `sid=${SIGNATURE}`],
  ['an empty signature', `sid=${ID}.${TOKEN}.`],
  ['no dots', `sid=${ID}${TOKEN}${SIGNATURE}`],
  ['one dot too many', `sid=${VALID.value}.`],
  ['parts in another order', `sid=${TOKEN}.${ID}.${SIGNATURE}`],
  ['a broken percent code', 'sid=%ZZ'],
  ['a value in percent codes of percent codes', `sid=${percentCodes(percentCodes(VALID.value))}`],
  ['an older signature in percent codes of percent codes', `sid=${encodeURIComponent(encodeURIComponent(OLDER))}`],
  ['quotes in percent codes', `sid=${encodeURIComponent(`"${VALID.value}"`)}`],
  ['percent codes of more than ASCII', `sid=${VALID.value.slice(0, -1)}%C3%A9`],
  ['a percent code that is cut off', `sid=${VALID.value.slice(0, -1)}%4`],
  ['a signature in two alphabets', `sid=${OLDER.replace('+', '-')}`],
  ['spaces for the + of an older signature', `sid=${OLDER.replaceAll('+', ' ')}`],
  ['latin-1', 'sid=caf\xe9\xff'],
  ['latin-1 behind a valid value', `sid=${VALID.value}\xe9`],
  ['JSON of cookie-parser', 'sid=j:{"id":"1"}'],
  ['signed JSON of cookie-parser', `sid=s:j:${sign('{"id":"1"}', SECRET)}`],
  ['a signed value of cookie-parser', `sid=s:${sign(`${ID}.${TOKEN}`, SECRET)}`],
  ['the same, encoded', `sid=${encodeURIComponent(`s:${sign(`${ID}.${TOKEN}`, SECRET)}`)}`],
  ['12 KB', `sid=${'x'.repeat(12 * 1024)}`],
  ['16 KB', `sid=${'x'.repeat(16 * 1024)}`],
  ['a valid value repeated to 12 KB', `sid=${VALID.value.repeat(100)}`],
  ['16 KB of dots', `sid=${'.'.repeat(16 * 1024)}`],
  ['16 KB of quotes', `sid=${'"'.repeat(16 * 1024)}`],
  ['16 KB of the name', 'sid='.repeat(4096)],
  ['16 KB of white space', `a=b;${' '.repeat(16 * 1024)}sid=x`],
  ['thousands of pairs', Array.from({ length: 2500 }, (_, n) => `a${n}=1`).join('; ')],
  ['thousands of junk cookies of the name', 'sid=junk; '.repeat(1600)],
  ['a single quote mark', 'sid="'],
  ['an opening quote only', `sid="${VALID.value}`],
  ['quotes twice', `sid=""${VALID.value}""`],
  ['the name in upper case', `SID=${VALID.value}`],
  ['a name that ends in ours', `xsid=${VALID.value}; x-sid=${VALID.value}; "sid=${VALID.value}`],
  ['a name that begins with ours', `sidx=${VALID.value}; sid2=${VALID.value}; sid.sig=${VALID.value}`],
  ['white space in the name', `s id=${VALID.value}; sid =${VALID.value}`],
  ['white space inside the value', `sid=${ID} .${TOKEN}.${SIGNATURE}`],
  ['a comma instead of a semicolon', `a=b, sid=${VALID.value}`],
  ['the value inside another cookie', `a=sid=${VALID.value}`],
  ['an upper-case ID', `sid=${ID.toUpperCase()}.${TOKEN}.${SIGNATURE}`],
  ['a token in another alphabet', `sid=${ID}.${TOKEN.slice(0, -1)}+.${SIGNATURE}`],
  ['a signature in another alphabet', `sid=${ID}.${TOKEN}.${SIGNATURE.slice(0, -1)}_`],
  ['a padded signature', `sid=${VALID.value}=`],
  ['a value cut by one character', `sid=${VALID.value.slice(0, -1)}`],
  ['a value cut by one character in front', `sid=${VALID.value.slice(1)}`],
  ['a value longer by one character', `sid=${VALID.value}A`],
  ['a value longer by one character in front', `sid=a${VALID.value}`],
  ['a token cut by one character', `sid=${ID}.${TOKEN.slice(1)}.${SIGNATURE}`],
  ['names from Object.prototype', '__proto__=x; constructor=y; sid=__proto__'],
  ...['1', '2', '3', '5', '6', '7', '8'].map((version) => {
    const id = `${ID.slice(0, 14)}${version}${ID.slice(15)}`
    return [`a UUID of version ${version}`, `sid=${rightlySigned(id, TOKEN)}`] as const
  }),
  ['a UUID of another variant', `sid=${rightlySigned(`${ID.slice(0, 19)}c${ID.slice(20)}`, TOKEN)}`],
  ['the nil UUID', `sid=${rightlySigned('00000000-0000-0000-0000-000000000000', TOKEN)}`],
  ['an upper-case ID, rightly signed', `sid=${rightlySigned(ID.toUpperCase(), TOKEN)}`],
  ['a Redis pattern, rightly signed', `sid=${rightlySigned('*', TOKEN)}`],
]

/** What somebody with the secret could make, of any shape. */
function rightlySigned(id: string, token: string): string {
  return sign(`sid=${id}.${token}`, SECRET).slice('sid='.length)
}

/** Never sent by Node's own client, and refused by its server, but other servers may let them through. */
const UNSENDABLE: readonly (readonly [what: string, header: string])[] = [
  ['NUL', 'sid=\0'],
  ['NUL behind a valid value', `sid=${VALID.value}\0`],
  ['line breaks', `a=b\r\nsid=${VALID.value}`],
  ['Unicode', 'sid=\u{1F36A}\uD800'],
  ['full-width characters', `ｓｉｄ=${VALID.value}`],
  ['an empty header', ''],
]

describe('a malformed cookie', () => {
  test.each([...MALFORMED, ...UNSENDABLE])('%s is not read', (_what, header) => {
    expect(readCookie(header, 'sid', KEYS).claims).toEqual([])
  })

  test('starts a new session without a store call, an exception or a cookie', async () => {
    const { client, store, middleware } = await site()
    const bad: SessionEventMap['badCookie'][] = []
    middleware.events.on('badCookie', (event) => bad.push(event))
    const ids = new Set<string>()
    for (const [what, header] of MALFORMED) {
      const answer = await client.get('/peek', { cookie: header })
      expect([what, answer.status, answer.setCookies]).toEqual([what, 200, []])
      expect(answer.json()['fields']).toEqual({})
      ids.add(String(answer.json()['id']))
    }
    expect(ids.size).toBe(MALFORMED.length)
    expect(ids).not.toContain(ID)
    expect(store.totalCalls).toBe(0)
    expect(bad.length).toBeGreaterThan(MALFORMED.length / 2)
  })

  test('gives way to a new session that can be filled', async () => {
    const { client, store } = await site()
    client.cookies.set('sid', `${VALID.value}x`)
    await client.post('/set?a=1')
    expect((await client.get('/peek')).json()['fields']).toEqual({ a: '1' })
    expect(store.calls.create).toBe(1)
  })

  test('of which any one bit was flipped is refused', async () => {
    for (let position = 0; position < VALID.value.length; position++) {
      for (let bit = 0; bit < 8; bit++) {
        expect(readCookie(`sid=${flipped(position, bit)}`, 'sid', KEYS).claims).toEqual([])
      }
    }
    const { client, store } = await site()
    for (let position = 0; position < VALID.value.length; position++) {
      const answer = await client.get('/peek', { cookie: `sid=${flipped(position, 0)}` })
      expect(answer.status).toBe(200)
      expect(answer.json()['id']).not.toBe(VALID.id)
    }
    expect(store.totalCalls).toBe(0)
  })

  test('is told as malformed or as wrongly signed', async () => {
    const { client, middleware } = await site()
    const reasons: string[] = []
    middleware.events.on('badCookie', ({ reason }) => reasons.push(reason))
    await client.get('/peek', { cookie: `sid=${ID}` })
    // Of the right shape, whatever the token was.
    const [id, token = '', signature] = VALID.value.split('.')
    const altered = (token.startsWith('A') ? 'B' : 'A') + token.slice(1)
    await client.get('/peek', { cookie: `sid=${id}.${altered}.${signature}` })
    await client.get('/peek', { cookie: 'other=1' })
    await client.get('/peek')
    expect(reasons).toEqual(['malformed', 'signature'])
  })

  test.each([
    ['junk of one piece', `sid=${'x'.repeat(16 * 1024)}`],
    ['the name again and again', 'sid='.repeat(4096)],
    ['junk pairs of the name', 'sid=junk; '.repeat(1638)],
    ['forgeries of the right shape', forgeries(126)],
    ['white space', `a=b;${' '.repeat(16 * 1024)}sid=x`],
    ['quotes', `sid=${'"'.repeat(16 * 1024)}`],
    ['other pairs', 'abcdefg=hijklmn; '.repeat(960)],
    ['our name with white space', ';\t sid=  '.repeat(1800)],
  ])('of 16 KB costs less than a millisecond: %s', (_what, header) => {
    expect(header.length).toBeGreaterThan(15_000)
    const keys = resolveCookie([SECRET, OTHER_SECRET], { secure: false }).keys
    const times: number[] = []
    for (let run = 0; run < 101; run++) {
      const start = performance.now()
      readCookie(header, 'sid', keys)
      times.push(performance.now() - start)
    }
    expect(times.sort((a, b) => a - b)[50]).toBeLessThan(1)
  })

  test('never throws and never opens a session, whatever it holds (properties)', () => {
    const pieces = fc.constantFrom('sid=', 'sid', '=', ';', '; ', '"', '.', ',', ' ', '\t', '%', ID, TOKEN, SIGNATURE)
    const headers = fc
      .array(fc.oneof(pieces, fc.string({ unit: 'binary' }), fc.string()))
      .map((parts) => parts.join(''))
    fc.assert(
      fc.property(headers, (header) => {
        const { claims } = readCookie(header, 'sid', KEYS)
        // Only the value as a whole, put together again by chance, is ours.
        for (const claim of claims) expect([claim.id, claim.token]).toEqual([ID, TOKEN])
        if (!header.includes(VALID.value)) expect(claims).toEqual([])
      }),
      { numRuns: 1000 },
    )
  })

  test('that differs from a valid one in any place is refused (properties)', () => {
    const edit = fc.record({
      at: fc.nat(VALID.value.length),
      remove: fc.nat(3),
      insert: fc.string({ unit: fc.constantFrom(...'abcABC019.-_+/=%" ;\t\0\xe9'), maxLength: 3 }),
    })
    fc.assert(
      fc.property(edit, ({ at, remove, insert }) => {
        const value = VALID.value.slice(0, at) + insert + VALID.value.slice(at + remove)
        const [first = ''] = value.split(';')
        const edited = first.replace(/^[ \t]+|[ \t]+$/g, '')
        // The same signature in the other alphabet.
        const isSame = edited === VALID.value || edited === inStandardBase64(VALID.value)
        expect(readCookie(`sid=${value}`, 'sid', KEYS).claims).toHaveLength(isSame ? 1 : 0)
      }),
      { numRuns: 3000 },
    )
  })
})

function inStandardBase64(value: string): string {
  const [id, token, signature = ''] = value.split('.')
  return `${id}.${token}.${signature.replaceAll('-', '+').replaceAll('_', '/')}`
}

function flipped(position: number, bit: number): string {
  const { value } = VALID
  const char = String.fromCharCode(value.charCodeAt(position) ^ (1 << bit))
  return value.slice(0, position) + char + value.slice(position + 1)
}

/** Cookies of our shape whose signature is not ours. */
function forgeries(count: number): string {
  const forge = (): string => `sid=${newSessionId()}.${newToken().token}.${SIGNATURE}`
  return Array.from({ length: count }, forge).join('; ')
}

describe('a valid cookie is read', () => {
  test.each([
    ['alone', (value: string) => `sid=${value}`],
    ['without a space behind the semicolon', (value: string) => `a=1;sid=${value};b=2`],
    ['among others', (value: string) => `a=1; sid=${value}; b=2`],
    ['after a tab', (value: string) => `a=1;\tsid=${value}`],
    ['after much white space', (value: string) => `a=1; \t  \t sid=${value}`],
    ['with white space in front of the header', (value: string) => ` \tsid=${value}`],
    ['with white space around its value', (value: string) => `sid= \t${value}\t ; b=2`],
    ['in quotes', (value: string) => `sid="${value}"`],
    ['in percent codes, each character', (value: string) => `sid=${percentCodes(value)}`],
    ['in percent codes and quotes', (value: string) => `sid="${percentCodes(value).toLowerCase()}"`],
    [
      'in percent codes where a careful client writes them',
      (value: string) => `sid=${value.replace(/[-._]/g, percentCodes)}`,
    ],
    ['twice', (value: string) => `sid=${value}; sid=${percentCodes(value)}`],
    ['with an older signature', (value: string) => `sid=${inStandardBase64(value)}`],
    ['with an older signature, encoded', (value: string) => `sid=${encodeURIComponent(inStandardBase64(value))}`],
    ['next to names that resemble ours', (value: string) => `xsid=1; sid=${value}; sidx=2; sid.sig=3`],
    ['with a semicolon at the end', (value: string) => `sid=${value};`],
    ['behind latin-1', (value: string) => `a=caf\xe9; sid=${value}`],
    ['behind thousands of pairs', (value: string) => `${'a=1; '.repeat(2500)}sid=${value}`],
  ])('%s', async (_what, header) => {
    const { client } = await site()
    await client.post('/set?a=1')
    const value = client.cookies.get('sid') as string
    expect((await client.get('/peek', { cookie: header(value) })).json()['fields']).toEqual({ a: '1' })
  })

  test('as it was written, under any name and with any secret (properties)', () => {
    const names = fc.string({ unit: fc.constantFrom(...'abcXYZ019-_.!#$%&*+^|~'), minLength: 1, maxLength: 30 })
    fc.assert(
      fc.property(names, fc.boolean(), fc.constantFrom(SECRET, OTHER_SECRET), (name, isSecure, secret) => {
        const cookie = resolveCookie(secret, { name })
        const { id, token } = { id: newSessionId(), token: newToken().token }
        const written = parse(writeCookie(cookie, { id, token, isSecure }))
        expect(readCookie(`${written.name}=${written.value}`, written.name, cookie.keys)).toEqual({
          claims: [{ id, token, tokenHash: hashToken(token), isCurrent: true }],
          rejected: null,
        })
      }),
      { numRuns: 200 },
    )
  })

  test('in every writing of a client that encodes, as one claim; never encoded twice (properties)', () => {
    const writings: readonly ((value: string) => string)[] = [
      (value) => value,
      inStandardBase64,
      encodeURIComponent,
      (value) => encodeURIComponent(inStandardBase64(value)),
      // .NET writes codes in lower case, Python leaves the slash.
      (value) => encodeURIComponent(inStandardBase64(value)).replace(/%../g, (code) => code.toLowerCase()),
      (value) => encodeURIComponent(inStandardBase64(value)).replaceAll('%2F', '/'),
      percentCodes,
      (value) => percentCodes(inStandardBase64(value)),
      (value) => `"${value}"`,
      (value) => `"${encodeURIComponent(inStandardBase64(value))}"`,
    ]
    const some = fc.array(fc.constantFrom(...writings), { minLength: 1, maxLength: 10 })
    const tokens = fc
      .uint8Array({ minLength: 32, maxLength: 32 })
      .map((bytes) => Buffer.from(bytes).toString('base64url'))
    fc.assert(
      fc.property(some, tokens, fc.uuid({ version: 4 }), (chosen, token, id) => {
        const { value } = parse(writeCookie(plain, { id, token, isSecure: false }))
        expect(encodeURIComponent(value)).toBe(value)
        const claim = { id, token, tokenHash: hashToken(token), isCurrent: true }
        const header = chosen.map((write) => `sid=${write(value)}`).join('; ')
        const verified = new VerifiedCookies()
        for (let again = 0; again < 2; again++) {
          expect(readCookie(header, 'sid', KEYS, verified)).toEqual({ claims: [claim], rejected: null })
        }
        for (const write of chosen) {
          const twice = percentCodes(percentCodes(write(value)))
          expect(readCookie(`sid=${twice}`, 'sid', KEYS).claims).toEqual([])
        }
      }),
      { numRuns: 300 },
    )
  })

  test('is verified once, as long as few others come in between, and never without a signature', () => {
    const verified = new VerifiedCookies()
    const cookies = Array.from({ length: 1_001 }, () =>
      String(writeCookie(plain, { id: newSessionId(), token: newToken().token, isSecure: false }).split(';')[0]),
    )
    const [first = '', second = ''] = cookies
    const keys = [...KEYS]
    /** Without a key only what is known already is found. */
    const isKnown = (cookie: string): boolean => {
      const taken = keys.splice(0)
      const { claims } = readCookie(cookie, 'sid', keys, verified)
      keys.push(...taken)
      return claims.length === 1
    }
    expect(isKnown(first)).toBe(false)
    const { claims } = readCookie(first, 'sid', keys, verified)
    expect(claims).toHaveLength(1)
    expect(isKnown(first)).toBe(true)
    for (const forged of [
      `${first.slice(0, -1)}!`,
      first.replace(/.$/, (last) => (last === 'A' ? 'B' : 'A')),
      second,
    ]) {
      expect(isKnown(forged)).toBe(false)
    }
    for (const cookie of cookies) readCookie(cookie, 'sid', keys, verified)
    expect([isKnown(first), isKnown(second)]).toEqual([false, true])
  })

  test('does not keep the header that it came in, once it was verified', () => {
    const verified = new VerifiedCookies()
    const before = bytesOfHeap()
    for (let n = 0; n < 500; n++) {
      const cookie = writeCookie(plain, { id: newSessionId(), token: newToken().token, isSecure: false }).split(';')[0]
      const header = Buffer.from(`${cookie}; other=${'x'.repeat(20_000)}`).toString()
      expect(readCookie(header, 'sid', KEYS, verified).claims).toHaveLength(1)
    }
    expect((bytesOfHeap() - before) / 500).toBeLessThan(5_000)
  })

  test('wherever it stands among cookies of other names (properties)', () => {
    const text = fc.string({ unit: fc.constantFrom(...'abcsid019%"=., \t') })
    const pairs = fc.array(fc.tuple(text, text).map(([name, value]) => `x${name.replaceAll('=', '')}=${value}`))
    fc.assert(
      fc.property(pairs, pairs, (before, after) => {
        const header = [...before, `sid=${VALID.value}`, ...after].join('; ')
        expect(readCookie(header, 'sid', KEYS).claims).toEqual([
          { id: ID, token: TOKEN, tokenHash: hashToken(TOKEN), isCurrent: true },
        ])
      }),
      { numRuns: 500 },
    )
  })
})

describe('of several cookies of the name', () => {
  async function twoSessions(): Promise<Site & { first: string; second: string }> {
    const built = await site()
    const values: string[] = []
    for (const name of ['first', 'second']) {
      const client = new Client(built.server)
      await client.post(`/set?name=${name}`)
      values.push(client.cookies.get('sid') as string)
    }
    return { ...built, first: values[0] as string, second: values[1] as string }
  }
  const nameIn = (answer: Answer): unknown => (answer.json()['fields'] as Record<string, unknown>)['name']

  test('the valid one wins, junk first or last', async () => {
    const { client, first } = await twoSessions()
    const forged = forgeries(1).slice('sid='.length)
    for (const junk of ['junk', '', '%ZZ', '"', 'x'.repeat(4000), forged]) {
      expect(nameIn(await client.get('/peek', { cookie: `sid=${junk}; sid=${first}` }))).toBe('first')
      expect(nameIn(await client.get('/peek', { cookie: `sid=${first}; sid=${junk}` }))).toBe('first')
      expect(nameIn(await client.get('/peek', { cookie: `sid=${junk}; sid=${junk}; sid=${first}` }))).toBe('first')
    }
  })

  test('the valid one wins behind any number of malformed ones', async () => {
    const { client, first } = await twoSessions()
    expect(nameIn(await client.get('/peek', { cookie: `${'sid=junk; '.repeat(500)}sid=${first}` }))).toBe('first')
  })

  test('none is believed when two are live, in either order: one may have been planted', async () => {
    const { client, middleware, store, first, second } = await twoSessions()
    const conflicts: SessionEventMap['cookieConflict'][] = []
    middleware.events.on('cookieConflict', (event) => conflicts.push(event))
    const ids = [first, second].map((value) => value.split('.')[0] as string)
    const before = callsOf(store)
    for (const cookie of [`sid=${first}; sid=${second}`, `sid=junk; sid=${second}; sid=${second}; sid=${first}`]) {
      const answer = await client.get('/peek', { cookie })
      expect(answer.json()['fields']).toEqual({})
      expect(ids).not.toContain(answer.json()['id'])
      expect(answer.setCookies).toEqual([])
    }
    expect(conflicts).toMatchObject([{ ids }, { ids: [...ids].reverse() }])
    expect(callsOf(store)).toEqual({ ...before, get: before.get + 4 })
    // Neither is over for it.
    expect(nameIn(await client.get('/peek', { cookie: `sid=${first}` }))).toBe('first')
    expect(nameIn(await client.get('/peek', { cookie: `sid=${second}` }))).toBe('second')
    expect(conflicts).toHaveLength(2)
  })

  test('one whose session is over gives way to the live one', async () => {
    const { client, first, second } = await twoSessions()
    await client.post('/logout', undefined, { cookie: `sid=${first}` })
    expect(nameIn(await client.get('/peek', { cookie: `sid=${first}; sid=${second}` }))).toBe('second')
    expect(nameIn(await client.get('/peek', { cookie: `sid=${second}; sid=${first}` }))).toBe('second')
  })

  test('those of one session are no conflict: the one before a renewal, or before a login', async () => {
    const { client, middleware } = await site()
    const told: string[] = []
    middleware.events.on('cookieConflict', () => told.push('conflict'))
    await client.post('/set?name=mine')
    const older = client.cookies.get('sid') as string
    await client.post('/renew')
    const renewed = client.cookies.get('sid') as string
    for (const cookie of [`sid=${older}; sid=${renewed}`, `sid=${renewed}; sid=${older}`]) {
      expect(nameIn(await client.get('/peek', { cookie }))).toBe('mine')
      // The newer token is the one that counts: it can be renewed again.
      expect((await client.clone().post('/set?seen=1', undefined, { cookie })).status).toBe(200)
    }
    await client.post('/login')
    const loggedIn = client.cookies.get('sid') as string
    for (const cookie of [`sid=${renewed}; sid=${loggedIn}`, `sid=${loggedIn}; sid=${renewed}; sid=${older}`]) {
      expect((await client.get('/peek', { cookie })).json()).toMatchObject({ userId: 'ann', fields: { name: 'mine' } })
    }
    expect(told).toEqual([])
  })

  test('the current token of a session counts before the one before it', async () => {
    const { client } = await site()
    await client.post('/set?name=mine')
    const older = client.cookies.get('sid') as string
    await client.post('/renew')
    // Who comes with the older token alone is sent the newer one again.
    expect((await client.clone().get('/peek', { cookie: `sid=${older}` })).setCookies).toHaveLength(1)
    const both = `sid=${older}; ${client.cookieHeader}`
    expect((await client.clone().get('/peek', { cookie: both })).setCookies).toEqual([])
  })

  test('the first is believed by choice, and under the prefix __Host-, which nobody else can set', async () => {
    const chosen = await site({ cookie: { onConflict: 'first' } })
    const prefixed = await site({}, behindProxy)
    for (const [{ server, store, middleware }, headers, name] of [
      [chosen, {}, 'sid'],
      [prefixed, HTTPS, '__Host-sid'],
    ] as const) {
      const told: string[] = []
      middleware.events.on('cookieConflict', () => told.push('conflict'))
      const values: string[] = []
      for (const value of ['first', 'second']) {
        const client = new Client(server)
        await client.post(`/set?name=${value}`, undefined, headers)
        values.push(`${name}=${client.cookies.get(name)}`)
      }
      const before = store.calls.get
      const client = new Client(server)
      expect(nameIn(await client.get('/peek', { ...headers, cookie: values.join('; ') }))).toBe('first')
      expect(nameIn(await client.get('/peek', { ...headers, cookie: values.reverse().join('; ') }))).toBe('second')
      expect(store.calls.get - before).toBe(2)
      expect(told).toEqual([])
    }
  })

  test('none is believed under __Secure-, which a neighbour with HTTPS can set', async () => {
    const { server } = await site({ cookie: { domain: 'example.com' } }, behindProxy)
    const values: string[] = []
    for (const value of ['first', 'second']) {
      const client = new Client(server)
      await client.post(`/set?name=${value}`, undefined, HTTPS)
      values.push(client.cookieHeader)
    }
    expect(nameIn(await new Client(server).get('/peek', { ...HTTPS, cookie: values.join('; ') }))).toBeUndefined()
  })

  test('a conflict is warned of, once, when nobody listens', async () => {
    const { client, first, second } = await twoSessions()
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    for (let n = 0; n < 3; n++) await client.get('/peek', { cookie: `sid=${first}; sid=${second}` })
    expect(warnings.mock.calls).toEqual([
      [expect.stringContaining('cookie.onConflict'), { type: 'SojournWarning', code: 'SOJOURN_COOKIECONFLICT' }],
    ])
    expect(JSON.stringify(warnings.mock.calls)).not.toContain(first)
  })

  test('an unknown one that is rightly signed gives way to the live one', async () => {
    const { client, second } = await twoSessions()
    expect(nameIn(await client.get('/peek', { cookie: `sid=${VALID.value}; sid=${second}` }))).toBe('second')
  })

  test('at most ten of our shape are tried', async () => {
    const { client, store, first } = await twoSessions()
    expect(nameIn(await client.get('/peek', { cookie: `${forgeries(9)}; sid=${first}` }))).toBe('first')
    expect(nameIn(await client.get('/peek', { cookie: `${forgeries(10)}; sid=${first}` }))).toBeUndefined()
    const before = store.calls.get
    const many = Array.from({ length: 60 }, () => `sid=${signed().value}`).join('; ')
    await client.get('/peek', { cookie: many })
    expect(store.calls.get - before).toBe(10)
  })
})

describe('the signature', () => {
  test('is bound to the name: a value for another name is refused', async () => {
    const { client, store } = await site()
    for (const name of ['other', 'SID', 'sid2', '__Host-sid', '']) {
      const value = sign(`${name}=${ID}.${TOKEN}`, SECRET).slice(name.length + 1)
      expect((await client.get('/peek', { cookie: `sid=${value}` })).status).toBe(200)
    }
    expect(store.totalCalls).toBe(0)
  })

  test('is none that cookie-parser makes with the same secret', async () => {
    const { client, store } = await site()
    const value = sign(`${ID}.${TOKEN}`, SECRET)
    for (const candidate of [value, `s:${value}`, encodeURIComponent(`s:${value}`)]) {
      await client.get('/peek', { cookie: `sid=${candidate}` })
    }
    expect(store.totalCalls).toBe(0)
  })

  test('keeps two applications with one secret and one store apart', async () => {
    const one = await site({ cookie: { name: 'one' } })
    const two = await site({ cookie: { name: 'two' }, store: one.store })
    await one.client.post('/set?a=1')
    const value = one.client.cookies.get('one') as string
    const calls = one.store.totalCalls
    expect((await two.client.get('/peek', { cookie: `two=${value}` })).json()['fields']).toEqual({})
    expect(one.store.totalCalls).toBe(calls)
  })

  test('keeps the plain and the secure cookie apart, both ways', async () => {
    const { client, server, store } = await site({}, behindProxy)
    const secure = new Client(server)
    await client.post('/set?a=1')
    await secure.post('/set?b=1', undefined, HTTPS)
    const plainValue = client.cookies.get('sid')
    const secureValue = secure.cookies.get('__Host-sid')
    const calls = store.totalCalls
    const anonymous = new Client(server)
    for (const [name, value, headers] of [
      ['__Host-sid', plainValue, HTTPS],
      ['sid', plainValue, HTTPS],
      ['sid', secureValue, {}],
      ['__Host-sid', secureValue, {}],
    ] as const) {
      const answer = await anonymous.get('/peek', { ...headers, cookie: `${name}=${value}` })
      expect(answer.json()['fields']).toEqual({})
    }
    expect(store.totalCalls).toBe(calls)
  })
})

describe('a list of secrets', () => {
  test('verifies with all, signs with the newest, and reissues what an older one signed', async () => {
    const store = new FaultyStore(memory())
    const old = await site({ store, secret: OTHER_SECRET })
    await old.client.post('/set?a=1')
    const before = old.client.cookies.get('sid') as string

    const rotating = await site({ store, secret: [SECRET, OTHER_SECRET] })
    const client = new Client(rotating.server, old.client.cookies)
    const reissued = await client.get('/plain')
    expect(cookieOf(reissued).value).not.toBe(before)
    expect(cookieOf(reissued).value.split('.').slice(0, 2)).toEqual(before.split('.').slice(0, 2))
    expect((await client.get('/plain')).setCookies).toEqual([])

    const rotated = await site({ store, secret: SECRET })
    expect((await new Client(rotated.server, client.cookies).get('/peek')).json()['fields']).toEqual({ a: '1' })
    const forgotten = await new Client(rotated.server, old.client.cookies).get('/peek')
    expect(forgotten.json()['fields']).toEqual({})
  })

  test('reissues without a write to the store', async () => {
    const store = new FaultyStore(memory())
    const old = await site({ store, secret: OTHER_SECRET })
    await old.client.post('/set?a=1')
    const before = callsOf(store)
    const rotating = await site({ store, secret: [SECRET, OTHER_SECRET] })
    await new Client(rotating.server, old.client.cookies).get('/peek')
    expect(callsOf(store)).toEqual({ ...before, get: before.get + 1 })
  })

  test('never signs with an older one', async () => {
    const { client } = await site({ secret: [SECRET, OTHER_SECRET] })
    const answers = [await client.post('/set?a=1'), await client.post('/login'), await client.post('/renew')]
    const older = resolveCookie(OTHER_SECRET, { secure: false }).keys
    for (const answer of answers) {
      const header = `sid=${cookieOf(answer).value}`
      expect(readCookie(header, 'sid', KEYS).claims).toHaveLength(1)
      expect(readCookie(header, 'sid', older).claims).toEqual([])
    }
  })

  test.each([
    ['empty', ''],
    ['of one character', 'k'],
    ['of 31 characters', SECRET.slice(1)],
    ['famous', 'keyboard cat'],
    ['famous and padded', 'keyboard cat keyboard cat keyboard cat'],
    ['a word', 'secret'],
    ['a placeholder', 'change-me-change-me-change-me-1234567890'],
    ['a placeholder of another kind', 'your-256-bit-secret-goes-here-0XyZ'],
    ['a password', 'MyPassword1234567890!MyOtherThing'],
    ['a row of digits and letters', '0123456789abcdefghijklmnopqrstuvwxyz'],
    ['one character again and again', 'a'.repeat(64)],
    ['two characters again and again', 'ab'.repeat(32)],
    ['eight characters again and again', 'a8Gk2pQz'.repeat(4)],
    ['a word again and again', 'Tr0ub4dor&3'.repeat(4)],
    ['a long word and a half', 'x9Kd02mLq7Rt'.repeat(3).slice(0, 33)],
  ])('is refused with one that is %s, which the message does not print', (_what, weak) => {
    for (const [secret, index] of [
      [weak, 0],
      [[weak, SECRET], 0],
      [[SECRET, weak], 1],
    ] as const) {
      const error = refusal(() => session({ secret }))
      expect(error.message).toContain(`secret ${index} `)
      if (weak.length > 6) expect(inspect(error, { showHidden: true })).not.toContain(weak)
      if (weak.length > 6) expect(error.message).not.toContain(weak.slice(0, 8))
      expect(inspect(error, { showHidden: true })).not.toContain(SECRET)
    }
  })

  test('is refused when it is missing, empty or not text', () => {
    for (const secret of [undefined, null, [], 42, {}, Buffer.from(SECRET), [undefined], [SECRET, 42], [[SECRET]]]) {
      expect(refusal(() => session({ secret: secret as never })).message).toMatch(/^secret /)
    }
  })

  test('takes what random sources make', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 32, maxLength: 64 }),
        fc.constantFrom('hex', 'base64'),
        (bytes, format) => {
          fc.pre(new Set(bytes).size > 24)
          expect(() => resolveCookie(Buffer.from(bytes).toString(format as 'hex'), {})).not.toThrow()
        },
      ),
    )
  })
})

/** The error that building a middleware is refused with. */
function refusal(build: () => unknown): SessionError {
  try {
    build()
  } catch (error) {
    expect(error).toBeInstanceOf(SessionError)
    expect((error as SessionError).code).toBe('INVALID_OPTION')
    return error as SessionError
  }
  throw new Error('It was not refused.')
}

describe('over HTTPS', () => {
  const defaults = {
    name: '__Host-sid',
    attributes: { path: '/', httponly: true, secure: true, priority: 'High', samesite: 'Lax' },
  }

  test('behind a proxy that Express trusts, the cookie is __Host-, Secure, HttpOnly, Lax, for the whole host', async () => {
    const { client } = await site({}, behindProxy)
    expect(cookieOf(await client.post('/set?a=1', undefined, HTTPS))).toMatchObject(defaults)
    expect((await client.get('/peek', HTTPS)).json()['fields']).toEqual({ a: '1' })
  })

  test('with trustProxy on a plain server, the same', async () => {
    const url = await bare({ trustProxy: true })
    for (const proto of ['https', 'HTTPS', 'https, http', ' https ,http']) {
      expect(cookieOf(await send(url, { headers: { 'x-forwarded-proto': proto } }))).toEqual({
        ...defaults,
        value: expect.any(String),
      })
    }
    for (const proto of ['http', 'http, https', 'httpsx', '']) {
      expect(cookieOf(await send(url, { headers: { 'x-forwarded-proto': proto } })).name).toBe('sid')
    }
  })

  test('on a server that speaks TLS itself, the same', async () => {
    const { app } = testApp()
    const setCookie = await overTls(app)
    expect(parse(setCookie)).toEqual({ ...defaults, value: expect.any(String) })
  })

  test('in production, the same, and no warning', async () => {
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { client } = await inProduction(() => site({}, behindProxy))
    expect(cookieOf(await client.post('/set?a=1', undefined, HTTPS))).toMatchObject(defaults)
    expect((await client.get('/peek', HTTPS)).json()['fields']).toEqual({ a: '1' })
    expect(warnings).not.toHaveBeenCalled()
  })
})

/** A server without Express that writes to the session at every request. */
async function bare(options: Partial<SessionOptions>): Promise<string> {
  const middleware = session({ secret: SECRET, store: memory(), ...options })
  const server = await listening((req, res) => {
    middleware(req, res, (error) => {
      if (error === undefined) (req as unknown as Request).session.set('a', 1)
      else res.statusCode = (error as SessionError).status
      res.end(error === undefined ? '' : (error as SessionError).code)
    })
  })
  return server.url
}

/** One POST to /set over real TLS, with a key that both sides know: a certificate would have to be renewed one day. */
async function overTls(app: RequestListener): Promise<string | undefined> {
  const psk = Buffer.alloc(32, 'test')
  const tls = { ciphers: 'PSK-AES256-GCM-SHA384', minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' } as const
  const server = createHttpsServer({ ...tls, pskCallback: () => psk }, app).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const options: RequestOptions & ConnectionOptions = {
    ...tls,
    method: 'POST',
    agent: false,
    pskCallback: () => ({ psk, identity: 'test' }),
    checkServerIdentity: () => undefined,
  }
  const request = httpsRequest(`https://127.0.0.1:${port}/set?a=1`, options)
  request.end()
  const [response] = await once(request, 'response')
  response.resume()
  await once(response, 'end')
  server.closeAllConnections()
  server.close()
  return response.headers['set-cookie']?.[0]
}

describe('over plain HTTP', () => {
  test('outside production, the cookie is "sid" without Secure, with one warning', async () => {
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { server } = await site()
    for (let n = 0; n < 3; n++) {
      const client = new Client(server)
      expect(cookieOf(await client.post('/set?a=1'))).toMatchObject({
        name: 'sid',
        attributes: { path: '/', httponly: true, samesite: 'Lax' },
      })
      expect(cookieOf(await client.post('/renew')).attributes).not.toHaveProperty('secure')
    }
    expect(warnings.mock.calls).toEqual([
      [expect.stringContaining('without Secure'), { type: 'SojournWarning', code: 'SOJOURN_PLAIN_HTTP' }],
    ])
  })

  test('with secure: false, there is no warning, in production neither', async () => {
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { client } = await inProduction(() => site({ cookie: { secure: false } }))
    expect(cookieOf(await client.post('/set?a=1')).name).toBe('sid')
    expect(warnings).not.toHaveBeenCalled()
  })

  const strict: readonly (readonly [string, Partial<SessionOptions>, boolean])[] = [
    ['in production', {}, true],
    ['in production, answering first', { commit: 'after-response' }, true],
    ['with secure: true', { cookie: { secure: true } }, false],
    ['with a name of its own in production', { cookie: { name: 'app' } }, true],
  ]
  test.each(strict)('%s, a session that would need a cookie is a loud error', async (_what, options, production) => {
    const errors: unknown[] = []
    const build = (): Promise<Site> =>
      site(options, (app) => {
        app.use((error: unknown, _req: Request, res: Response, _next: () => void) => {
          errors.push(error)
          res.status((error as SessionError).status).send('failed')
        })
      })
    const { client, store } = await (production ? inProduction(build) : build())
    for (const path of ['/set?a=1', '/login']) {
      const answer = await client.post(path)
      expect([answer.status, answer.body, answer.setCookies]).toEqual([500, 'failed', []])
    }
    expect(errors).toHaveLength(2)
    for (const error of errors) {
      expect(error).toMatchObject({ code: 'INSECURE_CONNECTION' })
      expect((error as SessionError).message).toContain('trust proxy')
    }
    expect(store.totalCalls).toBe(0)
    // Who writes nothing needs no cookie.
    expect((await client.get('/peek')).status).toBe(200)
  })

  test.each<[string, (app: Express) => void, Record<string, string>]>([
    ['sends no X-Forwarded-Proto', behindProxy, {}],
    ['says http', behindProxy, { 'x-forwarded-proto': 'http' }],
    ['has another address', (app) => app.set('trust proxy', '10.0.0.1'), HTTPS],
  ])('in production, the error names X-Forwarded-Proto when the proxy %s', async (_what, extend, headers) => {
    const errors: SessionError[] = []
    const { client } = await inProduction(() =>
      site({}, (app) => {
        extend(app)
        app.use((error: SessionError, _req: Request, res: Response, _next: () => void) => {
          errors.push(error)
          res.status(error.status).send('failed')
        })
      }),
    )
    expect((await client.post('/set?a=1', undefined, headers)).status).toBe(500)
    expect(errors[0]).toMatchObject({ code: 'INSECURE_CONNECTION' })
    expect(errors[0]?.message).toContain('X-Forwarded-Proto: https')
    expect(errors[0]?.message).toContain("secure: 'when-https'")
    expect(errors[0]?.message).not.toContain("app.set('trust proxy'")
  })

  test('in production with trustProxy, the error names X-Forwarded-Proto, too', async () => {
    const middleware = inProduction(() => session({ secret: SECRET, store: memory(), trustProxy: true }))
    const server = await listening((req, res) => {
      middleware(req, res, (error) => {
        if (error === undefined) (req as unknown as Request).session.set('a', 1)
        res.end((error as SessionError | undefined)?.message)
      })
    })
    expect((await send(server.url)).body).toContain('X-Forwarded-Proto: https')
  })

  test("with secure: 'when-https', the cookie goes without Secure over plain HTTP and with it over HTTPS, in production", async () => {
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const cookie = { secure: 'when-https', sameSite: 'none', partitioned: true } as const
    const { server, store } = await inProduction(() => site({ cookie }, behindProxy))
    const [probe, user] = [new Client(server), new Client(server)]
    expect(cookieOf(await probe.post('/set?a=1'))).toMatchObject({
      name: 'sid',
      attributes: { path: '/', httponly: true, samesite: 'Lax' },
    })
    expect((await probe.get('/peek')).json()['fields']).toEqual({ a: '1' })
    expect(cookieOf(await user.post('/set?a=2', undefined, HTTPS))).toMatchObject({
      name: '__Host-sid',
      attributes: { secure: true, partitioned: true, samesite: 'None' },
    })
    // The two stay apart: what travelled in the open opens nothing over HTTPS, and the other way round.
    const calls = store.totalCalls
    expect((await probe.get('/peek', HTTPS)).json()['fields']).toEqual({})
    const replayed = { cookie: `sid=${user.cookies.get('__Host-sid')}` }
    expect((await new Client(server).get('/peek', replayed)).json()['fields']).toEqual({})
    expect(store.totalCalls).toBe(calls)
    expect(warnings).not.toHaveBeenCalled()
  })

  test('in production, a plain server is told the same', async () => {
    const url = await inProduction(() => bare({}))
    const answer = await send(url)
    expect([answer.status, answer.body, answer.setCookies]).toEqual([500, 'INSECURE_CONNECTION', []])
  })

  test('a Secure cookie that is replayed is not honoured', async () => {
    for (const options of [{}, { cookie: { secure: true } }, { cookie: { name: 'app' } }] as const) {
      const { client, store } = await inProduction(() => site(options, behindProxy))
      await client.post('/set?a=1', undefined, HTTPS)
      const calls = store.totalCalls
      const [[name, value] = []] = [...client.cookies]
      const replayed = { cookie: `${name}=${value}; sid=${value}` }
      expect((await client.get('/peek', replayed)).json()['fields']).toEqual({})
      expect((await client.post('/logout', undefined, replayed)).setCookies).toEqual([])
      expect(store.totalCalls).toBe(calls)
      expect((await client.get('/peek', HTTPS)).json()['fields']).toEqual({ a: '1' })
    }
  })

  test('X-Forwarded-Proto of a hop that is not trusted has no effect', async () => {
    const untrusting: ((app: Express) => void)[] = [
      () => {},
      (app) => app.set('trust proxy', '10.0.0.1'),
      (app) => app.set('trust proxy', false),
    ]
    for (const extend of untrusting) {
      const lenient = await site({}, extend)
      expect(cookieOf(await lenient.client.post('/set?a=1', undefined, HTTPS)).name).toBe('sid')
      const production = await inProduction(() => site({}, extend))
      expect((await production.client.post('/set?a=1', undefined, HTTPS)).status).toBe(500)
      expect(production.store.totalCalls).toBe(0)
    }
    expect(cookieOf(await send(await bare({}), { headers: HTTPS })).name).toBe('sid')
  })
})

describe('attributes', () => {
  const full = {
    domain: 'example.com',
    path: '/app',
    sameSite: 'none',
    partitioned: true,
    priority: 'high',
    httpOnly: false,
  } as const

  test('are as the options say', async () => {
    const { client } = await site({ cookie: full }, (app) => {
      behindProxy(app)
      route('/app/set', (req) => req.session.set('a', 1))(app)
    })
    const { name, attributes } = cookieOf(await client.post('/app/set', undefined, HTTPS))
    expect(name).toBe('__Secure-sid')
    expect(attributes).toEqual({
      domain: 'example.com',
      path: '/app',
      secure: true,
      samesite: 'None',
      partitioned: true,
      priority: 'High',
    })
  })

  test('that browsers take only with Secure are left out without it', async () => {
    const { client } = await site({ cookie: { sameSite: 'none', partitioned: true } })
    expect(cookieOf(await client.post('/set?a=1')).attributes).toEqual({
      path: '/',
      httponly: true,
      priority: 'High',
      samesite: 'Lax',
    })
  })

  test('of a persistent cookie include Max-Age, the time to the end; of another neither Max-Age nor Expires', async () => {
    const persistent = await site({ cookie: { persistent: true }, idleTimeout: '10m' })
    const { attributes } = cookieOf(await persistent.client.post('/set?a=1'))
    expect(attributes['max-age']).toBe('600')
    expect(attributes).not.toHaveProperty('expires')
    const short = await site({ cookie: { persistent: true }, absoluteTimeout: '5m' })
    expect(cookieOf(await short.client.post('/set?a=1')).attributes['max-age']).toBe('300')
    const browser = await site({ cookie: { persistent: false } })
    expect(Object.keys(cookieOf(await browser.client.post('/set?a=1')).attributes)).toEqual([
      'path',
      'httponly',
      'priority',
      'samesite',
    ])
  })

  test.each([
    ['sameSite', 'strict', { samesite: 'Strict' }],
    ['sameSite', 'none', { samesite: 'None' }],
    ['priority', 'low', { priority: 'Low' }],
    ['partitioned', true, { partitioned: true }],
  ] as const)('%s can be chosen for one response as %s', async (name, value, expected) => {
    const { client } = await site({}, (app) => {
      behindProxy(app)
      route('/choose', (req) => {
        Object.assign(req.session.cookie, { [name]: value })
        expect(req.session.cookie[name]).toBe(value)
      })(app)
      route('/start', (req) => {
        Object.assign(req.session.cookie, { [name]: value })
        req.session.set('a', 1)
      })(app)
    })
    expect(cookieOf(await client.post('/start', undefined, HTTPS)).attributes).toMatchObject(expected)
    const token = client.cookies.get('__Host-sid')
    // A session that has its cookie gets it again, and only in that response.
    expect(cookieOf(await client.get('/choose', HTTPS)).attributes).toMatchObject(expected)
    expect(client.cookies.get('__Host-sid')).toBe(token)
    expect((await client.get('/peek', HTTPS)).setCookies).toEqual([])
    expect(cookieOf(await client.post('/renew', undefined, HTTPS)).attributes).not.toMatchObject(expected)
  })

  test.each([
    ['Strict', 'strict', 'Strict'],
    ['NONE', 'none', 'None'],
    [true, 'strict', 'Strict'],
    [false, false, undefined],
  ])(
    'sameSite can be chosen as express-session takes it, as %s, for one response or as an option',
    async (value, read, written) => {
      const chosen = await site({}, (app) => {
        behindProxy(app)
        route('/start', (req) => {
          req.session.cookie.sameSite = value as 'Strict'
          expect(req.session.cookie.sameSite).toBe(read)
          req.session.set('a', 1)
        })(app)
      })
      const option = await site({ cookie: { sameSite: value as 'Strict' } }, behindProxy)
      for (const answer of [
        await chosen.client.post('/start', undefined, HTTPS),
        await option.client.post('/set?a=1', undefined, HTTPS),
      ]) {
        expect(cookieOf(answer).attributes['samesite']).toBe(written)
      }
    },
  )

  test('priority can be chosen in any case', async () => {
    const { client } = await site(
      { cookie: { priority: 'High' } },
      route('/start', (req) => {
        Object.assign(req.session.cookie, { priority: 'LOW' })
        req.session.set('a', 1)
      }),
    )
    expect(cookieOf(await client.post('/set?a=1')).attributes).toMatchObject({ priority: 'High' })
    expect(cookieOf(await client.post('/start')).attributes).toMatchObject({ priority: 'Low' })
  })

  test('priority is high unless another one is chosen, and false leaves it out', async () => {
    const written = async (cookie: CookieOptions): Promise<unknown> => {
      const { client } = await site({ cookie })
      return cookieOf(await client.post('/set?a=1')).attributes['priority']
    }
    expect(await Promise.all([{}, { priority: 'medium' } as const, { priority: false } as const].map(written))).toEqual(
      ['High', 'Medium', undefined],
    )
    const { client } = await site(
      {},
      route('/start', (req) => {
        req.session.cookie.priority = false
        expect(req.session.cookie.priority).toBe(false)
        req.session.set('a', 1)
      }),
    )
    expect(cookieOf(await client.post('/start')).attributes).not.toHaveProperty('priority')
  })

  test.each([
    ['__Host-Http-sid', {}],
    ['__Http-sid', { path: '/', domain: 'example.com' }],
  ] as const)('the name %s has its prefix over HTTPS only, and stays HttpOnly', async (name, more) => {
    const { client } = await site({ cookie: { name, ...more } }, (app) => {
      behindProxy(app)
      route('/choose', (req, res) => {
        expect(() => Object.assign(req.session.cookie, { httpOnly: false })).toThrow(/httpOnly cannot be chosen/)
        res.send('refused')
      })(app)
    })
    const set = cookieOf(await client.post('/set?a=1', undefined, HTTPS))
    expect(set).toMatchObject({ name, attributes: { path: '/', secure: true, httponly: true } })
    expect((await client.get('/peek', HTTPS)).json()['fields']).toEqual({ a: '1' })
    expect((await client.get('/choose', HTTPS)).body).toBe('refused')
    expect(cookieOf(await client.post('/logout', undefined, HTTPS))).toMatchObject({ name, value: '' })
    expect(cookieOf(await client.post('/set?a=1')).name).toBe('sid')
  })

  test('httpOnly can be chosen for one response', async () => {
    const { client } = await site(
      {},
      route('/choose', (req) => Object.assign(req.session.cookie, { httpOnly: false })),
    )
    await client.post('/set?a=1')
    expect(cookieOf(await client.get('/choose')).attributes).toEqual({ path: '/', priority: 'High', samesite: 'Lax' })
  })

  test('chosen for a response without a session make no cookie', async () => {
    const { client, store } = await site(
      {},
      route('/choose', (req) => Object.assign(req.session.cookie, { httpOnly: false })),
    )
    expect((await client.get('/choose')).setCookies).toEqual([])
    expect(store.totalCalls).toBe(0)
  })

  test('of another kind are refused, and the response is not changed', async () => {
    const { client } = await site({}, (app) => {
      for (const [name, value] of [
        ['sameSite', 'Lax; Domain=evil.example'],
        ['sameSite', 1],
        ['sameSite', null],
        ['priority', 'urgent'],
        ['httpOnly', 'no'],
        ['partitioned', 1],
      ] as const) {
        route(`/bad/${name}/${typeof value}`, (req, res) => {
          expect(() => Object.assign(req.session.cookie, { [name]: value })).toThrow(
            expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
          )
          res.send('refused')
        })(app)
      }
    })
    await client.post('/set?a=1')
    for (const path of [
      'sameSite/string',
      'sameSite/number',
      'sameSite/object',
      'priority/string',
      'httpOnly/string',
      'partitioned/number',
    ]) {
      const answer = await client.get(`/bad/${path}`)
      expect([answer.body, answer.setCookies]).toEqual(['refused', []])
    }
  })

  test('that make the cookie another one cannot be assigned, not even in code that is not strict', async () => {
    const { client } = await site(
      {},
      route('/', (req, res) => {
        for (const [name, value] of [
          ['path', '/admin'],
          ['domain', 'example.com'],
          ['secure', true],
          ['secure', 'yes'],
        ] as const) {
          // As an assignment there: no exception for a property that cannot be written.
          expect(() => Reflect.set(req.session.cookie, name, value)).toThrow(
            expect.objectContaining({
              code: 'INVALID_ARGUMENT',
              message: expect.stringContaining(`session({ cookie: { ${name} } })`),
            }),
          )
        }
        // What it is anyway, applications may say.
        Object.assign(req.session.cookie, { path: '/', domain: undefined, secure: false })
        Object.assign(req.session.cookie, { domain: null, secure: 'auto' })
        res.json([req.session.cookie.path, req.session.cookie.domain ?? null, req.session.cookie.secure])
      }),
    )
    expect((await client.get('/')).json()).toEqual(['/', null, 'auto'])
  })

  test('secure: true may be assigned over HTTPS, where it is so', async () => {
    const { client } = await site({}, (app) => {
      behindProxy(app)
      route('/start', (req) => {
        req.session.cookie.secure = true
        expect(() => Object.assign(req.session.cookie, { secure: false })).toThrow(SessionError)
        req.session.set('a', 1)
      })(app)
    })
    expect(cookieOf(await client.post('/start', undefined, HTTPS)).attributes).toMatchObject({ secure: true })
  })

  test('come from the options, never from what the store holds', async () => {
    const store = new FaultyStore(memory())
    const before = await site({ store, cookie: { sameSite: 'lax', persistent: true } })
    await before.client.post('/set?cookie=evil&a=1')
    const after = await site({ store, cookie: { sameSite: 'strict', priority: 'high' } })
    const client = new Client(after.server, before.client.cookies)
    expect(cookieOf(await client.post('/renew')).attributes).toEqual({
      path: '/',
      httponly: true,
      samesite: 'Strict',
      priority: 'High',
    })
  })

  test('the path is matched by whole segments', async () => {
    const { client, store } = await site({ cookie: { path: '/admin' } }, (app) => {
      app.use((req, res) => {
        res.json({ hasSession: (req as { session?: unknown }).session !== undefined })
      })
    })
    for (const [path, hasSession] of [
      ['/admin', true],
      ['/admin/', true],
      ['/admin/x', true],
      ['/admin?x=/', true],
      ['/administrator', false],
      ['/admin%2f..', false],
      ['/admin.html', false],
      ['//admin', false],
      ['/ADMIN', false],
      ['/', false],
      ['/x/admin', false],
      ['/x?/admin', false],
    ] as const) {
      expect([path, (await client.get(path, { cookie: `sid=${VALID.value}` })).json()]).toEqual([path, { hasSession }])
    }
    expect(store.calls.get).toBe(4)
  })

  test('keep the whole cookie within 4096 bytes, or it is refused', async () => {
    const sizes: number[] = []
    for (const length of [100, 3000, 3800, 3900, 3950, 4000]) {
      const options = { name: 'n'.repeat(length), persistent: true, domain: 'example.com' }
      try {
        const { client } = await site({ cookie: options, idleTimeout: '365d', absoluteTimeout: '365d' })
        const answer = await client.post('/set?a=1')
        sizes.push((answer.setCookies[0] as string).length)
      } catch (error) {
        expect(error).toMatchObject({ code: 'INVALID_OPTION', message: expect.stringContaining('4096') })
      }
    }
    expect(Math.max(...sizes)).toBeGreaterThan(3000)
    expect(Math.max(...sizes)).toBeLessThanOrEqual(4096)
    expect(sizes.length).toBeLessThan(6)
  })
})

describe('options that browsers would drop in silence, or that an attacker could use, are refused:', () => {
  const refused: readonly (readonly [what: string, cookie: object])[] = [
    ['__Host- with a domain', { name: '__Host-x', domain: 'example.com' }],
    ['__Host- with a path', { name: '__Host-x', path: '/app' }],
    ['__Host- without Secure', { name: '__Host-x', secure: false }],
    ['__Secure- without Secure', { name: '__Secure-x', secure: false }],
    ['__HOST- in another case', { name: '__HOST-x', path: '/app' }],
    ['__secure- in another case', { name: '__secure-x', secure: false }],
    ['a prefix without a name', { name: '__Host-' }],
    ['two prefixes without a name', { name: '__Host-Http-' }],
    ['__Host-Http- with a domain', { name: '__Host-Http-x', domain: 'example.com' }],
    ['__Host-Http- open to scripts', { name: '__Host-Http-x', httpOnly: false }],
    ['__Http- open to scripts', { name: '__Http-x', httpOnly: false }],
    ['__http- in another case without Secure', { name: '__http-x', secure: false }],
    ['SameSite=None without Secure', { sameSite: 'none', secure: false }],
    ['Partitioned without Secure', { partitioned: true, secure: false }],
    ['an unknown sameSite', { sameSite: 'loose' }],
    ['sameSite as a number', { sameSite: 1 }],
    ['sameSite: None in another case without Secure', { sameSite: 'None', secure: false }],
    ['an unknown secure', { secure: 'yes' }],
    ['an unknown priority', { priority: 'urgent' }],
    ['an unknown onConflict', { onConflict: 'last' }],
    ['an empty name', { name: '' }],
    ['a name with white space', { name: 'a b' }],
    ['a name with =', { name: 'a=b' }],
    ['a name that is no text', { name: 42 }],
    ['a path that does not begin with /', { path: 'app' }],
    ['an empty path', { path: '' }],
    ['a path that is no text', { path: 42 }],
    ['a domain that is no text', { domain: 42 }],
    ['an empty domain', { domain: '' }],
    ['a domain with a scheme', { domain: 'https://example.com' }],
    ['a cookie that is too large', { name: 'n'.repeat(4000) }],
    ['maxAge, which is not what decides', { maxAge: 60_000 }],
    ['expires', { expires: new Date(0) }],
    ['a misspelt attribute', { samesite: 'strict' }],
    ['no options at all', 'secure' as never],
    ...['name', 'domain', 'path'].flatMap((attribute) =>
      [';', '; Secure', '\r', '\n', '\r\nSet-Cookie: a=b', '\0', '\x1f', '\x7f', 'é', '\u{1F36A}', 'ａ'].map(
        (injection) => {
          const base = { name: 'sid', domain: 'example.com', path: '/a' }[attribute]
          return [`${JSON.stringify(injection)} in ${attribute}`, { [attribute]: `${base}${injection}` }] as const
        },
      ),
    ),
  ]
  test.each(refused)('%s', (_what, cookie) => {
    const error = refusal(() => session({ secret: SECRET, cookie: cookie as CookieOptions }))
    expect(error.message).toMatch(/cookie/i)
  })

  test('what is right is not', () => {
    for (const cookie of [
      {},
      { name: '__Host-x' },
      { name: '__Secure-x', domain: 'example.com', path: '/app' },
      { name: '__Http-x', domain: 'example.com', path: '/app' },
      { name: '__Host-Http-x' },
      { name: 'x', secure: false },
      { domain: 'example.com' },
      { path: '/app' },
      { sameSite: 'none', partitioned: true },
      { secure: true, priority: 'low', persistent: true },
      { name: undefined, domain: undefined },
    ] as const) {
      expect(() => session({ secret: SECRET, store: memory(), cookie: cookie as CookieOptions })).not.toThrow()
    }
  })
})

describe('req.session.cookie, as express-session users write it:', () => {
  const START = Date.parse('2030-01-01T00:00:00Z')

  async function timed(
    options: Partial<SessionOptions>,
    handlers: Record<string, (req: Request) => unknown>,
  ): Promise<Site & { clock: FakeClock; record(): Promise<NonNullable<Awaited<ReturnType<FaultyStore['get']>>>> }> {
    const clock = new FakeClock(START)
    const built = await site({ clock: clock.now, ...options }, (app) => {
      for (const [path, handler] of Object.entries(handlers)) {
        app.all(path, async (req, res) => {
          res.json((await handler(req)) ?? null)
        })
      }
    })
    const record = async (): Promise<NonNullable<Awaited<ReturnType<FaultyStore['get']>>>> => {
      const id = [...built.client.cookies.values()][0]?.split('.')[0] as string
      const found = await built.store.get(id)
      if (found === null) throw new Error('The store has no such session.')
      return found
    }
    return { ...built, clock, record }
  }
  const facts = ({ session: { cookie, expiresAt } }: Request): object => ({
    maxAge: cookie.maxAge,
    expires: cookie.expires,
    originalMaxAge: cookie.originalMaxAge,
    expiresAt,
  })

  test('by default it ends with the browser', async () => {
    const { client } = await timed({}, { '/facts': facts })
    await client.post('/set?a=1')
    expect((await client.get('/facts')).json()).toMatchObject({ maxAge: null, expires: null, originalMaxAge: null })
  })

  for (const [what, assign] of [
    ['maxAge as a Date', (req: Request) => Object.assign(req.session.cookie, { maxAge: new Date(START + 600_000) })],
    ['originalMaxAge', (req: Request) => Object.assign(req.session.cookie, { originalMaxAge: 600_000 })],
    ['maxAge', (req: Request) => Object.assign(req.session.cookie, { maxAge: 600_000 })],
    ['expires', (req: Request) => Object.assign(req.session.cookie, { expires: new Date(START + 600_000) })],
  ] as const) {
    const told = {
      maxAge: 600_000,
      expires: new Date(START + 600_000).toISOString(),
      originalMaxAge: 600_000,
      expiresAt: new Date(START + 600_000).toISOString(),
    }

    test(`${what} reaches the record and the cookie of a new session`, async () => {
      const { client, record } = await timed(
        {},
        {
          '/start': (req) => {
            assign(req)
            req.session.set('user', 'ann')
            return facts(req)
          },
          '/facts': facts,
        },
      )
      const answer = await client.post('/start')
      expect(answer.json()).toEqual(told)
      expect(cookieOf(answer).attributes['max-age']).toBe('600')
      expect(await record()).toMatchObject({ expiresAt: START + 600_000, idleTimeoutMs: 600_000, persistent: true })
      expect((await client.get('/facts')).json()).toEqual(told)
    })

    test(`${what} reaches the record and the cookie of an old session`, async () => {
      const { client, record } = await timed({}, { '/assign': assign, '/facts': facts })
      await client.post('/set?a=1')
      const answer = await client.post('/assign')
      expect(cookieOf(answer).attributes['max-age']).toBe('600')
      expect(await record()).toMatchObject({ expiresAt: START + 600_000, idleTimeoutMs: 600_000, persistent: true })
      expect((await client.get('/facts')).json()).toEqual(told)
    })
  }

  test('maxAge stays for later requests: the session slides by it, and the cookie with it', async () => {
    const { client, clock, record } = await timed(
      { idleTimeout: '30m' },
      { '/start': (req) => Object.assign(req.session.cookie, { maxAge: 10 * MINUTE }) && req.session.set('a', 1) },
    )
    await client.post('/start')
    for (let n = 1; n <= 5; n++) {
      clock.advance(8 * MINUTE)
      const answer = await client.get('/peek')
      expect(answer.json()['fields']).toEqual({ a: 1 })
      expect(cookieOf(answer).attributes['max-age']).toBe('600')
      expect((await record()).expiresAt).toBe(clock.now() + 10 * MINUTE)
    }
    clock.advance(10 * MINUTE)
    expect((await client.get('/peek')).json()['fields']).toEqual({})
  })

  test('a maxAge below the touch interval slides as well', async () => {
    const { client, clock } = await timed(
      { idleTimeout: '30m' },
      { '/start': (req) => Object.assign(req.session.cookie, { maxAge: 10_000 }) && req.session.set('a', 1) },
    )
    await client.post('/start')
    for (let second = 3; second < 40; second += 3) {
      clock.advance(3_000)
      expect((await client.get('/peek')).json()['fields']).toEqual({ a: 1 })
    }
    clock.advance(10_000)
    expect((await client.get('/peek')).json()['fields']).toEqual({})
  })

  test('a maxAge of weeks holds with an absolute timeout that is as long', async () => {
    const { client, clock } = await timed(
      { idleTimeout: '30m', absoluteTimeout: '30d' },
      {
        '/start': (req) =>
          Object.assign(req.session.cookie, { maxAge: 30 * 24 * 60 * MINUTE }) && req.session.set('a', 1),
      },
    )
    await client.post('/start')
    clock.advance(29 * 24 * 60 * MINUTE)
    expect((await client.get('/peek')).json()['fields']).toEqual({ a: 1 })
  })

  test('maxAge goes back to the defaults with null, and so does the cookie', async () => {
    for (const reset of [
      { maxAge: null },
      { maxAge: undefined },
      { maxAge: false },
      { expires: null },
      { expires: false },
    ]) {
      const { client, clock, record } = await timed(
        {},
        {
          '/start': (req) => Object.assign(req.session.cookie, { maxAge: 5 * MINUTE }) && req.session.set('a', 1),
          '/reset': (req) => Object.assign(req.session.cookie, reset),
          '/facts': facts,
        },
      )
      await client.post('/start')
      expect(cookieOf(await client.post('/reset')).attributes).not.toHaveProperty('max-age')
      expect((await record()).expiresAt).toBe(clock.now() + 30 * MINUTE)
      expect((await client.get('/facts')).json()).toMatchObject({ maxAge: null, originalMaxAge: null })
    }
  })

  test('maxAge in the same way as the session is saved by hand', async () => {
    const { client, record } = await timed(
      {},
      {
        '/start': async (req) => {
          req.session.set('a', 1)
          req.session.cookie.maxAge = 600_000
          await req.session.save()
        },
      },
    )
    expect(cookieOf(await client.post('/start')).attributes['max-age']).toBe('600')
    expect((await record()).expiresAt).toBe(START + 600_000)
  })

  test.each([
    ['maxAge of 0', { maxAge: 0 }],
    ['a negative maxAge', { maxAge: -5_000 }],
    ['a time that is past', { expires: new Date(START - 1) }],
    ['a maxAge that is a Date of the past', { maxAge: new Date(0) }],
  ])('%s ends cookie and session with the response', async (_what, choice) => {
    const { client, clock, server } = await timed(
      {},
      {
        '/end': (req) => {
          Object.assign(req.session.cookie, choice)
          req.session.set('b', 2)
          return req.session.cookie.maxAge
        },
      },
    )
    for (const before of [() => client.post('/set?a=1'), () => client.post('/login?user=ann'), async () => {}]) {
      await before()
      const copy = client.clone()
      const answer = await client.post('/end')
      expect([answer.status, answer.json()]).toEqual([200, 0])
      expect(cookieOf(answer).attributes).toMatchObject({ 'max-age': '0', expires: 'Thu, 01 Jan 1970 00:00:00 GMT' })
      const sent = new Client(server, [['sid', cookieOf(answer).value]])
      clock.advance(1_000)
      for (const late of [copy, sent])
        expect((await late.get('/peek')).json()).toMatchObject({ fields: {}, userId: null })
    }
  })

  describe('a choice of this request goes over to the session that follows:', () => {
    /** As Passport does it: with callbacks, and fields copied by hand. */
    const regenerate = (req: Request): Promise<void> =>
      new Promise((resolve, reject) => {
        req.session.regenerate((error?: unknown) => {
          if (error) return reject(error)
          req.session.set('passport', { user: 'ann' })
          req.session.save((failure?: unknown) => (failure ? reject(failure) : resolve()))
        })
      })
    const successions: readonly (readonly [string, (req: Request) => Promise<unknown>])[] = [
      ['regenerate() as Passport calls it', regenerate],
      ['regenerate() twice', (req) => regenerate(req).then(() => regenerate(req))],
      ['regenerate() that keeps no field', (req) => req.session.regenerate({ keep: [] })],
      ['regenerate() that keeps a field', (req) => req.session.regenerate({ keep: ['a'] })],
      ['regenerate() that keeps all', (req) => req.session.regenerate({ keep: true })],
      ['login()', (req) => req.session.login('ann')],
      ['save() and regenerate()', (req) => req.session.save().then(() => regenerate(req))],
      ['destroy() and regenerate()', (req) => req.session.destroy().then(() => regenerate(req))],
    ]
    for (const [how, succeed] of successions) {
      test(`a shorter maxAge, by ${how}`, async () => {
        for (const isStored of [true, false]) {
          const { client, record } = await timed(
            { cookie: { persistent: true } },
            {
              '/act': async (req) => {
                if (!isStored) req.session.set('a', 1)
                req.session.cookie.maxAge = MINUTE
                await succeed(req)
                req.session.set('b', 1)
                return req.session.cookie.maxAge
              },
            },
          )
          if (isStored) await client.post('/set?a=1')
          const answer = await client.post('/act')
          expect([answer.status, answer.json()]).toEqual([200, MINUTE])
          expect(cookieOf(answer).attributes['max-age']).toBe('60')
          expect(await record()).toMatchObject({ idleTimeoutMs: MINUTE, persistent: true, expiresAt: START + MINUTE })
        }
      })

      test(`the end of the browser window, by ${how}`, async () => {
        const { client, record } = await timed(
          { cookie: { persistent: true } },
          {
            '/act': async (req) => {
              req.session.cookie.maxAge = null
              await succeed(req)
              req.session.set('b', 1)
            },
          },
        )
        await client.post('/set?a=1')
        const answer = await client.post('/act')
        expect(answer.status).toBe(200)
        expect(cookieOf(answer).attributes).not.toHaveProperty('max-age')
        expect((await record()).persistent).toBe(false)
      })
    }

    test('not one that an earlier request made', async () => {
      const { client, record } = await timed(
        {},
        {
          '/choose': (req) => Object.assign(req.session.cookie, { maxAge: MINUTE }),
          '/act': regenerate,
        },
      )
      await client.post('/set?a=1')
      await client.post('/choose')
      expect(cookieOf(await client.post('/act')).attributes).not.toHaveProperty('max-age')
      expect(await record()).toMatchObject({ idleTimeoutMs: undefined, persistent: undefined })
    })
  })

  test('maxAge that is no duration is refused', async () => {
    const { client } = await timed(
      {},
      {
        '/bad': (req) => {
          for (const maxAge of [
            Number.NaN,
            Number.POSITIVE_INFINITY,
            1e15,
            Number.MAX_SAFE_INTEGER,
            '1h',
            '',
            true,
            {},
          ]) {
            expect(() => Object.assign(req.session.cookie, { maxAge })).toThrow(
              expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
            )
          }
          for (const expires of [new Date(Number.NaN), 60_000, '2031-01-01', {}]) {
            expect(() => Object.assign(req.session.cookie, { expires })).toThrow(SessionError)
          }
          return 'refused'
        },
      },
    )
    expect((await client.get('/bad')).json()).toBe('refused')
  })

  test('setExpiry() gives a stored session its own idle timeout at once', async () => {
    const { client, clock, record } = await timed(
      { cookie: { persistent: true }, idleTimeout: '10m' },
      {
        '/remember': async (req) => {
          await req.session.setExpiry('30d', { absoluteTimeout: '30d' })
          return [(await record()).expiresAt, req.session.expiresAt.getTime()]
        },
      },
    )
    await client.post('/set?a=1')
    const end = START + 30 * 24 * 60 * MINUTE
    const answer = await client.post('/remember')
    expect(answer.json()).toEqual([end, end])
    expect(cookieOf(answer).attributes['max-age']).toBe(String(30 * 24 * 60 * 60))
    clock.advance(29 * 24 * 60 * MINUTE)
    expect((await client.get('/peek')).json()['fields']).toEqual({ a: '1' })
  })

  test('setExpiry() can shorten, and leaves a browser-session cookie one', async () => {
    const { client, clock } = await timed({}, { '/short': (req) => req.session.setExpiry(60) })
    await client.post('/set?a=1')
    expect((await client.post('/short')).setCookies).toEqual([])
    clock.advance(59_000)
    expect((await client.clone().get('/peek')).json()['fields']).toEqual({ a: '1' })
    clock.advance(61_000)
    expect((await client.get('/peek')).json()['fields']).toEqual({})
  })

  test('setExpiry() of what is no duration is refused', async () => {
    const { client } = await timed(
      {},
      {
        '/bad': async (req) => {
          for (const duration of [0, -1, Number.NaN, 'soon', '20y', null, '4000d']) {
            await expect((async () => req.session.setExpiry(duration as never))()).rejects.toMatchObject({
              code: expect.stringMatching(/^INVALID_/),
            })
          }
          return 'refused'
        },
      },
    )
    expect((await client.get('/bad')).json()).toBe('refused')
  })

  test('a persistent cookie moves when a touch is due, and only then', async () => {
    const { client, clock, store } = await timed(
      { cookie: { persistent: true }, idleTimeout: '10m', touchInterval: '1m' },
      {},
    )
    await client.post('/set?a=1')
    clock.advance(59_000)
    expect((await client.get('/plain')).setCookies).toEqual([])
    expect((await client.post('/set?a=2')).setCookies).toEqual([])
    expect(store.calls.touch).toBe(0)
    clock.advance(61_000)
    const moved = await client.get('/plain')
    expect(cookieOf(moved).attributes['max-age']).toBe('600')
    expect(store.calls.touch).toBe(1)
    expect((await client.get('/plain')).setCookies).toEqual([])
    expect(store.calls.touch).toBe(1)
  })

  test('a renewed persistent cookie has the whole time before it', async () => {
    const { client, clock, record } = await timed({ cookie: { persistent: true }, idleTimeout: '10m' }, {})
    await client.post('/set?a=1')
    clock.advance(30_000)
    expect(cookieOf(await client.post('/renew')).attributes['max-age']).toBe('600')
    expect((await record()).expiresAt).toBe(clock.now() + 600_000)
  })

  test('a persistent cookie outlives its first Max-Age when every request writes', async () => {
    const { server, clock } = await timed(
      { cookie: { persistent: true }, idleTimeout: '10m', touchInterval: '1m' },
      { '/update': (req) => req.session.update('n', (n) => ((n as number | undefined) ?? 0) + 1) },
    )
    for (const [path, stepMs] of [
      ['/set?a=1', 30_000],
      ['/update', 30_000],
      ['/update', 5 * MINUTE],
    ] as const) {
      const client = new Client(server)
      let sent = 0
      let endsAt = Number.POSITIVE_INFINITY
      for (let elapsed = 0; elapsed < 40 * MINUTE; elapsed += stepMs) {
        const answer = await client.post(path)
        const [line] = answer.setCookies
        if (line !== undefined) {
          sent++
          endsAt = clock.now() + Number(parse(line).attributes['max-age']) * 1000
        }
        clock.advance(stepMs)
        expect(endsAt).toBeGreaterThan(clock.now())
      }
      // Not with every response: about once in a touch interval.
      expect(sent).toBeLessThanOrEqual(41)
    }
  })
})

describe('caching', () => {
  const uses: readonly (readonly [string, (req: Request) => unknown])[] = [
    ['reading a field', (req) => Reflect.get(req.session, 'a')],
    ['get()', (req) => req.session.get('a')],
    ['has()', (req) => req.session.has('a')],
    ['in', (req) => 'a' in req.session],
    ['Object.keys', (req) => Object.keys(req.session)],
    [
      'for…in',
      (req) => {
        for (const name in req.session) expect(name).toBe('a')
      },
    ],
    ['spread', (req) => ({ ...req.session })],
    ['hasOwn', (req) => Object.hasOwn(req.session, 'a')],
    ['JSON.stringify', (req) => JSON.stringify(req.session)],
    ['id', (req) => req.session.id],
    ['isNew', (req) => req.session.isNew],
    ['metadata', (req) => req.session.metadata],
    ['deleting', (req) => Reflect.deleteProperty(req.session, 'nothing')],
    ['cookie', (req) => req.session.cookie.maxAge],
    ['util.inspect', (req) => inspect(req.session)],
  ]
  test.each(uses)(
    'a response that used the session by %s varies by cookie, with a session or without',
    async (_what, use) => {
      const { client } = await site(
        {},
        route('/use', (req) => void use(req)),
      )
      expect((await client.get('/use')).headers.vary).toBe('Cookie')
      await client.post('/set?a=1')
      const answer = await client.get('/use')
      expect([answer.headers.vary, answer.setCookies]).toEqual(['Cookie', []])
    },
  )

  test('a response that only moved the cookie forward varies by cookie', async () => {
    const clock = new FakeClock()
    const { client } = await site({ clock: clock.now, cookie: { persistent: true } })
    await client.post('/set?a=1')
    clock.advance(2 * MINUTE)
    const answer = await client.get('/plain')
    expect(answer.setCookies).toHaveLength(1)
    expect(answer.headers.vary).toBe('Cookie')
    expect(answer.headers['cache-control']).toBe('no-store')
  })

  test('a response that never touched the session is left alone', async () => {
    const { client } = await site(
      {},
      route('/mention', (req, res) => res.send(typeof req.session)),
    )
    for (const path of ['/plain', '/mention']) {
      const before = await client.get(path)
      expect([before.headers.vary, before.headers['cache-control'], before.setCookies]).toEqual([
        undefined,
        undefined,
        [],
      ])
    }
    await client.post('/set?a=1')
    for (const path of ['/plain', '/mention']) {
      const after = await client.get(path)
      expect([after.headers.vary, after.headers['cache-control'], after.setCookies]).toEqual([undefined, undefined, []])
    }
  })

  test.each([
    ['Accept-Encoding', 'Accept-Encoding, Cookie'],
    ['Origin, Accept', 'Origin, Accept, Cookie'],
    ['X-Cookie', 'X-Cookie, Cookie'],
    ['Cookie', 'Cookie'],
    ['accept, cookie', 'accept, cookie'],
    ['*', '*'],
  ])('the app that varies by %s varies by %s', async (own, merged) => {
    const { client } = await site(
      {},
      route('/use', (req, res) => res.set('Vary', own).json(req.session)),
    )
    expect((await client.get('/use')).headers.vary).toBe(merged)
  })

  test('an app that sets several Vary headers keeps them', async () => {
    const { client } = await site(
      {},
      route('/use', (req, res) => res.set('Vary', ['A', 'B']).json(req.session)),
    )
    expect((await client.get('/use')).headers.vary?.split(/\s*,\s*/)).toEqual(['A', 'B', 'Cookie'])
  })

  test.each([
    [undefined, 'no-store'],
    ['public, max-age=3600', 'no-store'],
    ['private, max-age=60', 'no-store'],
    ['no-cache', 'no-store'],
    ['max-age=0, x-no-store-ish', 'no-store'],
    ['no-store', 'no-store'],
    ['private, no-store, must-revalidate', 'private, no-store, must-revalidate'],
    ['No-Store, max-age=0', 'No-Store, max-age=0'],
  ])('a response with a cookie whose Cache-Control was %s has %s', async (own, expected) => {
    const { client } = await site(
      {},
      route('/start', (req, res) => {
        if (own !== undefined) res.set('Cache-Control', own)
        req.session.set('a', 1)
      }),
    )
    const answer = await client.post('/start')
    expect(answer.setCookies).toHaveLength(1)
    expect(answer.headers['cache-control']).toBe(expected)
    expect((await client.post('/logout')).headers['cache-control']).toBe('no-store')
  })

  test('a response without a cookie keeps the Cache-Control of the app', async () => {
    const { client } = await site(
      {},
      route('/use', (req, res) => res.set('Cache-Control', 'public, max-age=60').json(req.session)),
    )
    await client.post('/set?a=1')
    expect((await client.get('/use')).headers['cache-control']).toBe('public, max-age=60')
  })
})

describe('the end of a session clears its cookie', () => {
  const kinds: readonly (readonly [string, CookieOptions, Record<string, string>])[] = [
    ['over plain HTTP', {}, {}],
    ['over HTTPS', {}, HTTPS],
    ['with a name of its own', { name: 'app' }, HTTPS],
    ['with a domain', { domain: 'example.com' }, HTTPS],
    ['with a path', { path: '/a' }, HTTPS],
    ['partitioned, for other sites', { partitioned: true, sameSite: 'none', priority: 'high' }, HTTPS],
    ['persistent', { persistent: true }, HTTPS],
    ['open to scripts', { httpOnly: false, sameSite: 'strict' }, {}],
  ]
  const act: readonly (readonly [string, (req: Request) => Promise<void>])[] = [
    ['destroy', (req) => req.session.destroy()],
    ['logout', (req) => req.session.logout()],
  ]
  for (const [action, end] of act) {
    test.each(kinds)(`${action}() %s, with the same attributes`, async (_what, cookie, headers) => {
      const { client } = await site({ cookie }, (app) => {
        behindProxy(app)
        route('/a/start', (req) => req.session.set('a', 1))(app)
        route('/a/end', end)(app)
      })
      const set = cookieOf(await client.post('/a/start', undefined, headers))
      expect(client.cookies.size).toBe(1)
      const cleared = cookieOf(await client.post('/a/end', undefined, headers))
      expect(cleared.value).toBe('')
      expect(cleared.attributes).toMatchObject({ 'max-age': '0', expires: 'Thu, 01 Jan 1970 00:00:00 GMT' })
      expect(identity(cleared)).toEqual(identity(set))
      expect(client.cookies.size).toBe(0)
    })

    test(`${action}() with attributes that were chosen for the response`, async () => {
      const { client } = await site({}, (app) => {
        behindProxy(app)
        const choose = (req: Request): object =>
          Object.assign(req.session.cookie, { partitioned: true, sameSite: 'none' })
        route('/start', (req) => choose(req) && req.session.set('a', 1))(app)
        route('/end', (req) => choose(req) && end(req))(app)
      })
      const set = cookieOf(await client.post('/start', undefined, HTTPS))
      const cleared = cookieOf(await client.post('/end', undefined, HTTPS))
      expect(set.attributes).toHaveProperty('partitioned')
      expect(identity(cleared)).toEqual(identity(set))
    })
  }

  test('also when it was not ours, and never when there was none', async () => {
    const { client, store } = await site()
    expect((await client.post('/logout')).setCookies).toEqual([])
    expect((await client.post('/destroy')).setCookies).toEqual([])
    client.cookies.set('sid', 'junk')
    expect(cookieOf(await client.post('/logout')).value).toBe('')
    expect(store.totalCalls).toBe(0)
  })

  test('with what clearCookie() writes: no value, no time to live', () => {
    expect(clearCookie(plain, false)).toBe(
      'sid=; Max-Age=0; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; Priority=High; SameSite=Lax',
    )
  })

  test('not when the session goes on: a logout and a new field give a new cookie', async () => {
    const { client } = await site(
      {},
      route('/switch', async (req) => {
        await req.session.logout()
        req.session.set('guest', true)
      }),
    )
    await client.post('/set?a=1')
    const before = client.cookies.get('sid')
    expect(cookieOf(await client.post('/switch')).value).not.toBe('')
    expect(client.cookies.get('sid')).not.toBe(before)
    expect((await client.get('/peek')).json()['fields']).toEqual({ guest: true })
  })
})
