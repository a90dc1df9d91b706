// A device that has a key, and a client that does with it what Chromium was seen to do: it registers when that is offered, and asks
// for another bound cookie before a request that would go without.
import { generateKeyPairSync, type JsonWebKey, type KeyObject, sign } from 'node:crypto'
import type { Answer, Client } from './http.js'

export type Algorithm = 'ES256' | 'RS256'

interface KeyPair {
  readonly publicKey: KeyObject
  readonly privateKey: KeyObject
}

export const REGISTRATION = '/device-bound/registration'
export const REFRESH = '/device-bound/refresh'
export const BOUND = '__Host-sid-bound'
/** What a proxy that ends TLS says. */
export const HTTPS = { 'x-forwarded-proto': 'https' }

export class TestDevice {
  readonly algorithm: Algorithm
  readonly #keys: KeyPair

  constructor(algorithm: Algorithm = 'ES256', keys: KeyPair = keysFor(algorithm)) {
    this.algorithm = algorithm
    this.#keys = keys
  }

  get jwk(): JsonWebKey {
    return this.#keys.publicKey.export({ format: 'jwk' })
  }

  /** A proof. What `header` and `payload` say goes before what a browser would say; `undefined` leaves it out. */
  proof(challenge: string, { header = {}, payload = {} }: { header?: object; payload?: object } = {}): string {
    const said = [
      { alg: this.algorithm, typ: 'dbsc+jwt', ...header },
      { jti: challenge, ...payload },
    ]
    const text = said.map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
    const key =
      this.algorithm === 'ES256'
        ? { key: this.#keys.privateKey, dsaEncoding: 'ieee-p1363' as const }
        : this.#keys.privateKey
    return `${text}.${sign('sha256', Buffer.from(text), key).toString('base64url')}`
  }

  registration(challenge: string, parts: { header?: object; payload?: object } = {}): string {
    return this.proof(challenge, { ...parts, header: { jwk: this.jwk, ...parts.header } })
  }
}

/** The challenge of an offer, or of an answer to a refresh; `undefined` when there is none. */
export function challengeIn({ headers }: Answer): string | undefined {
  const offer = /;challenge="([^"]+)"/.exec(String(headers['secure-session-registration']))
  return (offer ?? /^"([^"]+)";id="/.exec(String(headers['secure-session-challenge'])))?.[1]
}

/** What a browser makes of the answer to a refresh. */
export type Outcome = 'goes on' | 'signs again' | 'tries later' | 'forgets'

export function outcomeOf(answer: Answer): Outcome {
  if (answer.status >= 500) return 'tries later'
  if (answer.status === 403 && challengeIn(answer) !== undefined) return 'signs again'
  if (answer.status !== 200 && answer.status !== 204) return 'forgets'
  const { scope, session_identifier: id } = answer.json<{ scope?: object; session_identifier?: string }>()
  return scope !== undefined && id !== undefined ? 'goes on' : 'forgets'
}

/** A browser with a device, over HTTPS. */
export class DeviceBrowser {
  readonly client: Client
  readonly device: TestDevice
  /** What it has registered. */
  registration: { readonly id: string; readonly refreshPath: string } | undefined
  /** How many proofs it has signed. */
  signatures = 0
  #challenge: string | undefined

  constructor(client: Client, device = new TestDevice()) {
    this.client = client
    this.device = device
  }

  /** Registers what an answer offers, if it offers something. */
  async register(offered: Answer, parts: { header?: object; payload?: object } = {}): Promise<Answer> {
    const [, path] = /;path="([^"]+)"/.exec(String(offered.headers['secure-session-registration'])) ?? []
    const challenge = challengeIn(offered)
    if (path === undefined || challenge === undefined) throw new Error('Nothing was offered.')
    this.signatures++
    const proof = this.device.registration(challenge, parts)
    const answer = await this.client.post(path, undefined, { ...HTTPS, 'secure-session-response': proof })
    if (answer.status === 200) this.#take(answer)
    return answer
  }

  /** One post to the refresh route, with what `proof` is. */
  async post(proof?: string, id = this.registration?.id): Promise<Answer> {
    const headers = {
      ...HTTPS,
      ...(id !== undefined && { 'sec-secure-session-id': id }),
      ...(proof !== undefined && { 'secure-session-response': proof }),
    }
    return this.client.post(this.registration?.refreshPath ?? REFRESH, undefined, headers)
  }

  /** A refresh as a whole: up to five posts, as long as another challenge comes. */
  async refresh(): Promise<Outcome> {
    for (let posts = 1; posts <= 5; posts++) {
      const answer = await this.post(this.#challenge && this.sign(this.#challenge))
      const outcome = outcomeOf(answer)
      this.#challenge = challengeIn(answer) ?? this.#challenge
      if (outcome === 'goes on') this.#take(answer)
      if (outcome === 'forgets') this.registration = undefined
      if (outcome !== 'signs again') return outcome
    }
    this.registration = undefined
    return 'forgets'
  }

  /** A proof for a refresh. */
  sign(challenge: string): string {
    this.signatures++
    return this.device.proof(challenge)
  }

  forgetChallenge(): void {
    this.#challenge = undefined
  }

  /** The bound cookie runs out. */
  loseCookie(): void {
    this.client.cookies.delete(BOUND)
  }

  /** A request, with a refresh before it when the bound cookie is not there. */
  async get(path: string): Promise<Answer> {
    if (this.registration !== undefined && !this.client.cookies.has(BOUND)) await this.refresh()
    return this.client.get(path, HTTPS)
  }

  #take(answer: Answer): void {
    const said = answer.json<{ session_identifier: string; refresh_url: string }>()
    this.registration = { id: said.session_identifier, refreshPath: said.refresh_url }
    this.#challenge = challengeIn(answer)
  }
}

function keysFor(algorithm: Algorithm): KeyPair {
  return algorithm === 'ES256'
    ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
    : generateKeyPairSync('rsa', { modulusLength: 2048 })
}
