// The package as users get it: packed, unpacked into fresh projects, loaded as ESM, as CommonJS, and under Jest.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { transformSync } from 'esbuild'
import { PLAIN_ENV as env, type PackedPackage, packPackage, ROOT } from '../support/package.js'

let packed: PackedPackage
let unpacked: string
let project: PackedPackage['project']

beforeAll(() => {
  packed = packPackage()
  unpacked = packed.directory
  project = packed.project
}, 120_000)
afterAll(() => packed.remove())

function run(directory: string, file: string, source: string): string {
  writeFileSync(join(directory, file), source)
  return execFileSync(process.execPath, [file], { cwd: directory, env, encoding: 'utf8' })
}

/** What is exported beside the core: loaded, and used, with no optional peer there. */
const FEATURES = `
if (!isArchive({ name: 'a', write() {}, page() {}, countByType() {}, prune() {} })) throw new Error('activity')
if (typeof workspaces !== 'function') throw new Error('workspace')
if (typeof otelMetrics !== 'function') throw new Error('metrics')
if (typeof perRequest !== 'function') throw new Error('cache')
try { prometheusMetrics(session({ secret: 'u8Yw3kq0Zt5VbN7xLr2PfHs9Dm4Gc6Ja' }), {}) ; throw new Error('metrics') }
catch (error) { if (error.code !== 'INVALID_OPTION') throw error }
`

/** Makes a request to a server with a session, and prints what the second request sees. */
const MAIN = `
const app = session({ secret: 'u8Yw3kq0Zt5VbN7xLr2PfHs9Dm4Gc6Ja' })
const server = http.createServer((req, res) => app(req, res, (error) => {
  if (error) { res.statusCode = 500; res.end(String(error)); return }
  req.session.views = (req.session.views ?? 0) + 1
  res.end(String(req.session.views))
})).listen(0, '127.0.0.1', async () => {
  const url = 'http://127.0.0.1:' + server.address().port
  const first = await fetch(url)
  const cookie = first.headers.get('set-cookie').split(';')[0]
  const second = await fetch(url, { headers: { cookie } })
  console.log(await first.text(), await second.text())
  server.closeAllConnections()
  server.close()
})
`

describe('the packed package', () => {
  test('holds the build, the licence, the documents and the examples, and nothing else', () => {
    const always = ['CHANGELOG.md', 'LICENSE', 'README.md', 'dist', 'examples', 'package.json']
    const documents = ['SECURITY.md', 'docs'].filter((name) => existsSync(name))
    expect(readdirSync(unpacked).sort()).toEqual([...always, ...documents].sort())
    const built = readdirSync(join(unpacked, 'dist'), { recursive: true }) as string[]
    expect(built.filter((file) => /test\.|\.ts$/.test(file) && !file.endsWith('.d.ts'))).toEqual([])
  })

  test('has what its README links to, but for what is for who works on it', () => {
    const readme = readFileSync(join(unpacked, 'README.md'), 'utf8')
    const links = [...readme.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, link]) => link as string)
    const forDevelopers = /^(?:ARCHITECTURE|CONTRIBUTING)\.md$|^(?:decisions|src|tests|bench|findings)\//
    const missing = links.filter((link) => !forDevelopers.test(link) && !existsSync(join(unpacked, link)))
    expect(missing).toEqual([])
  })

  test('works in a fresh ESM project', () => {
    const directory = project('esm', { type: 'module' })
    const source = `import http from 'node:http'\nimport session, { session as named, SessionStore } from 'sojourn'
      import { RedisSessionStore } from 'sojourn/redis'\nimport { checkStore } from 'sojourn/testing'
      if (session !== named || !(RedisSessionStore.prototype instanceof SessionStore)) throw new Error('exports')
      if (typeof checkStore !== 'function') throw new Error('testing')
      import { isArchive } from 'sojourn/activity'\nimport { otelMetrics, prometheusMetrics } from 'sojourn/metrics'
      import { perRequest } from 'sojourn/cache'
      import { workspaces } from 'sojourn/workspace'
      ${FEATURES}\n${MAIN}`
    expect(run(directory, 'main.js', source)).toBe('1 2\n')
  })

  test('works in a fresh CommonJS project', () => {
    const directory = project('cjs', {})
    const source = `const http = require('node:http')\nconst { session, default: byDefault, SessionStore } = require('sojourn')
      const { RedisSessionStore } = require('sojourn/redis')\nconst { checkStore } = require('sojourn/testing')
      if (session !== byDefault || !(RedisSessionStore.prototype instanceof SessionStore)) throw new Error('exports')
      if (typeof checkStore !== 'function') throw new Error('testing')
      const { isArchive } = require('sojourn/activity')
      const { otelMetrics, prometheusMetrics } = require('sojourn/metrics')
      const { perRequest } = require('sojourn/cache')
      const { workspaces } = require('sojourn/workspace')
      const dropIn = require('sojourn/express-session')
      if (typeof dropIn !== 'function' || dropIn.default !== dropIn) throw new Error('express-session')
      for (const name of ['Store', 'MemoryStore', 'Cookie', 'Session']) if (typeof dropIn[name] !== 'function') throw new Error(name)
      class Old { constructor() { dropIn.Store.call(Object.create(dropIn.Store.prototype)) } }
      new Old()
      ${FEATURES}\n${MAIN}`
    expect(run(directory, 'main.js', source)).toBe('1 2\n')
  })

  test.each(['esm', 'cjs'] as const)('a feature from npm in %s works on sessions of either build', (format) => {
    const directory = project(`feature-${format}`, { type: 'module' })
    const feature = join(directory, 'node_modules/sojourn-handoff')
    mkdirSync(feature)
    const source = readFileSync(join(ROOT, 'tests/outside-feature/handoff.ts'), 'utf8')
    writeFileSync(join(feature, 'handoff.js'), transformSync(source, { loader: 'ts', platform: 'node', format }).code)
    const type = format === 'esm' ? 'module' : 'commonjs'
    writeFileSync(join(feature, 'package.json'), JSON.stringify({ type, exports: './handoff.js' }))
    const main = `import http from 'node:http'\nimport { createRequire } from 'node:module'
      import * as esm from 'sojourn'\nimport { Handoff } from 'sojourn-handoff'
      const cjs = createRequire(import.meta.url)('sojourn')
      if (esm.SessionManager === cjs.SessionManager) throw new Error('There is one build only.')
      for (const { SessionManager } of [esm, cjs]) {
        const manager = new SessionManager({ secret: 'u8Yw3kq0Zt5VbN7xLr2PfHs9Dm4Gc6Ja' })
        const handoff = new Handoff(manager)
        const server = http.createServer((req, res) => manager.middleware()(req, res, async () => {
          if (req.url === '/offer') { req.session.a = 1; res.end(await handoff.offer(req.session)) }
          else { await handoff.accept(req.session, req.url.slice(1)); res.end(JSON.stringify(req.session)) }
        }))
        await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
        const url = 'http://127.0.0.1:' + server.address().port
        const code = await (await fetch(url + '/offer')).text()
        console.log(await (await fetch(url + '/' + code)).text())
        server.closeAllConnections()
        server.close()
        await handoff.close()
        await manager.close()
      }`
    expect(run(directory, 'main.js', main)).toBe('{"a":1}\n{"a":1}\n')
  })

  test.each([
    ['ESM', { type: 'module' }, "import * as client from 'prom-client'; import byDefault from 'prom-client'", 'import'],
    ['CommonJS', {}, "const client = require('prom-client'); const byDefault = client", 'require'],
  ])('measures sessions with prom-client in %s', (name, manifest, imports, kind) => {
    const peers = ['prom-client', '@opentelemetry/api', 'tdigest', 'bintrees']
    const directory = project(`metrics-${name}`, manifest, peers)
    const from = (module: string, names: string): string =>
      kind === 'import' ? `import { ${names} } from '${module}'` : `const { ${names} } = require('${module}')`
    const source = `${imports}
      ${from('sojourn', 'SessionManager')}
      ${from('sojourn/metrics', 'prometheusMetrics')}
      const register = new byDefault.Registry()
      const sessions = new SessionManager({ secret: 'u8Yw3kq0Zt5VbN7xLr2PfHs9Dm4Gc6Ja' })
      prometheusMetrics(sessions, { client, register })
      prometheusMetrics(sessions, { client: byDefault })
      sessions.create()
        .then(() => Promise.all([register.metrics(), client.register.metrics()]))
        .then((texts) => {
          console.log(texts.map((text) => /started_total (\\d)/.exec(text)[1]).join())
          return sessions.close()
        })`
    expect(run(directory, 'main.js', source)).toBe('1,1\n')
  })

  test('works under an ordinary CommonJS Jest', () => {
    const directory = project('jest', { jest: { testEnvironment: 'node', cacheDirectory: './cache' } })
    writeFileSync(
      join(directory, 'sojourn.test.js'),
      `const { session, SessionData } = require('sojourn')
       const { checkStore } = require('sojourn/testing')
       const { MemorySessionStore } = require('sojourn')
       const { isArchive } = require('sojourn/activity')
       const { otelMetrics } = require('sojourn/metrics')
       test('loads and works', async () => {
         expect(typeof session({ secret: 'u8Yw3kq0Zt5VbN7xLr2PfHs9Dm4Gc6Ja' })).toBe('function')
         expect(typeof SessionData.fromJSON).toBe('function')
         expect([typeof isArchive, typeof otelMetrics]).toEqual(['function', 'function'])
         const report = await checkStore({ createStore: () => new MemorySessionStore() })
         expect(report.failed).toEqual([])
       })`,
    )
    const jest = join(ROOT, 'node_modules/jest/bin/jest.js')
    execFileSync(process.execPath, [jest, '--rootDir', directory], { cwd: directory, env, stdio: 'pipe' })
  })

  test('a cache without its peers loads each time, and says what to install', () => {
    const directory = project('no-cache-peers', { type: 'module' })
    const source = `import { SessionCache } from 'sojourn/cache'
      const cache = new SessionCache({ onError: (error) => console.log(error.code, error.message) })
      console.log(await cache.getOrLoad('k', () => 'loaded'))
      await cache.fetch('http://127.0.0.1:1').catch((error) => console.log(error.code, error.message))
      await cache.clear().catch((error) => console.log(error.code))`
    expect(run(directory, 'main.js', source)).toBe(
      `MISSING_DEPENDENCY MemoryCacheStorage needs lru-cache: npm install lru-cache
MISSING_DEPENDENCY MemoryCacheStorage needs lru-cache: npm install lru-cache
loaded
MISSING_DEPENDENCY cache.fetch() needs http-cache-semantics: npm install http-cache-semantics
`,
    )
  })

  test('a cache on its peers works in CommonJS', () => {
    const directory = project('cache-cjs', {}, ['lru-cache', 'http-cache-semantics'])
    const source = `const { SessionCache } = require('sojourn/cache')
      const cache = new SessionCache()
      cache.set('k', 1).then(() => cache.get('k')).then((value) => console.log(value))
        .then(() => cache.fetch('data:,text')).then((response) => response.text()).then(console.log)`
    expect(run(directory, 'main.js', source)).toBe('1\ntext\n')
  })

  test('loads without ioredis, and says what to install when a url needs it', () => {
    const directory = project('no-ioredis', { type: 'module' })
    const source = `import { RedisSessionStore } from 'sojourn/redis'
      const store = new RedisSessionStore({ url: 'redis://127.0.0.1:1' })
      await store.get('x').catch((error) => console.log(error.code, error.message))`
    expect(run(directory, 'main.js', source)).toBe(
      'MISSING_DEPENDENCY RedisSessionStore with a url needs ioredis: npm install ioredis\n',
    )
  })
})

describe('the manifest', () => {
  test('every exported file exists in the build', async () => {
    const { default: manifest } = (await import('../../package.json', { with: { type: 'json' } })) as unknown as {
      default: { exports: Record<string, unknown> }
    }
    const paths: string[] = []
    JSON.stringify(manifest.exports, (_key, value: unknown) => {
      if (typeof value === 'string') paths.push(value)
      return value
    })
    for (const path of paths) expect(existsSync(join(unpacked, path)) || relative('.', path)).toBe(true)
  })
})
