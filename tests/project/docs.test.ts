// The documentation: every code block of README.md and docs/ is a whole file that compiles, a run that a page shows goes as
// shown, links lead somewhere, and the reference names all there is.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import * as core from 'sojourn'
import * as activity from 'sojourn/activity'
import * as cache from 'sojourn/cache'
import * as clientBinding from 'sojourn/client-binding'
import * as config from 'sojourn/config'
import * as csrf from 'sojourn/csrf'
import * as deviceBound from 'sojourn/device-bound'
import * as encryption from 'sojourn/encryption'
import * as metrics from 'sojourn/metrics'
import * as redis from 'sojourn/redis'
import * as sql from 'sojourn/sql'
import * as testing from 'sojourn/testing'
import * as workspace from 'sojourn/workspace'
import { type Block, filesOf, pageNames, prose, readPage, runsOf, Workshop } from '../support/pages.js'
import { declared, members, publicNames } from '../support/sources.js'

const pages = pageNames().map(readPage)
const programs = pages.filter(({ name }) => name === 'README.md' || name.startsWith('docs/'))
const workshop = new Workshop()

beforeAll(() => workshop.open(programs), 60_000)
afterAll(() => workshop.close())

describe('code', () => {
  test('is found', () => {
    expect(programs.flatMap(filesOf).length).toBeGreaterThan(30)
    expect(programs.flatMap(runsOf).length).toBeGreaterThan(10)
  })

  test('says what it is in, in a language that is known here', () => {
    const known = ['ts', 'js', 'console', 'sh', 'json', 'html', 'text', 'diff', 'sql']
    const others = pages.flatMap(({ name, blocks }) =>
      blocks.filter(({ language }) => !known.includes(language)).map(({ language }) => `${name}: ${language}`),
    )
    expect(others).toEqual([])
  })

  test('names its file in the first line, and no page has two of one name', () => {
    for (const page of programs) {
      const names = filesOf(page).map((file) => file.name)
      expect({ page: page.name, unnamed: page.blocks.filter(isCode).length - names.length }).toEqual({
        page: page.name,
        unnamed: 0,
      })
      expect({ page: page.name, names }).toEqual({ page: page.name, names: [...new Set(names)] })
    }
  })

  test('compiles as it stands, all of it at once', () => {
    expect(workshop.compile()).toBe('')
  }, 60_000)

  test('loads, where no run starts it and no database is needed', async () => {
    const started = programs
      .flatMap(runsOf)
      .flatMap(({ page, steps }) => steps.map(({ command }) => `${page} ${command}`))
    const rest = programs
      .flatMap(filesOf)
      .filter(({ page, name }) => !started.some((step) => step.startsWith(`${page} `) && step.includes(` ${name}`)))
      .filter(({ source }) => !source.includes('DATABASE_URL'))
    expect(rest.length).toBeGreaterThan(10)
    expect(await workshop.load(rest)).toBe('')
  }, 60_000)

  test('declares on its own page the fields that it uses', () => {
    const known = new Set(publicNames(Object.getPrototypeOf(newSession())))
    const missing = programs.flatMap((page) => {
      const code = filesOf(page).filter(({ name }) => name.endsWith('.ts'))
      const text = code.map(({ source }) => source.replace(/\/\/.*$/gm, '')).join('\n')
      const declarations = [...text.matchAll(/interface SessionFields \{([^}]*(?:\{[^}]*\}[^}]*)*)\}/g)]
      const fields = declarations.flatMap(([, body = '']) => [...body.matchAll(/(\w+)\??:/g)].map(([, name]) => name))
      const used = [...text.matchAll(/\breq\.session\.(\w+)/g)].map(([, name]) => name as string)
      return used.filter((name) => !known.has(name) && !fields.includes(name)).map((name) => `${page.name}: ${name}`)
    })
    expect(missing).toEqual([])
  })

  test.each(programs.flatMap(runsOf).map((run) => [`${run.page}: ${run.steps[0]?.command}`, run] as const))(
    'runs as shown in %s',
    async (_name, run) => {
      for (const { command, shown, printed } of await workshop.run(run)) {
        expect({ command, printed: printed.trimEnd() }).toEqual({ command, printed: matching(shown) })
      }
    },
    60_000,
  )
})

describe('pages', () => {
  test('the README has at most 250 lines', () => {
    expect(readFileSync('README.md', 'utf8').trimEnd().split('\n').length).toBeLessThanOrEqual(250)
  })

  test('each page of docs/ has the question that it answers in its title', () => {
    const titles = programs
      .filter(({ name }) => name !== 'README.md')
      .map(({ name, text }) => ({ name, title: /^# .*$/m.exec(text)?.[0] ?? '' }))
    expect(titles.filter(({ title }) => !title.endsWith('?'))).toEqual([])
  })

  test('each page of docs/ stands in its index', () => {
    const index = readPage('docs/README.md')
    const linked = linksOf(index.text).map((link) => normalize(join('docs', link.replace(/#.*/, ''))))
    const unlinked = pages
      .map(({ name }) => name)
      .filter((name) => name.startsWith('docs/') && name !== 'docs/README.md')
    expect(unlinked.filter((name) => !linked.includes(name))).toEqual([])
  })

  test('each link leads to a file, and each anchor to a heading', () => {
    const dead = pages.flatMap(({ name, text }) =>
      linksOf(text)
        .filter((link) => !/^[a-z]+:/.test(link))
        .filter((link) => !leadsSomewhere(name, link))
        .map((link) => `${name}: ${link}`),
    )
    expect(pages.flatMap(({ text }) => linksOf(text)).length).toBeGreaterThan(50)
    expect(dead).toEqual([])
  })

  test('no link is written to a path of this project on another host', () => {
    const ownHost = pages
      .flatMap(({ text }) => linksOf(text))
      .filter((link) => /^https?:.*\/sojourn\/(blob|tree)\//.test(link))
    expect(ownHost).toEqual([])
  })
})

describe('the architecture', () => {
  const { text } = readPage('ARCHITECTURE.md')
  const rows = new Map(
    [...text.matchAll(/^\| `(\w+)\/` \| (.*) \|$/gm)].map(([, folder = '', row = '']) => [folder, row]),
  )

  test('has a row for each folder of src, and names files that are there', () => {
    const folders = readdirSync('src', { withFileTypes: true }).filter((entry) => entry.isDirectory())
    expect([...rows.keys()].toSorted()).toEqual(folders.map(({ name }) => name).toSorted())
    const named = [...rows].flatMap(([folder, row]) =>
      [...row.matchAll(/`([\w-]+\.ts)`/g)].map(([, file]) => `src/${folder}/${file}`),
    )
    const paths = pages.flatMap((page) =>
      [...prose(page.text).matchAll(/`((?:src|tests)\/[\w./-]+)`/g)].map(([, path]) => path as string),
    )
    expect([...named, ...paths].filter((path) => !existsSync(path))).toEqual([])
  })
})

describe('the reference', () => {
  const options = readPage('docs/reference/options.md')
  const cookie = readPage('docs/reference/cookie.md')
  const ofSession = readPage('docs/reference/session.md')
  const ofManager = readPage('docs/reference/manager.md')
  const ofStore = readPage('docs/reference/store.md')

  test('has a heading for each option, and for nothing else', () => {
    const headings = [...options.text.matchAll(/^### `(\w+)`$/gm)].map(([, name]) => name as string)
    expect(headings.toSorted()).toEqual(members('SessionOptions').toSorted())
  })

  test('names every option of the cookie, and every member of req.session.cookie', () => {
    expect(cookie.named).toEqual(expect.arrayContaining(members('CookieOptions')))
    const own = publicNames(Object.getPrototypeOf(newSession().cookie))
    expect(own.length).toBeGreaterThan(3)
    expect(cookie.named).toEqual(expect.arrayContaining(own))
  })

  test('names every member of a session', () => {
    expect(ofSession.named).toEqual(expect.arrayContaining(publicNames(Object.getPrototypeOf(newSession()))))
    expect(ofSession.named).toEqual(expect.arrayContaining(members('SessionMetadata')))
  })

  test('names every member of the manager', () => {
    expect(ofManager.named).toEqual(expect.arrayContaining(publicNames(core.SessionManager.prototype)))
    expect(ofManager.named).toEqual(expect.arrayContaining(members('SessionFilter')))
  })

  test('names every member of the cache', () => {
    expect(readPage('docs/reference/cache.md').named).toEqual(
      expect.arrayContaining(publicNames(cache.SessionCache.prototype)),
    )
  })

  test('names every member of a store', () => {
    const base = Object.getPrototypeOf(core.MemorySessionStore.prototype) as object
    expect(ofStore.named).toEqual(expect.arrayContaining([...publicNames(base), 'get', 'set', 'delete']))
    const abilities = [...declared('abstract class SessionStore').matchAll(/^ {2}(?:readonly )?(\w+)\?[:(]/gm)]
    expect(abilities.length).toBeGreaterThan(3)
    expect(ofStore.named).toEqual(expect.arrayContaining(abilities.map(([, name]) => name)))
  })

  test.each([
    ['docs/operations/memory.md', 'MemorySessionStoreOptions'],
    ['docs/guides/csrf.md', 'CsrfOptions'],
    ['docs/guides/encryption.md', 'EncryptionOptions'],
    ['docs/guides/device-bound.md', 'DeviceBoundOptions'],
    ['docs/guides/device-bound.md', 'RequireDeviceOptions'],
    ['docs/guides/client-binding.md', 'ClientBindingOptions'],
    ['docs/operations/redis.md', 'RedisSessionStoreOptions'],
    ['docs/operations/sql.md', 'SqlSessionStoreOptions'],
    ['docs/operations/sql.md', 'SqlStoreOptions'],
    ['docs/operations/sql.md', 'SqlNaming'],
    ['docs/operations/metrics.md', 'MetricsOptions'],
    ['docs/operations/metrics.md', 'PrometheusMetricsOptions'],
    ['docs/operations/metrics.md', 'OtelMetricsOptions'],
    ['docs/guides/workspaces.md', 'WorkspacesOptions'],
    ['docs/activity/log.md', 'ActivityLogOptions'],
    ['docs/activity/log-lines.md', 'SessionErrorHandlerOptions'],
    ['docs/reference/cache.md', 'SessionCacheOptions'],
    ['docs/reference/cache.md', 'DomainPolicy'],
  ])('%s names all of %s', (page, declaration) => {
    expect(readPage(page).named).toEqual(expect.arrayContaining(members(declaration)))
  })

  test.each([
    ['sojourn', core],
    ['sojourn/redis', redis],
    ['sojourn/sql', sql],
    ['sojourn/activity', activity],
    ['sojourn/cache', cache],
    ['sojourn/client-binding', clientBinding],
    ['sojourn/csrf', csrf],
    ['sojourn/device-bound', deviceBound],
    ['sojourn/encryption', encryption],
    ['sojourn/metrics', metrics],
    ['sojourn/workspace', workspace],
    ['sojourn/config', config],
    ['sojourn/testing', testing],
  ])('has a word on each function and class of %s', (_name, module) => {
    const text = programs.map((page) => page.text).join('\n')
    const names = Object.keys(module).filter((name) => name !== 'default')
    expect(names.length).toBeGreaterThan(0)
    expect(names.filter((name) => !new RegExp(`\\b${name}\\b`).test(text))).toEqual([])
  })

  test('names every event, and no other', () => {
    expect(readPage('docs/reference/events.md').inTables.toSorted()).toEqual(members('SessionEventMap').toSorted())
  })

  test('names every error code, and no other', () => {
    const codes = [...declared('type SessionErrorCode').matchAll(/'(\w+)'/g)].map(([, code]) => code as string)
    expect(codes.length).toBeGreaterThan(10)
    const named = readPage('docs/reference/errors.md').inTables.filter((name) => /^[A-Z_]+$/.test(name))
    expect(named.toSorted()).toEqual(codes.toSorted())
  })
})

function isCode({ language }: Block): boolean {
  return language === 'ts' || language === 'js'
}

/** What a run prints: `…` stands for anything within a line, and on a line of its own for any lines. */
function matching(shown: string): unknown {
  const pattern = shown
    .trimEnd()
    .split('\n')
    .map((line) => (line === '…' ? '[\\s\\S]*' : line.split('…').map(escaped).join('.*')))
    .join('\n')
  return expect.stringMatching(new RegExp(`^${pattern}$`))
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
}

function linksOf(text: string): string[] {
  return [...prose(text).matchAll(/\]\(([^)\s]+)\)/g)].map(([, link]) => link as string)
}

function leadsSomewhere(from: string, link: string): boolean {
  const [path = '', anchor] = link.split('#')
  const file = path === '' ? from : normalize(join(dirname(from), path))
  if (!existsSync(file)) return false
  if (anchor === undefined) return true
  return [...prose(readFileSync(file, 'utf8')).matchAll(/^#+ (.+)$/gm)].some(
    ([, heading = '']) => slug(heading) === anchor,
  )
}

/** The anchor that GitHub gives a heading. */
function slug(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\w\- ]/g, '')
    .replaceAll(' ', '-')
}

/** A session as a handler gets it. */
function newSession(): core.Session {
  const request = { headers: {}, url: '/', socket: {} } as { session?: core.Session }
  core.session({ secret: 'only to be looked at, for 32 characters' })(request as never, {}, () => {})
  return request.session as core.Session
}
