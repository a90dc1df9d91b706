// Which client a session belongs to: `sojourn/client-binding`. A stolen cookie mostly comes from another network, another browser or
// another language than its session did. So may an honest user: what follows from it is the application's choice.
import type { KeyObject } from 'node:crypto'
import { didYouMean } from '../../did-you-mean.js'
import { invalidOption, isSessionError } from '../../errors.js'
import { Recent } from '../../recent.js'
import { getSession } from '../../request/current-session.js'
import { type Drawer, type Inside, inside } from '../../session/inside.js'
import type { Session } from '../../session/session.js'
import { type ClientRequest, type ClientTrait, type RawClient, rawClient, TRAITS } from './client.js'
import { boundTo, judge, type Outcome, toldOf, traitsIn, type Verdict } from './kept.js'

export type { ClientRequest, ClientTrait } from './client.js'

/**
 * What follows when the client of a session has changed. `'tell'`: the event `clientChanged`, and nothing else. `'challenge'`: for
 * this client the session is read as if its user had not proved lately who they are, until they do. `'end'`: the session is
 * over, and the request goes on without one. `'ignore'`: nothing.
 */
export type ClientPolicy = 'tell' | 'challenge' | 'end' | 'ignore'

/** A change of the client, as `policy` is told of it. */
export interface ClientChange {
  /** In what it differs from the client that the session is bound to: one at least. */
  readonly changed: readonly ClientTrait[]
  readonly session: Session
}

/** What `clientBinding()` takes. */
export interface ClientBindingOptions {
  /**
   * What is looked at.
   * @default ['network', 'browser', 'language']
   */
  on?: readonly ClientTrait[] | undefined
  /**
   * What follows from a change, or a function that says so each time; it may take its time.
   * @default 'tell'
   */
  // biome-ignore lint/suspicious/noExplicitAny: the request is of the application's framework
  policy?: ClientPolicy | ((change: ClientChange, req: any) => ClientPolicy | Promise<ClientPolicy>) | undefined
  /**
   * The client's address, where neither Express's `req.ip` nor the connection says it, as behind a proxy without Express.
   * `undefined`: it is not known, and its network not looked at.
   */
  // biome-ignore lint/suspicious/noExplicitAny: the request is of the application's framework
  addressOf?: ((req: any) => string | undefined) | undefined
}

/** The middleware that `clientBinding()` returns. */
export type ClientBindingMiddleware = (req: ClientRequest, res: object, next: (error?: unknown) => void) => void

/**
 * Notices when a session is used by another client than before. Mount it behind `session()`; and once more, with a stricter
 * `policy`, under the paths where more is at stake.
 *
 * ```ts
 * app.use(session({ secret }), clientBinding())
 * app.use('/account', clientBinding({ policy: 'challenge' }))
 * ```
 *
 * A session is bound to the client that it began with, and from then on to the one that sent the last `login()` or
 * `reauthenticate()`. It keeps a keyed hash of each trait (HMAC-SHA256, with a key that is derived from the secret, and a
 * random part of its own), never the values. A client counts as changed when a trait differs: the network by the /24 of an
 * IPv4 address and the /48 of an IPv6 one, the browser by its family and platform, the language by the one that it prefers most.
 * Each client is told of once, and nobody is logged out unless you say so (OWASP ASVS 8.2.4).
 * @throws {SessionError} `INVALID_OPTION`
 */
export function clientBinding(options: ClientBindingOptions = {}): ClientBindingMiddleware {
  const rules = resolve(options)
  const known = new KnownClients()
  const told = new Recent<true>()

  return function clientBindingMiddleware(req, res, next) {
    const session = getSession(req)
    if (session === undefined) {
      next(invalidOption('clientBinding() runs behind session(), and under the same path; req.session is not there.'))
      return
    }
    let acting: Promise<void> | undefined
    try {
      const visit = visitOf(session, { req, res, rules })
      const stranger = lookAt(visit, known)
      if (stranger !== null) acting = answer(visit, stranger, told)
    } catch (error) {
      next(error)
      return
    }
    const goOn = (): void => next()
    if (acting === undefined) goOn()
    else acting.then(goOn, next)
  }
}

const NAME = 'client-binding'

interface Rules {
  readonly on: readonly ClientTrait[]
  readonly policy: NonNullable<ClientBindingOptions['policy']>
  readonly addressOf: ClientBindingOptions['addressOf']
}

/** One request of a session. */
interface Visit {
  readonly req: ClientRequest
  readonly res: object
  readonly session: Session
  readonly own: Inside
  readonly drawer: Drawer<string>
  readonly client: RawClient
  readonly rules: Rules
}

function visitOf(session: Session, { req, res, rules }: Pick<Visit, 'req' | 'res' | 'rules'>): Visit {
  const own = inside(session)
  return { req, res, session, own, drawer: own.drawer<string>(NAME), client: rawClient(req, rules.addressOf), rules }
}

/** What a browser says of itself, and more. Longer headers are somebody's who wants them to be kept. */
const MAX_SEEN = 1_000

/** The clients that were looked at last, and were found to be those of their sessions: hashes need not be made again. */
class KnownClients {
  readonly #seen = new Recent<true>()
  #keys: readonly KeyObject[] | undefined

  /** What was known under other keys is forgotten. */
  has(text: string, keys: readonly KeyObject[]): boolean {
    if (this.#keys !== keys) {
      this.#keys = keys
      this.#seen.clear()
    }
    return this.#seen.get(text) === true
  }

  add(text: string): void {
    if (text.length <= MAX_SEEN) this.#seen.set(text, true)
  }
}

/** Binds a session that is not bound yet. Returns what is strange about the client; `null` when nothing is. */
function lookAt(visit: Visit, known: KnownClients): Verdict | null {
  const { session, own, drawer, client, rules } = visit
  if (session.isNew) {
    // Whether there will be a session to be bound, its handler decides.
    own.beforeCommit(() => isToBeStored(visit) && bind(visit))
    return null
  }
  const keys = own.sharedKeys(NAME)
  const kept = drawer.get()
  const seen = `${kept}\n${client.address}\n${client.userAgent}\n${client.language}`
  if (known.has(seen, keys)) return null
  const verdict = typeof kept === 'string' ? judge(kept, client, rules.on, keys) : null
  if (verdict === null || verdict.isStale) bind(visit)
  else if (verdict.changed.length === 0) known.add(seen)
  else {
    const { authenticatedAt } = session.metadata
    own.beforeCommit(() => hasProved(visit, authenticatedAt) && bind(visit))
    return verdict
  }
  return null
}

/** What follows from a strange client, by the policy. Returns what to wait for, if anything. */
function answer(visit: Visit, stranger: Verdict, told: Recent<true>): Promise<void> | undefined {
  const { session, req, rules } = visit
  const { policy } = rules
  const act = (chosen: ClientPolicy): Promise<void> | undefined => {
    switch (checkPolicy(chosen)) {
      case 'ignore':
        return undefined
      case 'tell':
        tell(visit, stranger, { told, outcome: 'told' })
        return undefined
      case 'challenge':
        visit.own.doubtProof()
        tell(visit, stranger, { told, outcome: 'challenged' })
        return undefined
      case 'end':
        tell(visit, stranger, { told, outcome: 'ended' })
        return visit.own.revoke({ by: NAME, detail: `another ${stranger.changed.join(' and ')}` })
    }
  }
  if (typeof policy !== 'function') return act(policy)
  const chosen = policy({ changed: stranger.changed, session }, req)
  return chosen instanceof Promise ? chosen.then(act) : act(chosen)
}

/** Tells of a client once, of one that is challenged then once more, and of each session that is ended. */
function tell(
  { session, own, drawer, res }: Visit,
  { changed, stranger, toldAs }: Verdict,
  { told, outcome }: { told: Recent<true>; outcome: Outcome | 'ended' },
): void {
  const { id, metadata } = session
  if (outcome !== 'ended') {
    const isKnown = (as: Outcome): boolean => toldAs === as || told.get(`${id} ${stranger} ${as}`) === true
    if (isKnown('challenged') || isKnown(outcome)) return
    told.set(`${id} ${stranger} ${outcome}`, true)
    if (hasHead(res)) keepIfItMay(() => drawer.set(toldOf(drawer.get() as string, stranger, outcome)))
  }
  const { userId, logicalId } = metadata
  own.events.emit('clientChanged', { id, userId, logicalId, changed, outcome, ...own.request() })
}

/** Binds the session to the client at hand. */
function bind({ own, drawer, client, rules, res }: Visit): void {
  // Nothing is committed behind an upgrade.
  if (!hasHead(res)) return
  const [newest] = own.sharedKeys(NAME)
  // What another `clientBinding()` looks at stays bound, too.
  keepIfItMay(() => drawer.set(boundTo(client, [...rules.on, ...traitsIn(drawer.get())], newest as KeyObject)))
}

/** A session that has ended meanwhile, or cannot be written now, is bound to nobody, and that is no fault of the request. */
function keepIfItMay(keep: () => void): void {
  try {
    keep()
  } catch (error) {
    if (!isSessionError(error, 'SESSION_ENDED', 'SESSION_READ_ONLY')) throw error
  }
}

/** Whether a session that began with this request is, or will be, more than an empty one. */
function isToBeStored({ session, req }: Visit): boolean {
  return getSession(req) === session && (session.isModified || session.metadata.userId !== undefined)
}

/** Whether the user has proved in this request who they are. */
function hasProved({ session, req }: Visit, before: Date | undefined): boolean {
  const { authenticatedAt } = session.metadata
  return getSession(req) === session && authenticatedAt !== undefined && authenticatedAt.getTime() !== before?.getTime()
}

/** Whether there is a response that a commit comes with: none behind an upgrade. */
function hasHead(res: object): boolean {
  return typeof (res as { writeHead?: unknown }).writeHead === 'function'
}

const POLICIES: readonly unknown[] = ['tell', 'challenge', 'end', 'ignore'] satisfies ClientPolicy[]

function checkPolicy(policy: ClientPolicy): ClientPolicy {
  if (POLICIES.includes(policy)) return policy
  throw invalidOption(
    `policy is ${String(policy)}; use 'tell', 'challenge', 'end' or 'ignore', or a function that returns one.`,
  )
}

function resolve({ on = TRAITS, policy = 'tell', addressOf, ...others }: ClientBindingOptions): Rules {
  const [unknown] = Object.keys(others)
  if (unknown !== undefined) {
    throw invalidOption(
      `clientBinding() has no option "${unknown}".${didYouMean(unknown, ['on', 'policy', 'addressOf'])}`,
    )
  }
  if (!Array.isArray(on) || on.length === 0) {
    throw invalidOption(`on is a list of what to look at: 'network', 'browser', 'language'.`)
  }
  for (const trait of on) {
    if (TRAITS.includes(trait)) continue
    throw invalidOption(
      `on has ${JSON.stringify(trait)}; use 'network', 'browser' or 'language'.${didYouMean(String(trait), TRAITS)}`,
    )
  }
  if (typeof policy !== 'function') checkPolicy(policy)
  if (addressOf !== undefined && typeof addressOf !== 'function') throw invalidOption('addressOf is not a function.')
  return { on: [...on], policy, addressOf }
}
