// HTTP's rules of caching (RFC 9111), as the package http-cache-semantics decides them, and how a response is kept so that no credential
// is kept with it.
import { SessionError } from '../../errors.js'
import type { ResolvedPolicy } from './policies.js'

/** A request as the rules see it. Names of headers are in small letters. */
export interface PlainRequest {
  readonly url: string
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
}

/** A response as the rules see it. */
interface PlainResponse {
  readonly status: number
  readonly statusText: string
  readonly headers: Readonly<Record<string, string>>
}

/** What is kept of a response, beside its body. */
export interface KeptResponse {
  /** What http-cache-semantics makes of it. */
  readonly policy: SerializedPolicy
  readonly status: number
  readonly statusText: string
  /** Headers as the origin sent them, where the policy has others. */
  readonly cacheControl: string | undefined
  readonly vary: string
  /** The origin forbids to use it when it is stale. */
  readonly isStrict: boolean
}

interface SerializedPolicy {
  /** Headers of the response. */
  readonly resh: Readonly<Record<string, string>>
  /** Its `Cache-Control`. */
  readonly rescc: Readonly<Record<string, string | boolean>>
}

/** What is called of http-cache-semantics. */
interface HttpPolicy {
  storable(): boolean
  stale(): boolean
  maxAge(): number
  age(): number
  evaluateRequest(request: PlainRequest): {
    readonly response?: object | undefined
    readonly revalidation?: { readonly synchronous: boolean } | undefined
  }
  responseHeaders(): Record<string, string>
  revalidationHeaders(request: PlainRequest): Record<string, string>
  revalidatedPolicy(
    request: PlainRequest,
    response: PlainResponse,
  ): { readonly policy: HttpPolicy; readonly matches: boolean }
  toObject(): unknown
}

interface HttpPolicyClass {
  new (request: PlainRequest, response: PlainResponse, options: { shared: boolean }): HttpPolicy
  fromObject(object: unknown): HttpPolicy
}

const loaded = new WeakMap<() => number, Promise<HttpRules>>()

/** @throws {SessionError} `MISSING_DEPENDENCY` */
export function loadHttpRules(clock: () => number): Promise<HttpRules> {
  let rules = loaded.get(clock)
  if (rules === undefined) {
    rules = import('http-cache-semantics').then(
      ({ default: found }) => {
        const Base = found as unknown as new () => object
        class TimedPolicy extends Base {
          now(): number {
            return clock()
          }
        }
        return new HttpRules(TimedPolicy as unknown as HttpPolicyClass)
      },
      (cause) => {
        const message = 'cache.fetch() needs http-cache-semantics: npm install http-cache-semantics'
        throw new SessionError('MISSING_DEPENDENCY', message, { cause })
      },
    )
    loaded.set(clock, rules)
  }
  return rules
}

/** Responses with a freshness that nobody states get that of the policy. */
const MAY_BE_GIVEN_FRESHNESS = new Set([200, 203, 204, 300, 301, 308])
const NOT_THERE = new Set([404, 410])
const HAS_OWN_WORD = /\b(max-age|s-maxage|no-cache|no-store|must-revalidate|immutable)\b/i
/** `fetch` has decoded the body, and a cookie is for who got it. */
const NOT_KEPT = ['set-cookie', 'content-encoding', 'content-length', 'transfer-encoding', 'vary']
/** How long a stale response that has a validator is kept, so that a 304 can save its body. */
const VALIDATOR_MS = 86_400_000

export class HttpRules {
  readonly #Policy: HttpPolicyClass

  constructor(policyClass: HttpPolicyClass) {
    this.#Policy = policyClass
  }

  /** What is to be kept of a response, or `undefined` when it must not be. */
  kept(
    request: PlainRequest,
    response: PlainResponse,
    { isShared, policy }: { isShared: boolean; policy: ResolvedPolicy },
  ): KeptResponse | undefined {
    const { headers } = response
    const cacheControl = headers['cache-control']
    const vary = headers['vary'] ?? ''
    if (!new this.#Policy(request, response, { shared: isShared }).storable() || vary.includes('*')) return undefined
    const isPublic = /\b(public|immutable)\b/i.test(cacheControl ?? '')
    if (isShared && 'set-cookie' in headers && !isPublic) return undefined

    const ttlMs = NOT_THERE.has(response.status) ? policy.negativeTtlMs : policy.ttlMs
    const hasOwnWord = HAS_OWN_WORD.test(cacheControl ?? '') || 'expires' in headers || 'pragma' in headers
    const given =
      hasOwnWord || !ttlMs || !(MAY_BE_GIVEN_FRESHNESS.has(response.status) || NOT_THERE.has(response.status))
        ? cacheControl
        : [cacheControl, `max-age=${Math.ceil(ttlMs / 1000)}`].filter(Boolean).join(', ')
    const found = new this.#Policy(request, { ...response, headers: keptHeaders(headers, given) }, { shared: isShared })
    return this.#keptOf(found, { ...response, cacheControl, vary, isStrict: isStrict(cacheControl, isShared) })
  }

  /** Whether a kept response answers a request: at once, or with a look at the origin in the background. */
  judge(kept: KeptResponse, request: PlainRequest): { isFresh: boolean; mayServeStale: boolean; matches: boolean } {
    const policy = this.#policyOf(kept)
    const { response, revalidation } = policy.evaluateRequest(request)
    const isUsable = response !== undefined && (!kept.isStrict || !policy.stale())
    const forgiving = { ...request, headers: { ...request.headers, 'cache-control': 'max-stale' } }
    return {
      isFresh: isUsable && revalidation === undefined,
      mayServeStale: isUsable && revalidation?.synchronous === false,
      matches: policy.evaluateRequest(forgiving).response !== undefined,
    }
  }

  /** The headers by which the origin may answer that nothing has changed. */
  conditional(kept: KeptResponse, request: PlainRequest): Record<string, string> {
    return this.#policyOf(kept).revalidationHeaders(request)
  }

  /** What is kept after the origin has answered 304, or `undefined` when that was not about what is kept. */
  revalidated(kept: KeptResponse, request: PlainRequest, response: PlainResponse): KeptResponse | undefined {
    const { 'cache-control': cacheControl, age } = response.headers
    const { etag, 'last-modified': lastModified } = kept.policy.resh
    const headers = keptHeaders(response.headers, cacheControl)
    // We asked about one response alone: a 304 that names none is about that one.
    if (headers['etag'] === undefined && headers['last-modified'] === undefined) {
      if (etag !== undefined) headers['etag'] = etag
      if (lastModified !== undefined) headers['last-modified'] = lastModified
    }
    const { policy, matches } = this.#policyOf(kept).revalidatedPolicy(request, { ...response, headers })
    if (!matches) return undefined
    const strictness = cacheControl === undefined ? kept.isStrict : isStrict(cacheControl, true)
    const next = this.#keptOf(policy, {
      ...kept,
      cacheControl: cacheControl ?? kept.cacheControl,
      isStrict: strictness,
    })
    if (age !== undefined) return next
    const { age: _age, ...resh } = next.policy.resh
    return { ...next, policy: { ...next.policy, resh } }
  }

  /** How long it is fresh from now on, and how long it is of use after that. */
  lifeOf(kept: KeptResponse, policy: ResolvedPolicy): { freshForMs: number; staleForMs: number } {
    const { resh, rescc } = kept.policy
    const hasValidator = resh['etag'] !== undefined || resh['last-modified'] !== undefined
    const allowed = [secondsOf(rescc['stale-while-revalidate']), secondsOf(rescc['stale-if-error'])].map(
      (s) => s * 1000,
    )
    const staleForMs = Math.max(kept.isStrict ? 0 : policy.staleForMs, ...allowed, hasValidator ? VALIDATOR_MS : 0)
    return { freshForMs: Math.max(0, -this.staleMs(kept)), staleForMs }
  }

  /** How long it has been stale; below 0 while it is fresh. */
  staleMs(kept: KeptResponse): number {
    const policy = this.#policyOf(kept)
    return (policy.age() - policy.maxAge()) * 1000
  }

  /** `stale-if-error` of RFC 5861. */
  allowsStaleOnError(kept: KeptResponse): boolean {
    return this.staleMs(kept) < secondsOf(kept.policy.rescc['stale-if-error']) * 1000
  }

  /** The headers of a kept response, with its age. */
  headersOf(kept: KeptResponse): Record<string, string> {
    const headers = this.#policyOf(kept).responseHeaders()
    const { cacheControl, vary, policy } = kept
    if (cacheControl === undefined) delete headers['cache-control']
    else headers['cache-control'] = cacheControl
    if (vary !== '') headers['vary'] = vary
    // When the origin made it, and not now.
    if (policy.resh['date'] === undefined) delete headers['date']
    else headers['date'] = policy.resh['date']
    return headers
  }

  #policyOf(kept: KeptResponse): HttpPolicy {
    return this.#Policy.fromObject(kept.policy)
  }

  #keptOf(
    policy: HttpPolicy,
    { status, statusText, cacheControl, vary, isStrict: strictness }: Omit<KeptResponse, 'policy'>,
  ): KeptResponse {
    // As JSON has it: what is absent and what is undefined are one.
    const serialized = JSON.parse(JSON.stringify(policy.toObject())) as SerializedPolicy
    return { policy: serialized, status, statusText, cacheControl, vary, isStrict: strictness }
  }
}

/**
 * http-cache-semantics asks the origin each time for what says `must-revalidate`, also while it is fresh. So that word is kept apart,
 * as is `Vary`: what a response depends on is a part of its place.
 */
function keptHeaders(
  headers: Readonly<Record<string, string>>,
  cacheControl: string | undefined,
): Record<string, string> {
  const kept = { ...headers }
  for (const name of NOT_KEPT) delete kept[name]
  const directives = (cacheControl ?? '').split(',').map((directive) => directive.trim())
  const others = directives.filter((directive) => directive !== '' && !/^(must|proxy)-revalidate$/i.test(directive))
  if (others.length === 0) delete kept['cache-control']
  else kept['cache-control'] = others.join(', ')
  return kept
}

/** Whether a stale response must not be used (RFC 9111, 4.2.4). */
function isStrict(cacheControl: string | undefined, isShared: boolean): boolean {
  const words = isShared
    ? /(^|,)\s*(must-revalidate|proxy-revalidate|s-maxage=[^,]*|no-cache)\s*(,|$)/i
    : /(^|,)\s*(must-revalidate|no-cache)\s*(,|$)/i
  return words.test(cacheControl ?? '')
}

function secondsOf(value: string | boolean | undefined): number {
  const seconds = typeof value === 'string' ? Number.parseInt(value, 10) : 0
  return Number.isFinite(seconds) && seconds > 0 ? seconds : 0
}
