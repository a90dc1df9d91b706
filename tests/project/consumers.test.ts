// What TypeScript makes of the packed package in projects of others: older compilers, older resolution, stricter rules.
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { expressTypes, type PackedPackage, PLAIN_ENV, packPackage, ROOT } from '../support/package.js'

let packed: PackedPackage
beforeAll(() => {
  packed = packPackage()
}, 120_000)
afterAll(() => packed.remove())

const NODE_TYPES = ['@types/node', 'undici-types']

/** Every entry point, and `req.session` wherever the middleware can run. */
const EVERYTHING = `
import express from 'express'
import * as http from 'http'
import { createServer, type IncomingMessage } from 'node:http'
import { createServer as createHttp2Server } from 'node:http2'
import sessionByDefault, { privatePages, session, type Session, SessionData, SessionStore } from 'sojourn'
import { ActivityLog, isArchive, memorySink } from 'sojourn/activity'
import { flash, takeFlash } from 'sojourn/flash'
import { perRequest } from 'sojourn/cache'
import { clientBinding } from 'sojourn/client-binding'
import { csrf, csrfField, csrfToken } from 'sojourn/csrf'
import { deviceBound, deviceOf, requireDevice } from 'sojourn/device-bound'
import { encrypted } from 'sojourn/encryption'
import { inside } from 'sojourn/inside'
import { otelMetrics, prometheusMetrics } from 'sojourn/metrics'
import { passportUsers } from 'sojourn/passport'
import { recovery } from 'sojourn/recovery'
import { RedisSessionStore } from 'sojourn/redis'
import { SqlSessionStore, sqlStore } from 'sojourn/sql'
import { sessionState } from 'sojourn/state'
import { checkStore } from 'sojourn/testing'
import { sessionOptionsFromEnv } from 'sojourn/config'
import { workspaceOf, workspaceStorage, workspaces } from 'sojourn/workspace'

declare module 'sojourn' {
  interface SessionFields { cart?: string[] }
}

class Custom extends SessionStore {
  async get(_id: string): Promise<SessionData | null> { return null }
  async set(_id: string, _data: SessionData, _ttl: number): Promise<void> {}
  async delete(_id: string): Promise<void> {}
}

const middleware = session({ secret: 'x', codec: encrypted({ keys: process.env['KEYS'] }), store: new RedisSessionStore({ url: 'redis://x' }) })
export const same: typeof session = sessionByDefault
express().use(middleware, csrf({ trustedOrigins: ['https://a.example'] })).use(clientBinding({ policy: (_change, req: express.Request) => (req.path === '/' ? 'end' : 'tell') }), privatePages()).get('/', (req, res) => {
  const current: Session = req.session
  req.session.cart?.push(current.id)
  inside(current).drawer<number>('x').set(1)
  void recovery(middleware.manager).save(current)
  flash(current, 'x', 1)
  void takeFlash(current, 'x')
  const tokens: string[] = [req.csrfToken(), csrfToken(req), csrfField(req)]
  void tokens
  void sessionState(current, { categories: { form: {} } }).update('form', 'x', 1)
  passportUsers({ serializeUser: () => {} }, { userId: (user: { id: number }) => user.id })
  res.end()
})
const bound = deviceBound(middleware, { except: (req) => req.url === '/login', onRefused: (_req, _res, next) => next() })
express().use(bound, requireDevice({ unbound: 'pass' })).get('/', (req, res) => void res.send(deviceOf(req).status))
createServer((req, res) => bound(req, res, () => res.end(deviceOf(req).provedAt?.toISOString())))
createServer((req, res) => middleware(req, res, () => res.end(req.session.cart?.join())))
http.createServer((req, res) => middleware(req, res, () => res.end(req.session.id)))
http.createServer().on('upgrade', (req) => middleware(req, {}, () => req.session.touch()))
createHttp2Server((req, res) => middleware(req, res, () => res.end(req.session.id)))
export const ofRaw = (request: { raw: IncomingMessage }): Session => request.raw.session
export const ofSocket = (socket: { request: http.IncomingMessage }): Session => socket.request.session
export const loaded: Promise<number> = perRequest(async (id: string) => id.length)('a')
export const log = new ActivityLog({ sinks: [memorySink()] })
export const report = checkStore({ createStore: () => new Custom() })
export const sql = [sqlStore('sqlite:a.db'), new SqlSessionStore({ database: {} })]
export const others = [isArchive, prometheusMetrics, otelMetrics]
export const files = workspaces(middleware, { root: '/x' })
export const saved = (current: Session) => workspaceOf(current).then((ws) => ws.save('a.txt', new Blob(['a'])))
export const storage = workspaceStorage()
export const configured = session(sessionOptionsFromEnv())
`

/** What configuration gives is a value or undefined, and undefined is the default. */
const CONFIGURED = `
import { ActivityLog, memorySink } from 'sojourn/activity'
import { MemorySessionStore, SessionManager, session } from 'sojourn'
import { RedisSessionStore } from 'sojourn/redis'

const { IDLE, DOMAIN, REDIS_URL } = process.env
declare const req: { readonly ip: string | undefined; get(name: string): string | undefined }
export const middleware = session({
  secret: 'x',
  store: undefined,
  idleTimeout: IDLE,
  absoluteTimeout: undefined,
  cookie: { domain: DOMAIN, name: undefined, secure: undefined },
  limits: { maxBytes: undefined },
  clientContext: { ip: undefined, userAgent: false },
  activity: new ActivityLog({ sinks: [memorySink({ maxActivities: undefined })], retention: IDLE }),
  onEnded: undefined,
})
export const stores = [new RedisSessionStore({ url: REDIS_URL }), new MemorySessionStore({ clock: undefined })]
export const made = new SessionManager({ secret: 'x' }).create({
  userId: undefined,
  context: { ip: req.ip, userAgent: req.get('user-agent') },
})
`

/** Types of another middleware that claims `req.session`, as packages for express-session bring them along. */
const BESIDE_EXPRESS_SESSION = `
/// <reference types="express-session" />
${EVERYTHING}
import { requireSession } from 'sojourn'
express().get('/', (req) => void requireSession(req).get('cart'))
`

/** Who has changed one import, and the name of the module that declares the fields. */
const DROP_IN = `
import express from 'express'
import session, { MemoryStore, type SessionData, sojournOf } from 'sojourn/express-session'
import { connectStore } from 'sojourn/connect-store'

declare module 'sojourn/express-session' {
  interface SessionData { views: number }
}

const options = { secret: ['x'], resave: false, saveUninitialized: false, cookie: { maxAge: 1000, secure: 'auto' } } as const
express().use(session({ ...options, store: new MemoryStore() })).get('/', (req, res) => {
  req.session.views = (req.session.views ?? 0) + 1
  req.session.cookie.maxAge = 5
  req.session.save((error?: Error) => res.end(req.sessionID))
  req.sessionStore.destroy(req.session.id, () => {})
  void sojournOf(req).login('ann')
})
export const all: Partial<SessionData>[] = []
export const plain = connectStore(new MemoryStore() as never)
`

interface Consumer {
  readonly sources: Record<string, string>
  readonly manifest?: object
  readonly compiler: 'typescript' | 'typescript5'
  readonly options: object
  readonly types?: readonly string[]
}

const STRICT = {
  strict: true,
  target: 'es2022',
  module: 'nodenext',
  esModuleInterop: true,
  skipLibCheck: false,
  noEmit: true,
  types: ['node'],
}

const CONSUMERS: Record<string, Consumer> = {
  "Nest's template: CommonJS, resolved as Node 10 did": {
    sources: { 'main.ts': EVERYTHING },
    compiler: 'typescript5',
    options: {
      module: 'commonjs',
      target: 'es2021',
      emitDecoratorMetadata: true,
      experimentalDecorators: true,
      allowSyntheticDefaultImports: true,
      esModuleInterop: true,
      strictNullChecks: true,
      skipLibCheck: true,
      noEmit: true,
    },
  },
  'TypeScript 5, CommonJS, checking libraries': {
    sources: { 'main.ts': EVERYTHING },
    compiler: 'typescript5',
    options: STRICT,
  },
  'ESM, with exact optional properties': {
    sources: { 'main.ts': EVERYTHING, 'configured.ts': CONFIGURED },
    manifest: { type: 'module' },
    compiler: 'typescript',
    options: { ...STRICT, exactOptionalPropertyTypes: true },
  },
  'a bundler, and the types of Node 26': {
    sources: { 'main.ts': EVERYTHING },
    compiler: 'typescript',
    options: { ...STRICT, module: 'esnext', moduleResolution: 'bundler', preserveSymlinks: true },
    types: ['types-node26@@types/node'],
  },
  'the drop-in for express-session, CommonJS': {
    sources: { 'main.ts': DROP_IN },
    compiler: 'typescript5',
    options: STRICT,
  },
  'the drop-in for express-session, ESM': {
    sources: { 'main.ts': DROP_IN },
    manifest: { type: 'module' },
    compiler: 'typescript',
    options: STRICT,
  },
  'the types of express-session beside ours': {
    sources: { 'main.ts': BESIDE_EXPRESS_SESSION },
    compiler: 'typescript',
    options: { ...STRICT, skipLibCheck: true },
    types: [...NODE_TYPES, '@types/express-session'],
  },
}

describe('a project of others compiles', () => {
  test.each(Object.entries(CONSUMERS))('%s', (name, consumer) => {
    const { sources, manifest = {}, compiler, options, types = NODE_TYPES } = consumer
    const all = ['ioredis', ...types, ...expressTypes()]
    const directory = packed.project(name.replace(/\W+/g, '-'), manifest, all)
    for (const [file, source] of Object.entries(sources)) writeFileSync(join(directory, file), source)
    const files = Object.keys(sources)
    writeFileSync(join(directory, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, files }))
    const tsc = join(ROOT, 'node_modules', compiler, 'bin/tsc')
    const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', '.'], {
      cwd: directory,
      env: PLAIN_ENV,
      encoding: 'utf8',
    })
    expect({ status, stdout }).toEqual({ status: 0, stdout: '' })
  })
})

test('older resolution finds the types of every entry point', () => {
  const { exports, typesVersions } = JSON.parse(readFileSync(join(packed.directory, 'package.json'), 'utf8')) as {
    exports: Record<string, string | { require: { types: string } }>
    typesVersions: { '*': Record<string, string[]> }
  }
  const found = Object.entries(exports).flatMap(([name, target]) =>
    name === '.' || typeof target === 'string' ? [] : [[name.slice(2), [target.require.types]]],
  )
  expect(typesVersions['*']).toEqual(Object.fromEntries(found))
})
