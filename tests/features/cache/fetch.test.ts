// cache.fetch(): what fetch gives, from the cache where HTTP and the policy of the domain allow it.

import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from '@jest/globals'
import {
  type CacheTrouble,
  type DomainPolicy,
  FileCacheStorage,
  MemoryCacheStorage,
  SessionCache,
  type SessionCacheOptions,
  userNamespace,
} from 'sojourn/cache'
import { FakeClock } from 'sojourn/testing'
import { listen, type TestServer, until as untilInTime } from '../../support/http.js'
import { freePort } from '../../support/redis.js'

/** For a machine that does much else at the same time. */
const until = (condition: () => boolean | Promise<boolean>): Promise<void> => untilInTime(condition, 20_000)

const running: TestServer[] = []
afterEach(async () => {
  for (const server of running.splice(0)) await server.close()
})

type Handler = (req: IncomingMessage, res: ServerResponse) => unknown

/** An origin that counts what it is asked, and a cache that knows its policy. */
async function make(
  handler: Handler,
  policy?: DomainPolicy,
  options: SessionCacheOptions = {},
): Promise<{
  cache: SessionCache
  clock: FakeClock
  url: string
  requests: IncomingMessage[]
  troubles: CacheTrouble[]
  server: TestServer
}> {
  const requests: IncomingMessage[] = []
  const server = await listen((req, res) => {
    requests.push(req)
    Promise.resolve(handler(req, res)).catch(() => res.destroy())
  })
  running.push(server)
  const clock = new FakeClock()
  const troubles: CacheTrouble[] = []
  const cache = new SessionCache({
    clock: clock.now,
    storageTimeout: '10s',
    onError: (_error, trouble) => troubles.push(trouble),
    ...options,
  })
  if (policy) cache.registerDomain(new URL(server.url).host, policy)
  return { cache, clock, url: server.url, requests, troubles, server }
}

/** Answers with its number, and with these headers. */
function numbered(headers: Record<string, string> = {}): Handler {
  let count = 0
  return (_req, res) => {
    count++
    res.writeHead(200, headers)
    res.end(`answer ${count}`)
  }
}

const textOf = async (response: Promise<Response>): Promise<string> => (await response).text()
const statusOf = (response: Response): string | null => response.headers.get('cache-status')

describe('freshness', () => {
  test('what HTTP calls fresh is not asked for again; age and status say so', async () => {
    const { cache, clock, url, requests } = await make(numbered({ 'cache-control': 'max-age=60' }))
    const first = await cache.fetch(`${url}/a?b#c`)
    expect([await first.text(), statusOf(first)]).toEqual(['answer 1', 'sojourn; fwd=uri-miss; fwd-status=200; stored'])
    clock.advance(59_000)
    const second = await cache.fetch(`${url}/a?b`)
    expect([second.status, second.ok, second.url, second.redirected]).toEqual([200, true, `${url}/a?b`, false])
    expect([await second.text(), statusOf(second), second.headers.get('age')]).toEqual([
      'answer 1',
      'sojourn; hit; ttl=1',
      '59',
    ])
    clock.advance(1_000)
    expect(await textOf(cache.fetch(`${url}/a?b`))).toBe('answer 2')
    expect(await textOf(cache.fetch(`${url}/a?c`))).toBe('answer 3')
    expect(requests).toHaveLength(3)
  })

  test('a response that says nothing is fresh for the policy’s ttl, and for no time without one', async () => {
    const { cache, clock, url } = await make(numbered(), { ttl: '30m' })
    await cache.fetch(url)
    clock.advance(29 * 60_000)
    const kept = await cache.fetch(url)
    expect([await kept.text(), kept.headers.get('cache-control')]).toEqual(['answer 1', null])
    clock.advance(60_000)
    expect(await textOf(cache.fetch(url))).toBe('answer 2')
    const other = await make(numbered())
    await other.cache.fetch(other.url)
    expect(await textOf(other.cache.fetch(other.url))).toBe('answer 2')
  })

  test.each([
    ['no-store', 'answer 2'],
    ['private', 'answer 2'],
    ['max-age=0', 'answer 2'],
    ['s-maxage=60', 'answer 1'],
    ['public', 'answer 1'],
    ['max-age=60, must-revalidate', 'answer 1'],
  ])('Cache-Control: %s goes before the policy', async (cacheControl, second) => {
    const { cache, url } = await make(numbered({ 'cache-control': cacheControl }), { ttl: '30m' })
    const first = await cache.fetch(url)
    expect([await first.text(), await textOf(cache.fetch(url))]).toEqual(['answer 1', second])
    expect(first.headers.get('cache-control')).toBe(cacheControl)
  })

  test('what is not there is kept by negativeTtl alone', async () => {
    const notThere: Handler = (_req, res) => {
      res.statusCode = 404
      res.end()
    }
    const plain = await make(notThere, { ttl: '30m' })
    const negative = await make(notThere, { negativeTtl: '1m' })
    for (const { cache, url } of [plain, negative]) for (let n = 0; n < 3; n++) await cache.fetch(url)
    expect([plain.requests.length, negative.requests.length]).toEqual([3, 1])
    expect((await negative.cache.fetch(negative.url)).status).toBe(404)
  })

  test('the modes of fetch do what they do in a browser', async () => {
    const { cache, url, requests } = await make(numbered({ 'cache-control': 'max-age=60' }))
    const get = (mode: string): Promise<string> => textOf(cache.fetch(url, { cache: mode } as RequestInit))
    expect([await get('default'), await get('no-store'), await get('default')]).toEqual([
      'answer 1',
      'answer 2',
      'answer 1',
    ])
    expect([await get('reload'), await get('default')]).toEqual(['answer 3', 'answer 3'])
    expect([await get('no-cache'), await get('force-cache')]).toEqual(['answer 4', 'answer 4'])
    expect(requests).toHaveLength(4)
  })
})

describe('validators', () => {
  test('a 304 renews what is kept, and costs no body', async () => {
    const { cache, clock, url, requests } = await make((req, res) => {
      res.setHeader('etag', '"one"')
      res.setHeader('cache-control', 'max-age=10')
      if (req.headers['if-none-match'] === '"one"') res.writeHead(304).end()
      else res.end('x'.repeat(100_000))
    })
    await cache.fetch(url)
    clock.advance(20_000)
    const renewed = await cache.fetch(url)
    expect([renewed.status, (await renewed.text()).length, statusOf(renewed)]).toEqual([
      200,
      100_000,
      'sojourn; fwd=stale; fwd-status=304; stored',
    ])
    expect(statusOf(await cache.fetch(url))).toBe('sojourn; hit; ttl=10')
    expect(requests.map((req) => req.headers['if-none-match'])).toEqual([undefined, '"one"'])
  })

  test('no-cache is asked about each time; a 304 that names no validator is about what was asked', async () => {
    const { cache, url, requests } = await make((req, res) => {
      res.setHeader('cache-control', 'no-cache')
      if (req.headers['if-none-match']) res.writeHead(304).end()
      else res.writeHead(200, { etag: '"one"' }).end('body')
    })
    expect([await textOf(cache.fetch(url)), await textOf(cache.fetch(url)), requests.length]).toEqual([
      'body',
      'body',
      2,
    ])
  })

  test('a 304 about something else is followed by a whole request', async () => {
    const { cache, clock, url } = await make((req, res) => {
      res.setHeader('cache-control', 'max-age=10')
      if (req.headers['if-none-match']) res.writeHead(304, { etag: '"two"' }).end()
      else res.writeHead(200, { etag: '"one"' }).end('body')
    })
    await cache.fetch(url)
    clock.advance(20_000)
    const again = await cache.fetch(url)
    expect([again.status, await again.text()]).toEqual([200, 'body'])
  })
})

describe('variants', () => {
  test('what a response varies by is a part of what it is kept under; clear({ url }) removes all of them', async () => {
    const { cache, url, requests } = await make((req, res) => {
      res.writeHead(200, { vary: 'Accept-Language', 'cache-control': 'max-age=60' })
      res.end(`in ${req.headers['accept-language']}`)
    })
    const get = (language: string): Promise<string> =>
      textOf(cache.fetch(url, { headers: { 'accept-language': language } }))
    expect([await get('de'), await get('fr'), await get('de'), await get('fr')]).toEqual([
      'in de',
      'in fr',
      'in de',
      'in fr',
    ])
    expect(requests).toHaveLength(2)
    const kept = await cache.fetch(url, { headers: { 'accept-language': 'de' } })
    expect(kept.headers.get('vary')).toBe('Accept-Language')
    await cache.clear({ url })
    await get('de')
    await get('fr')
    expect(requests).toHaveLength(4)
  })

  test('are told apart, too, when they are asked for at the same time and nothing is known of them yet', async () => {
    const { cache, url, requests } = await make(async (req, res) => {
      // Not before both of the first are there.
      await until(() => requests.length > 0)
      await new Promise((resolve) => setTimeout(resolve, 50))
      res.writeHead(200, { vary: 'Accept-Language', 'cache-control': 'max-age=60' })
      res.end(`in ${req.headers['accept-language']}`)
    })
    const get = (language: string): Promise<string> =>
      textOf(cache.fetch(url, { headers: { 'accept-language': language } }))
    const all = ['de', 'fr', 'fr', 'de', 'it']
    expect(await Promise.all(all.map(get))).toEqual(all.map((language) => `in ${language}`))
    expect(requests).toHaveLength(3)
    expect(await Promise.all(all.map(get))).toEqual(all.map((language) => `in ${language}`))
    expect(requests).toHaveLength(3)
  })

  test('Vary: * is never kept, and a policy may name headers of its own', async () => {
    const star = await make(numbered({ vary: '*', 'cache-control': 'max-age=60' }))
    await star.cache.fetch(star.url)
    expect(await textOf(star.cache.fetch(star.url))).toBe('answer 2')
    const own = await make(numbered({ 'cache-control': 'max-age=60' }), { vary: ['X-Region'] })
    const get = (region: string): Promise<string> =>
      textOf(own.cache.fetch(own.url, { headers: { 'x-region': region } }))
    expect([await get('eu'), await get('us'), await get('eu')]).toEqual(['answer 1', 'answer 2', 'answer 1'])
  })
})

describe('who asks', () => {
  const forWhom: Handler = (req, res) => {
    res.writeHead(200, { 'cache-control': req.url === '/public' ? 'public, max-age=60' : 'private, max-age=60' })
    res.end(`for ${req.headers.authorization ?? req.headers.cookie}`)
  }

  test('a namespace never sees what was fetched in another', async () => {
    const { cache, url, requests } = await make(numbered({ 'cache-control': 'max-age=60' }))
    const get = (name: string): Promise<string> => cache.within(name, () => textOf(cache.fetch(url)))
    expect([await get('a'), await get('b'), await get('a')]).toEqual(['answer 1', 'answer 2', 'answer 1'])
    await cache.clear({ namespace: 'a', domain: new URL(url).host })
    expect([await get('a'), await get('b'), requests.length]).toEqual(['answer 3', 'answer 2', 3])
  })

  test('private is kept in the namespace of a user alone, and no credential shares with another', async () => {
    const { cache, url, requests } = await make(forWhom)
    const get = (path: string, headers: Record<string, string>): Promise<string> =>
      textOf(cache.fetch(url + path, { headers }))
    for (let n = 0; n < 2; n++) expect(await get('/', { authorization: 'one' })).toBe('for one')
    expect(requests).toHaveLength(2)
    await cache.within(userNamespace('ann'), async () => {
      for (const who of ['one', 'two', 'one', 'two']) expect(await get('/', { authorization: who })).toBe(`for ${who}`)
      for (const who of ['s=1', 's=2', 's=1']) expect(await get('/', { cookie: who })).toBe(`for ${who}`)
    })
    expect(requests).toHaveLength(6)
    for (const who of ['one', 'two', 'one', 'two'])
      expect(await get('/public', { authorization: who })).toBe(`for ${who}`)
    expect(requests).toHaveLength(8)
  })

  test('no credential and no cookie of a response is kept', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'sojourn-fetch-'))
    try {
      const { cache, url } = await make(
        (_req, res) => {
          res.writeHead(200, {
            'set-cookie': 'secret-1=1',
            'cache-control': 'public, max-age=60',
            vary: 'authorization, cookie',
          })
          res.end('body')
        },
        {},
        { storage: new FileCacheStorage({ directory }) },
      )
      const headers = { authorization: 'Bearer secret-2', cookie: 'secret-3' }
      const first = await cache.fetch(url, { headers })
      const second = await cache.fetch(url, { headers })
      expect([first.headers.has('set-cookie'), statusOf(second), second.headers.has('set-cookie')]).toEqual([
        false,
        'sojourn; hit; ttl=60',
        false,
      ])
      const files = (readdirSync(directory, { recursive: true }) as string[]).map((file) => join(directory, file))
      const kept = files
        .filter((file) => statSync(file).isFile())
        .map((file) => `${file} ${readFileSync(file, 'utf8')}`)
      expect(kept.length).toBeGreaterThan(2)
      expect(kept.join('\n')).not.toMatch(/secret/)
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  })

  test('a response with Set-Cookie that is not public is for who asked first', async () => {
    const { cache, url } = await make(numbered({ 'set-cookie': 'a=1', 'cache-control': 'max-age=60' }), { ttl: '1h' })
    const first = await cache.fetch(url)
    expect([await first.text(), first.headers.get('set-cookie')]).toEqual(['answer 1', 'a=1'])
    expect(await textOf(cache.fetch(url))).toBe('answer 2')
  })

  test('a redirect is followed step by step, each cached by itself, and credentials stay with their origin', async () => {
    const other = await make((req, res) => {
      res.writeHead(200, { 'cache-control': 'max-age=60' })
      res.end(`${req.headers.authorization} ${req.headers.cookie} ${req.headers['x-kept'] as string}`)
    })
    const { cache, url, requests } = await make((req, res) => {
      if (req.url === '/start') res.writeHead(302, { location: '/next' }).end()
      else res.writeHead(301, { location: `${other.url}/end`, 'cache-control': 'public, max-age=60' }).end()
    })
    const init = { headers: { authorization: 'one', cookie: 'two', 'x-kept': 'three' } }
    for (let n = 0; n < 2; n++) {
      const response = await cache.fetch(`${url}/start`, init)
      expect([response.url, response.redirected, await response.text()]).toEqual([
        `${other.url}/end`,
        true,
        'undefined undefined three',
      ])
    }
    expect([requests.map((req) => req.url), other.requests.length]).toEqual([['/start', '/next', '/start'], 1])
    expect((await cache.fetch(`${url}/start`, { redirect: 'manual' })).status).toBe(302)
    await expect(cache.fetch(`${url}/start`, { redirect: 'error' })).rejects.toThrow('a redirect, where')
  })

  test('a circle of redirects, and one to another scheme, end', async () => {
    const { cache, url } = await make((req, res) => {
      res.writeHead(302, { location: req.url === '/file' ? 'file:///etc/passwd' : '/circle' }).end()
    })
    await expect(cache.fetch(`${url}/circle`)).rejects.toThrow('more than 20 redirects')
    await expect(cache.fetch(`${url}/file`)).rejects.toThrow('a redirect to what is not HTTP')
  })
})

describe('an origin that fails', () => {
  const failing = (): { handler: Handler; fail(as: 'status' | 'cut' | 'late' | null): void } => {
    let mode: 'status' | 'cut' | 'late' | null = null
    return {
      handler: (_req, res) => {
        if (mode === 'status') res.writeHead(503).end('down')
        else if (mode === 'cut') res.destroy()
        else if (mode !== 'late') res.end('well')
      },
      fail(as) {
        mode = as
      },
    }
  }

  test.each([
    ['status', 'sojourn; fwd=stale; fwd-status=503; ttl=-60; detail=origin-error'],
    ['cut', 'sojourn; fwd=stale; ttl=-60; detail=unreachable'],
    ['late', 'sojourn; fwd=stale; ttl=-60; detail=timeout'],
  ] as const)('with return-cached (%s) a stale copy is given, and says why', async (mode, status) => {
    const { handler, fail } = failing()
    const { cache, clock, url } = await make(handler, { ttl: '1m', onError: 'return-cached', timeout: '200ms' })
    await cache.fetch(url)
    clock.advance(120_000)
    fail(mode)
    const copy = await cache.fetch(url)
    expect([copy.status, await copy.text(), statusOf(copy), copy.headers.get('age')]).toEqual([
      200,
      'well',
      status,
      '120',
    ])
    fail(null)
    expect(statusOf(await cache.fetch(url))).toBe('sojourn; fwd=stale; fwd-status=200; stored')
  })

  test('by default, without a copy, after staleFor, and where the response forbids it, the error is raised', async () => {
    const { handler, fail } = failing()
    const plain = await make(handler, { ttl: '1m', timeout: '200ms' })
    await plain.cache.fetch(plain.url)
    fail('status')
    plain.clock.advance(120_000)
    expect((await plain.cache.fetch(plain.url)).status).toBe(503)
    fail('late')
    await expect(plain.cache.fetch(plain.url)).rejects.toMatchObject({ code: 'LOAD_TIMEOUT' })
    fail('cut')
    await expect(plain.cache.fetch(plain.url)).rejects.toThrow('fetch failed')
    await expect(plain.cache.fetch(`${plain.url}/never`)).rejects.toThrow('fetch failed')

    fail(null)
    const bounded = await make(handler, { ttl: '1m', onError: 'return-cached', staleFor: '1h' })
    await bounded.cache.fetch(bounded.url)
    fail('status')
    bounded.clock.advance(60 * 60_000)
    expect((await bounded.cache.fetch(bounded.url)).status).toBe(200)
    bounded.clock.advance(60_000)
    expect((await bounded.cache.fetch(bounded.url)).status).toBe(503)

    let isDown = false
    const strict = await make(
      (_req, res) => {
        if (isDown) res.writeHead(503).end()
        else res.writeHead(200, { 'cache-control': 'max-age=60, must-revalidate', etag: '"one"' }).end()
      },
      { onError: 'return-cached' },
    )
    await strict.cache.fetch(strict.url)
    isDown = true
    expect((await strict.cache.fetch(strict.url)).status).toBe(200)
    strict.clock.advance(61_000)
    expect((await strict.cache.fetch(strict.url)).status).toBe(503)
  })

  test('nobody listens', async () => {
    const { cache } = await make(() => {})
    await expect(cache.fetch(`http://127.0.0.1:${await freePort()}/`)).rejects.toThrow('fetch failed')
  })

  test('stale-while-revalidate, and revalidate: background, give the copy at once', async () => {
    for (const [headers, policy] of [
      [{ 'cache-control': 'max-age=60, stale-while-revalidate=600' }, {}],
      [{}, { ttl: '1m', staleFor: '10m', revalidate: 'background' }],
    ] as [Record<string, string>, DomainPolicy][]) {
      const { cache, clock, url } = await make(numbered(headers), policy)
      await cache.fetch(url)
      clock.advance(120_000)
      const copy = await cache.fetch(url)
      expect([await copy.text(), statusOf(copy)]).toEqual([
        'answer 1',
        'sojourn; hit; ttl=-60; detail=stale-while-revalidate',
      ])
      await until(async () => (await textOf(cache.fetch(url))) === 'answer 2')
    }
  })

  test('a background load that fails is told', async () => {
    const { handler, fail } = failing()
    const { cache, clock, url, troubles } = await make(handler, {
      ttl: '1m',
      staleFor: '10m',
      revalidate: 'background',
    })
    await cache.fetch(url)
    clock.advance(120_000)
    fail('cut')
    expect(await textOf(cache.fetch(url))).toBe('well')
    await until(() => troubles.length > 0)
    expect(troubles).toEqual([{ operation: 'load', namespace: 'default' }])
  })
})

describe('bodies', () => {
  test('a hundred at once are one request, and each has a body of its own', async () => {
    const { cache, url, requests } = await make(numbered({ 'cache-control': 'max-age=60' }))
    const all = await Promise.all(Array.from({ length: 100 }, () => cache.fetch(url)))
    expect(new Set(await Promise.all(all.map((response) => response.text())))).toEqual(new Set(['answer 1']))
    expect(requests).toHaveLength(1)
    expect(all.filter((response) => statusOf(response)?.includes('collapsed'))).toHaveLength(99)
  })

  test('what may not be kept is not shared either', async () => {
    const { cache, url, requests } = await make(numbered({ 'cache-control': 'no-store' }))
    const texts = await Promise.all(Array.from({ length: 5 }, () => textOf(cache.fetch(url))))
    expect([new Set(texts).size, requests.length]).toEqual([5, 5])
  })

  test('a body beyond maxBytes is handed through, whole, and not kept', async () => {
    for (const isDeclared of [true, false]) {
      const { cache, url, requests } = await make(
        async (_req, res) => {
          if (isDeclared) res.setHeader('content-length', 300_000)
          for (let part = 0; part < 3; part++) {
            res.write('x'.repeat(100_000))
            await new Promise((resolve) => setImmediate(resolve))
          }
          res.end()
        },
        { ttl: '1h', maxBytes: 150_000 },
      )
      for (let n = 0; n < 2; n++) expect((await textOf(cache.fetch(url))).length).toBe(300_000)
      expect(requests).toHaveLength(2)
    }
  })

  test('an endless one is handed through as it comes, and events are never held', async () => {
    for (const type of ['text/plain', 'text/event-stream']) {
      const { cache, url } = await make(
        (_req, res) => {
          res.writeHead(200, { 'content-type': type })
          res.write('first')
        },
        { ttl: '1h', timeout: '100ms' },
      )
      const response = await cache.fetch(url)
      const reader = (response.body as ReadableStream<Uint8Array>).getReader()
      expect(Buffer.from((await reader.read()).value as Uint8Array).toString()).toBe('first')
      await reader.cancel()
    }
  })

  test('bytes, an empty body and 204 come back as they were, also when the origin compresses', async () => {
    const { gzipSync } = await import('node:zlib')
    const bytes = Buffer.from([0, 255, 13, 10, 128])
    const { cache, url, requests } = await make(
      (req, res) => {
        if (req.url === '/none') res.writeHead(204).end()
        else if (req.url === '/gzip') res.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(bytes))
        else res.end(req.url === '/empty' ? '' : bytes)
      },
      { ttl: '1h' },
    )
    for (let n = 0; n < 2; n++) {
      expect(Buffer.from(await (await cache.fetch(`${url}/gzip`)).arrayBuffer())).toEqual(bytes)
      expect(Buffer.from(await (await cache.fetch(`${url}/bytes`)).arrayBuffer())).toEqual(bytes)
      expect(await textOf(cache.fetch(`${url}/empty`))).toBe('')
      expect((await cache.fetch(`${url}/none`)).status).toBe(204)
    }
    expect(requests).toHaveLength(4)
  })

  test('who changes a body does not change what is kept', async () => {
    const { cache, url } = await make(numbered(), { ttl: '1h' })
    new Uint8Array(await (await cache.fetch(url)).arrayBuffer()).fill(0)
    new Uint8Array(await (await cache.fetch(url)).arrayBuffer()).fill(0)
    expect(await textOf(cache.fetch(url))).toBe('answer 1')
  })
})

describe('requests', () => {
  test('other methods go through, and an unsafe one that succeeds removes what is kept', async () => {
    const { cache, url, requests } = await make(
      (req, res) => {
        res.statusCode = req.url === '/refused' ? 403 : 200
        res.end(req.method)
      },
      { ttl: '1h' },
    )
    await cache.fetch(url)
    await cache.fetch(url, { method: 'HEAD' })
    await cache.fetch(url, { headers: { range: 'bytes=0-1' } })
    expect(requests).toHaveLength(3)
    expect(await textOf(cache.fetch(url, { method: 'POST', body: 'x' }))).toBe('POST')
    await cache.fetch(url)
    expect(requests).toHaveLength(5)
    await cache.fetch(`${url}/refused`, { method: 'DELETE' })
    expect(statusOf(await cache.fetch(url))).toMatch(/hit/)
  })

  test('who gives up does not wait, and the load goes on for the others', async () => {
    let answer = (): void => {}
    const { cache, url, requests } = await make(
      async (_req, res) => {
        await new Promise<void>((resolve) => {
          answer = resolve
        })
        res.end('late')
      },
      { ttl: '1h' },
    )
    const controller = new AbortController()
    const given = cache.fetch(url, { signal: controller.signal })
    const other = cache.fetch(url)
    await until(() => requests.length === 1)
    controller.abort(new Error('given up'))
    await expect(given).rejects.toThrow('given up')
    answer()
    expect(await textOf(other)).toBe('late')
    await expect(cache.fetch(url, { signal: AbortSignal.abort(new Error('before')) })).rejects.toThrow('before')
  })

  test('who gives up a response that is handed through gets no more of it, and its connection ends', async () => {
    let isClosed = false
    const { cache, url } = await make((_req, res) => {
      res.once('close', () => {
        isClosed = true
      })
      res.writeHead(200, { 'content-type': 'text/event-stream' })
      res.write('first')
    })
    const controller = new AbortController()
    const response = await cache.fetch(url, { signal: controller.signal })
    const reader = (response.body as ReadableStream<Uint8Array>).getReader()
    expect(Buffer.from((await reader.read()).value as Uint8Array).toString()).toBe('first')
    const next = reader.read()
    controller.abort(new Error('given up'))
    await expect(next).rejects.toThrow('given up')
    await until(() => isClosed)
  })

  test.each([
    ['nowhere'],
    ['http://'],
    ['http://user:pass@example.com/'],
    ['ftp://example.com/'],
    ['file:///etc/passwd'],
    [''],
  ])('%p is refused as fetch refuses it', async (url) => {
    const { cache } = await make(() => {})
    await expect(cache.fetch(url)).rejects.toThrow()
  })

  test('a Request, a URL and a very long URL are fetched; data: is not kept', async () => {
    const { cache, url, requests } = await make(numbered(), { ttl: '1h' })
    const long = `${url}/${'x'.repeat(8_000)}`
    expect(await textOf(cache.fetch(new Request(url)))).toBe('answer 1')
    expect(await textOf(cache.fetch(new URL(url)))).toBe('answer 1')
    expect([await textOf(cache.fetch(long)), await textOf(cache.fetch(long))]).toEqual(['answer 2', 'answer 2'])
    expect(await textOf(cache.fetch('data:,text'))).toBe('text')
    expect(requests).toHaveLength(2)
  })

  test('a storage that is away is as good as none', async () => {
    const away = new MemoryCacheStorage()
    Object.assign(away, { get: () => Promise.reject(new Error('away')), set: () => Promise.reject(new Error('away')) })
    const { cache, url } = await make(numbered(), { ttl: '1h' }, { storage: away })
    expect([await textOf(cache.fetch(url)), await textOf(cache.fetch(url))]).toEqual(['answer 1', 'answer 2'])
  })
})

describe('policies', () => {
  test('the most exact domain counts', async () => {
    const { cache, url, requests } = await make(numbered())
    const { host, hostname } = new URL(url)
    cache.registerDomain('*', { ttl: 0 })
    cache.registerDomain(hostname, { ttl: 0 })
    cache.registerDomain(host.toUpperCase(), { ttl: '1h' })
    cache.registerDomain('*.example.com', {})
    await cache.fetch(url)
    await cache.fetch(url)
    expect(requests).toHaveLength(1)
  })

  test.each([[''], ['https://api.example.com'], ['a/b'], ['a b'], ['*.'], ['*.*'], ['a@b'], [7], [null], ['a\\b']])(
    '%p is no domain',
    (domain) => {
      expect(() => new SessionCache().registerDomain(domain as never, {})).toThrow('registerDomain() needs a host')
    },
  )

  test.each([
    [{ ttl: 'soon' }, 'ttl is "soon"'],
    [{ onError: 'ignore' }, "onError must be 'raise' or 'return-cached'"],
    [{ revalidate: true }, "revalidate must be 'wait' or 'background'"],
    [{ maxBytes: -1 }, 'maxBytes must be a whole number'],
    [{ vary: 'accept' }, 'vary must be a list'],
    [{ vary: ['a b'] }, 'vary must be a list'],
    [{ timeout: 0 }, 'timeout is 0'],
  ])('%p is refused', (policy, message) => {
    expect(() => new SessionCache().registerDomain('a.example', policy as never)).toThrow(message)
  })
})
