// How responses of a host are cached: the policies that an application registers, by host.
import { type Duration, milliseconds } from '../../duration.js'
import { invalidArgument, invalidOption } from '../../errors.js'

/** How responses of a domain are cached. HTTP's own rules (RFC 9111) hold first: what says `no-store` is never kept. */
export interface DomainPolicy {
  /** How long a response is fresh that does not say so itself. @default as HTTP guesses: a tenth of its age by `Last-Modified`, else 0 */
  ttl?: Duration | undefined
  /** The same for answers that there is nothing: 404 and 410. @default 0 */
  negativeTtl?: Duration | undefined
  /**
   * What happens when the origin cannot be reached, does not answer in time, or answers 500, 502, 503 or 504: a stale copy is given, if
   * there is one and its response does not forbid it, or the error is raised. @default 'raise'
   */
  onError?: 'return-cached' | 'raise' | undefined
  /** How long a stale copy is kept. @default '1d' with `onError: 'return-cached'`, else as the response says */
  staleFor?: Duration | undefined
  /** What is done with a stale copy: ask the origin and wait, or give it and ask in the background. @default 'wait' */
  revalidate?: 'wait' | 'background' | undefined
  /** How long the origin may take. @default '10s' */
  timeout?: Duration | undefined
  /** A larger body is handed through and not kept. No more than this is ever held in memory. @default 1 MiB */
  maxBytes?: number | undefined
  /** Request headers that responses depend on, beside those that they name in `Vary`. @default none */
  vary?: readonly string[] | undefined
}

/** A policy as it is used. */
export interface ResolvedPolicy {
  readonly ttlMs: number | undefined
  readonly negativeTtlMs: number
  readonly returnsCached: boolean
  readonly staleForMs: number
  readonly inBackground: boolean
  readonly timeoutMs: number
  readonly maxBytes: number
  readonly vary: readonly string[]
}

const MEGABYTE = 1024 * 1024

/** The policies of one cache. */
export class Policies {
  readonly #byDomain = new Map<string, ResolvedPolicy>()
  readonly #fallback = resolvePolicy({})

  register(domain: string, policy: DomainPolicy): void {
    this.#byDomain.set(checkDomain(domain), resolvePolicy(policy ?? {}))
  }

  /** The most exact one: host with port, host, `*.` and the nearest domain above, `*`. */
  of({ host, hostname }: URL): ResolvedPolicy {
    const exact = this.#byDomain.get(host) ?? this.#byDomain.get(hostname)
    if (exact !== undefined) return exact
    for (let dot = hostname.indexOf('.'); dot !== -1; dot = hostname.indexOf('.', dot + 1)) {
      const found = this.#byDomain.get(`*${hostname.slice(dot)}`)
      if (found !== undefined) return found
    }
    return this.#byDomain.get('*') ?? this.#fallback
  }
}

/** The domain in the form that a URL gives it. */
function checkDomain(domain: string): string {
  if (domain === '*') return domain
  const [, wildcard = '', host = ''] = /^(\*\.)?([^/?#@\s*\\]+)$/.exec(typeof domain === 'string' ? domain : '') ?? []
  const url = host === '' ? null : parsed(`http://${host}`)
  if (url === null || url.pathname !== '/') {
    throw invalidArgument("registerDomain() needs a host: 'api.example.com', 'localhost:3000', '*.example.com' or '*'.")
  }
  return wildcard + url.host
}

function parsed(text: string): URL | null {
  return URL.canParse(text) ? new URL(text) : null
}

function resolvePolicy(policy: DomainPolicy): ResolvedPolicy {
  const { onError = 'raise', revalidate = 'wait', maxBytes = MEGABYTE, vary = [], ttl } = policy
  if (onError !== 'raise' && onError !== 'return-cached') {
    throw invalidOption("registerDomain(): onError must be 'raise' or 'return-cached'.")
  }
  if (revalidate !== 'wait' && revalidate !== 'background') {
    throw invalidOption("registerDomain(): revalidate must be 'wait' or 'background'.")
  }
  if (!Number.isSafeInteger(maxBytes) || maxBytes < 0) {
    throw invalidOption('registerDomain(): maxBytes must be a whole number.')
  }
  if (!Array.isArray(vary) || !vary.every((name) => /^[\w!#$%&'*+.^`|~-]+$/.test(name))) {
    throw invalidOption('registerDomain(): vary must be a list of names of headers.')
  }
  const returnsCached = onError === 'return-cached'
  return {
    ttlMs: ttl === undefined ? undefined : milliseconds(ttl, 'ttl', 0),
    negativeTtlMs: milliseconds(policy.negativeTtl ?? 0, 'negativeTtl', 0),
    returnsCached,
    staleForMs: milliseconds(policy.staleFor ?? (returnsCached ? '1d' : 0), 'staleFor', 0),
    inBackground: revalidate === 'background',
    timeoutMs: milliseconds(policy.timeout ?? '10s', 'timeout'),
    maxBytes,
    vary: vary.map((name) => name.toLowerCase()),
  }
}
