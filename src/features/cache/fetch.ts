// `cache.fetch()`: what `fetch` gives, from the cache where HTTP and the policy of the domain allow it. What HTTP allows is decided by the
// package http-cache-semantics, an optional peer.
//
// A URL may have a place that says which request headers its responses depend on, and a mark; each variant has a place of its own,
// under that mark. So a new mark removes them all.
import { createHash, randomUUID } from 'node:crypto'
import { invalidArgument, SessionError } from '../../errors.js'
import type { CacheTrouble, GuardedStorage } from './guarded-storage.js'
import { type HttpRules, type KeptResponse, loadHttpRules, type PlainRequest } from './http-rules.js'
import type { Keep, Loads } from './loads.js'
import { ownerOf } from './namespaces.js'
import { bodyUpTo, type OriginRequest, timedFetch } from './origin.js'
import { type DomainPolicy, Policies, type ResolvedPolicy } from './policies.js'
import type { CacheEntry, CachePlace } from './storage.js'

export type { DomainPolicy } from './policies.js'

export interface FetchCacheParts {
  readonly storage: GuardedStorage
  readonly loads: Loads
  readonly clock: () => number
  readonly onError: (error: unknown, trouble: CacheTrouble) => void
  /** Told of a namespace in which a response has been kept. */
  readonly onKept: (namespace: string) => Promise<void>
}

/** What the place of a URL holds. */
interface Variants {
  /** `''` until the URL is forgotten for the first time. */
  readonly mark: string
  readonly vary: readonly string[]
}

/** One request for one URL, as the cache sees it. */
interface Exchange {
  readonly namespace: string
  readonly url: URL
  readonly origin: OriginRequest
  readonly plain: PlainRequest
  readonly policy: ResolvedPolicy
  readonly rules: HttpRules
}

/** What a load brings to all who share it: a response that may be kept, or one that is for who asked alone. */
type Loaded = (
  | { readonly kept: KeptResponse; readonly body: Uint8Array; readonly status: CacheStatus }
  | { readonly own: Response }
) & {
  /** What was asked. */
  readonly plain: PlainRequest
}

/** What `Cache-Status` says (RFC 9211). */
interface CacheStatus {
  readonly isHit?: boolean
  readonly forwarded?: 'miss' | 'stale' | 'request' | 'uri-miss' | 'method' | 'bypass'
  readonly forwardedStatus?: number | undefined
  readonly isStored?: boolean
  readonly isShared?: boolean
  readonly detail?: string
}

const MOST_REDIRECTS = 20
const REDIRECTS = new Set([301, 302, 303, 307, 308])
/** What tells who asks. Never sent to another origin, and always a part of what a response is kept under. */
const CREDENTIALS = ['authorization', 'cookie', 'proxy-authorization']
const SAFE = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE'])
const FAILED = new Set([500, 502, 503, 504])

export class FetchCache {
  readonly #parts: FetchCacheParts
  readonly #policies = new Policies()

  constructor(parts: FetchCacheParts) {
    this.#parts = parts
  }

  register(domain: string, policy: DomainPolicy): void {
    this.#policies.register(domain, policy)
  }

  async fetch(namespace: string, input: string | URL | Request, init?: RequestInit): Promise<Response> {
    const request = new Request(input, init)
    request.signal.throwIfAborted()
    const url = new URL(request.url)
    if (!/^https?:$/.test(url.protocol)) return fetch(request)
    if (
      request.method !== 'GET' ||
      request.headers.has('range') ||
      request.cache === 'no-store' ||
      request.integrity !== ''
    ) {
      return this.#passThrough(namespace, url, request)
    }
    const { dispatcher } = (init ?? {}) as { dispatcher?: unknown }
    return abortable(this.#follow(namespace, url, { request, dispatcher }), request.signal)
  }

  /** Removes what is kept for a URL, in all its variants. */
  async forget(namespace: string, url: string | URL): Promise<void> {
    const text = String(url)
    if (!URL.canParse(text)) throw invalidArgument('clear(): url must be a whole URL, such as one that was fetched.')
    await this.#forget(namespace, new URL(text))
  }

  /** A new mark: what was kept under the one before is not found any more, and goes when its time is over. */
  async #forget(namespace: string, url: URL): Promise<void> {
    const { storage, loads, clock } = this.#parts
    loads.drop(namespace, url.host)
    const now = clock()
    const entry = indexEntry({ mark: randomUUID(), vary: [] }, now)
    await storage.must('delete', () => storage.storage.set(placeOf(namespace, url), entry, now))
  }

  /** What is not cached. An unsafe method that succeeds makes what is kept for its URL invalid (RFC 9111, 4.4). */
  async #passThrough(namespace: string, url: URL, request: Request): Promise<Response> {
    const { method } = request
    const response = await fetch(request)
    if (!SAFE.has(method) && response.status < 400) {
      await this.#forget(namespace, url).catch((error) =>
        this.#parts.onError(error, { operation: 'delete', namespace }),
      )
    }
    const forwarded = method === 'GET' ? 'bypass' : 'method'
    const { url: from, redirected } = response
    return located(tagged(response, { forwarded, forwardedStatus: response.status }), new URL(from), redirected)
  }

  /** Each step of a redirect is a request of its own: by the policy of its own domain, and without what is for another origin. */
  async #follow(namespace: string, first: URL, origin: OriginRequest): Promise<Response> {
    const { request } = origin
    let url = first
    const headers = new Headers(request.headers)
    for (let redirects = 0; redirects <= MOST_REDIRECTS; redirects++) {
      const response = await this.#one(namespace, url, origin, headers)
      const location = REDIRECTS.has(response.status) ? response.headers.get('location') : null
      if (location === null || request.redirect === 'manual') return located(response, url, redirects > 0)
      await response.body?.cancel()
      if (request.redirect === 'error') throw new TypeError('fetch failed: a redirect, where redirect is "error".')
      const next = new URL(location, url)
      if (!/^https?:$/.test(next.protocol)) throw new TypeError('fetch failed: a redirect to what is not HTTP.')
      if (next.origin !== url.origin) for (const name of CREDENTIALS) headers.delete(name)
      url = next
    }
    throw new TypeError(`fetch failed: more than ${MOST_REDIRECTS} redirects.`)
  }

  async #one(namespace: string, url: URL, origin: OriginRequest, headers: Headers): Promise<Response> {
    const { request } = origin
    const rules = await loadHttpRules(this.#parts.clock)
    const plain = { url: withoutFragment(url), method: 'GET', headers: plainHeaders(url, headers, request.cache) }
    const exchange: Exchange = { namespace, url, origin, plain, policy: this.#policies.of(url), rules }
    const variants = await this.#variants(exchange)
    const place = variantPlace(exchange, variants)
    const entry = request.cache === 'reload' ? undefined : await this.#parts.storage.get(place, this.#parts.clock())
    const held = entry && heldOf(entry)
    if (held === undefined) return this.#load(exchange, variants, undefined)

    const { kept, body } = held
    const verdict = rules.judge(kept, plain)
    const isAllowedStale = !kept.isStrict && !/\bno-cache\b/i.test(plain.headers['cache-control'] ?? '')
    if (verdict.isFresh || (request.cache === 'force-cache' && isAllowedStale)) {
      return this.#replay(exchange, kept, body, { isHit: true })
    }
    const inBackground =
      verdict.mayServeStale || (exchange.policy.inBackground && verdict.matches && this.#isInStaleFor(exchange, kept))
    if (!(inBackground && isAllowedStale)) return this.#load(exchange, variants, held)
    this.#load(exchange, variants, held).then(
      (response) => response.body?.cancel(),
      (error) => this.#parts.onError(error, { operation: 'load', namespace }),
    )
    return this.#replay(exchange, kept, body, { isHit: true, detail: 'stale-while-revalidate' })
  }

  /** Asks the origin, once for all who ask for the same at the same time. */
  async #load(exchange: Exchange, variants: Variants, held: Held | undefined): Promise<Response> {
    const place = variantPlace(exchange, variants)
    let isFirst = false
    const loaded = await this.#parts.loads.run<Loaded>({
      place,
      load: (keep) => {
        isFirst = true
        return this.#ask(exchange, variants, held, keep)
      },
      accept: (entry) => {
        const found = entry.storedAt > (held?.entry.storedAt ?? -1) ? heldOf(entry) : undefined
        const isOfUse = found !== undefined && exchange.rules.judge(found.kept, exchange.plain).isFresh
        return isOfUse ? { value: { ...found, status: { isHit: true }, plain: exchange.plain } } : undefined
      },
    })
    if ('kept' in loaded) {
      const varies = varyOf(loaded.kept)
      if (varies.some((name) => loaded.plain.headers[name] !== exchange.plain.headers[name])) {
        // What it depends on was not known when both began.
        return this.#load(exchange, withVary(variants, varies), undefined)
      }
      const status = isFirst ? loaded.status : { ...loaded.status, isShared: true }
      return this.#replay(exchange, loaded.kept, loaded.body, status)
    }
    if (isFirst) return loaded.own
    // It was for who asked first.
    const own = await this.#ask(exchange, variants, held, async () => false)
    return 'own' in own ? own.own : this.#replay(exchange, own.kept, own.body, own.status)
  }

  async #ask(exchange: Exchange, variants: Variants, held: Held | undefined, keep: Keep): Promise<Loaded> {
    const { policy, plain, rules } = exchange
    const { signal } = exchange.origin.request
    let forwarded: CacheStatus['forwarded'] = 'uri-miss'
    if (held !== undefined) forwarded = rules.staleMs(held.kept) >= 0 ? 'stale' : 'request'
    const headers = held === undefined ? plain.headers : rules.conditional(held.kept, plain)
    let response: Response
    try {
      response = await timedFetch(exchange.url, exchange.origin, headers, policy.timeoutMs)
    } catch (error) {
      const detail = error instanceof SessionError ? 'timeout' : 'unreachable'
      if (held !== undefined && this.#maySaveTheDay(exchange, held)) {
        return { ...held, status: { forwarded, detail }, plain }
      }
      throw error
    }
    if (held !== undefined && FAILED.has(response.status) && this.#maySaveTheDay(exchange, held)) {
      await response.body?.cancel()
      return { ...held, status: { forwarded, forwardedStatus: response.status, detail: 'origin-error' }, plain }
    }
    if (held !== undefined && response.status === 304) {
      const kept = rules.revalidated(held.kept, plain, plainResponse(response))
      if (kept === undefined) return this.#ask(exchange, variants, undefined, keep)
      const isStored = await this.#keep(exchange, variants, kept, held.body, keep)
      return { kept, body: held.body, status: { forwarded, forwardedStatus: 304, isStored }, plain }
    }
    const status: CacheStatus = { forwarded, forwardedStatus: response.status }
    const kept = this.#keptOf(exchange, response)
    if (kept === undefined) return { own: tagged(response, status, signal), plain }
    const read = await bodyUpTo(response, policy)
    if (read.isWhole) {
      const isStored = await this.#keep(exchange, variants, kept, read.body, keep)
      return { kept, body: read.body, status: { ...status, isStored }, plain }
    }
    return { own: tagged(read.response, { ...status, detail: 'too-large' }, signal), plain }
  }

  #keptOf({ namespace, plain, policy, rules }: Exchange, response: Response): KeptResponse | undefined {
    const isShared = ownerOf(namespace) === undefined
    if (/^text\/event-stream/i.test(response.headers.get('content-type') ?? '')) return undefined
    return rules.kept(plain, plainResponse(response), { isShared, policy })
  }

  /** Whether it was kept: itself, and before that what its variants are found by, where that is new. */
  async #keep(
    exchange: Exchange,
    variants: Variants,
    kept: KeptResponse,
    body: Uint8Array,
    keep: Keep,
  ): Promise<boolean> {
    const { clock, onKept } = this.#parts
    const now = clock()
    const { freshForMs, staleForMs } = exchange.rules.lifeOf(kept, exchange.policy)
    const lifeMs = Math.min(freshForMs + staleForMs, LONGEST_KEPT_MS)
    if (lifeMs <= 0) return false
    const known = await this.#variants(exchange)
    // It was forgotten meanwhile.
    if (known.mark !== variants.mark) return false
    const found = withVary(known, varyOf(kept))
    const isKnown = found.vary.length === known.vary.length
    if (!isKnown && !(await keep(indexEntry(found, now), placeOf(exchange.namespace, exchange.url)))) return false
    const entry = { value: kept, body, storedAt: now, freshUntil: now + freshForMs, expiresAt: now + lifeMs }
    const isKept = await keep(entry, variantPlace(exchange, found))
    if (isKept) await onKept(exchange.namespace)
    return isKept
  }

  /** What the URL's variants are found by. */
  async #variants({ namespace, url, policy }: Exchange): Promise<Variants> {
    const entry = await this.#parts.storage.get(placeOf(namespace, url), this.#parts.clock())
    const { mark = '', vary = [] } = (entry?.value ?? {}) as Partial<Variants>
    return withVary({ mark, vary }, policy.vary)
  }

  #maySaveTheDay(exchange: Exchange, { kept }: Held): boolean {
    if (kept.isStrict || !exchange.rules.judge(kept, exchange.plain).matches) return false
    return (
      exchange.rules.allowsStaleOnError(kept) || (exchange.policy.returnsCached && this.#isInStaleFor(exchange, kept))
    )
  }

  #isInStaleFor({ rules, policy }: Exchange, kept: KeptResponse): boolean {
    return rules.staleMs(kept) <= policy.staleForMs
  }

  #replay({ rules }: Exchange, kept: KeptResponse, body: Uint8Array, status: CacheStatus): Response {
    const headers = new Headers(rules.headersOf(kept))
    headers.append('cache-status', statusText(status, rules.staleMs(kept)))
    const hasNoBody = [101, 204, 205, 304].includes(kept.status)
    return new Response(hasNoBody ? null : body.slice(), { status: kept.status, statusText: kept.statusText, headers })
  }
}

/** No response is kept longer, whatever it says. */
const LONGEST_KEPT_MS = 30 * 86_400_000

/** What a URL's variants are found by, for longer than any of them is kept. */
function indexEntry(value: Variants, now: number): CacheEntry {
  const expiresAt = now + 2 * LONGEST_KEPT_MS
  return { value, storedAt: now, freshUntil: expiresAt, expiresAt }
}

interface Held {
  readonly entry: CacheEntry
  readonly kept: KeptResponse
  readonly body: Uint8Array
}

/** What an entry of a variant holds. */
function heldOf(entry: CacheEntry): Held | undefined {
  const kept = entry.value as KeptResponse | undefined
  return kept?.policy === undefined ? undefined : { entry, kept, body: entry.body ?? new Uint8Array() }
}

function withoutFragment(url: URL): string {
  return url.href.replace(/#.*$/, '')
}

function placeOf(namespace: string, url: URL): CachePlace {
  return { namespace, domain: url.host, key: withoutFragment(url) }
}

function variantPlace({ namespace, url, plain }: Exchange, { mark, vary }: Variants): CachePlace {
  const parts = [...CREDENTIALS, ...vary].map((name) => plain.headers[name] ?? null)
  // A hash: no credential is to be found in a key.
  const digest = createHash('sha256')
    .update(JSON.stringify([plain.url, mark, parts]))
    .digest('base64url')
  return { namespace, domain: url.host, key: `variant ${digest}` }
}

function withVary({ mark, vary }: Variants, more: readonly string[]): Variants {
  return { mark, vary: [...new Set([...vary, ...more])].toSorted() }
}

function varyOf({ vary }: KeptResponse): readonly string[] {
  return vary === '' ? [] : vary.toLowerCase().split(/\s*,\s*/)
}

function plainHeaders(url: URL, headers: Headers, mode: Request['cache']): Record<string, string> {
  const plain: Record<string, string> = { ...Object.fromEntries(headers), host: url.host }
  if (mode === 'no-cache') plain['cache-control'] ??= 'no-cache'
  return plain
}

function plainResponse({ status, statusText: text, headers }: Response): {
  status: number
  statusText: string
  headers: Record<string, string>
} {
  return { status, statusText: text, headers: Object.fromEntries(headers) }
}

/** `Cache-Status` of RFC 9211. */
function statusText(status: CacheStatus, staleMs: number): string {
  const { isHit, forwarded, forwardedStatus, isStored, isShared, detail } = status
  const parts = ['sojourn']
  if (isHit) parts.push('hit')
  if (forwarded !== undefined) parts.push(`fwd=${forwarded}`)
  if (forwardedStatus !== undefined) parts.push(`fwd-status=${forwardedStatus}`)
  if (isStored) parts.push('stored')
  if (isShared) parts.push('collapsed')
  if (isHit || detail !== undefined) parts.push(`ttl=${-Math.ceil(staleMs / 1000)}`)
  if (detail !== undefined) parts.push(`detail=${detail}`)
  return parts.join('; ')
}

/** The response with `Cache-Status`; its body is handed through, until the signal says that nobody wants it any more. */
function tagged(response: Response, status: CacheStatus, signal?: AbortSignal): Response {
  const headers = new Headers(response.headers)
  headers.append('cache-status', statusText(status, 0))
  // A status out of range, such as 999, cannot be made anew.
  if (response.status > 599) return response
  const body = [101, 204, 205, 304].includes(response.status) ? null : response.body
  const given = signal === undefined ? body : body?.pipeThrough(new TransformStream(), { signal })
  return new Response(given ?? null, { status: response.status, statusText: response.statusText, headers })
}

/** A response that was made here says where it comes from, as that of `fetch` does. */
function located(response: Response, url: URL, isRedirected: boolean): Response {
  return Object.defineProperties(response, {
    url: { value: withoutFragment(url), configurable: true },
    redirected: { value: isRedirected, configurable: true },
  })
}

/** Who gives up does not wait; the load goes on for the others. */
function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}
