// The two routes that browsers ask by themselves: to register a key, and to prove that they have it.
//
// What they answer decides whether a browser keeps its key. It goes on after 200 with the cookie, signs again after 403 with a
// challenge, tries later after 5xx, and forgets the key for good after anything else. So 5xx stands for all that is not known now,
// and 401 is said on purpose only.
import { randomBytes } from 'node:crypto'
import { isStoreFault } from '../../errors.js'
import type { SessionManager } from '../../manager/manager.js'
import { type Inside, inside } from '../../session/inside.js'
import type { Session } from '../../session/session.js'
import { bind, type Device, deviceIn, findDevice, isDeviceUnreadable, takeProof } from './device.js'
import type { DeviceRequest, DeviceRules } from './options.js'
import { isSignedBy, readProof, unquoted } from './proof.js'
import { boundCookieValue, issueChallenge, issueOf, PURPOSE } from './sealed.js'

/** What a route answers. */
export interface RouteAnswer {
  readonly status: 200 | 401 | 403 | 503
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** Why a proof was refused. */
type Refusal = 'malformed' | 'signature' | 'challenge' | 'second-key' | 'no-login'

interface RouteContext {
  readonly rules: DeviceRules
  readonly manager: SessionManager
}

/** How long a browser has for its registration. */
const REGISTRATION_MS = 60_000
/** How much longer a cookie is good here than in the browser: it was on its way. */
export const GRACE_MS = 10_000
const ID_BYTES = 16
/** The ID of the session that was registered, and a random part: each registration has a name of its own. */
const ID = /^([0-9a-f-]{36})\.[\w-]{22}$/

/** What a refusal says of itself (RFC 9110, 11.6.1). */
export const UNPROVEN = 'Session error="device_unproven"'
/**
 * The browser is to forget what it registered. Not 403, even without a challenge: Chromium 156 signs the one that it was given ahead
 * again then, three times, of the few signatures that it makes in ten minutes.
 */
const FORGET: RouteAnswer = { status: 401, headers: { 'WWW-Authenticate': UNPROVEN }, body: '' }
/** What is true cannot be told now: the browser keeps its key and asks again. */
export const UNKNOWN: RouteAnswer = { status: 503, headers: { 'Retry-After': '1' }, body: '' }

/** What is to be said with the response to a login: where to register a key, for which challenge. */
export function registrationOffer(session: Session, { registrationPath }: DeviceRules): string {
  const within = inside(session)
  const challenge = issueChallenge(within.sharedKeys(PURPOSE), 'registration', session.id, within.now())
  return `(ES256 RS256);path="${registrationPath}";challenge="${challenge}"`
}

/**
 * Binds the session to the key that comes: one that was offered in the last minute, and has none. A second key is refused, whoever
 * sends it.
 */
export async function register(session: Session, req: DeviceRequest, { rules }: RouteContext): Promise<RouteAnswer> {
  const within = await opened(session)
  if (session.isNew || session.metadata.userId === undefined) return refused(within, session, 'no-login')
  if (deviceIn(within) !== undefined) return refused(within, session, 'second-key')
  if (isDeviceUnreadable(within)) return UNKNOWN
  const proof = readProof(req.headers['secure-session-response'])
  if (proof?.key === undefined) return refused(within, session, 'malformed')
  const keys = within.sharedKeys(PURPOSE)
  const now = within.now()
  const issuedAt = issueOf(keys, 'registration', session.id, proof.challenge)
  if (issuedAt === null || now - issuedAt > REGISTRATION_MS) return refused(within, session, 'challenge')
  if (!isSignedBy(proof, proof.key)) return refused(within, session, 'signature')
  const id = `${session.id}.${randomBytes(ID_BYTES).toString('base64url')}`
  const { algorithm, key } = proof
  const device = { id, boundAt: now, provedAt: now, usedAt: now, algorithm, key }
  switch (await bind(session, device).catch(unlessUnknown)) {
    case 'unknown':
      break
    case false:
      return refused(within, session, 'second-key')
    case true:
      within.events.emit('deviceBound', { id: session.id, userId: session.metadata.userId, algorithm })
  }
  return proved(within, device, rules)
}

/**
 * Gives another bound cookie to a browser that proves that it has the key. Whose it is, the name of its registration says, and not a
 * cookie: a refresh that a page of another site has caused comes without those that are `SameSite`.
 */
export async function refresh(session: Session, req: DeviceRequest, context: RouteContext): Promise<RouteAnswer> {
  const { rules, manager } = context
  const within = await opened(session)
  const asked = req.headers['sec-secure-session-id']
  // Browsers send it, and scripts of pages cannot.
  const id = typeof asked === 'string' ? unquoted(asked) : ''
  const [, registeredIn] = ID.exec(id) ?? []
  if (registeredIn === undefined) return FORGET
  // With the cookie, of whatever ID the session is by now; without, as long as it is remembered where it went.
  const isAtHand = !session.isNew && deviceIn(within)?.id === id
  const found = await findDevice(manager, isAtHand ? session.id : registeredIn)
  if (found === 'unknown') return UNKNOWN
  // It is over, or another login has another key.
  if (found?.device?.id !== id) return FORGET
  const { sessionId, device } = found
  const header = req.headers['secure-session-response']
  if (header === undefined) return challenged(within, device)
  const proof = readProof(header)
  // The key is pinned: one that comes along later is not looked at, nor another algorithm.
  if (proof === null || proof.key !== undefined || proof.algorithm !== device.algorithm) {
    return refused(within, session, 'malformed', sessionId)
  }
  if (!isSignedBy(proof, device.key)) return refused(within, session, 'signature', sessionId)
  const usedAt = issueOf(within.sharedKeys(PURPOSE), 'refresh', id, proof.challenge)
  const now = within.now()
  // One that is too old, was used, or was given under a secret that is gone: browsers keep them, and sign again.
  if (usedAt === null || now - usedAt > rules.lifetimeMs + REGISTRATION_MS) return challenged(within, device)
  if (await takeProof(manager, { sessionId, id, usedAt, provedAt: now })) {
    within.events.emit('deviceProved', { id: sessionId })
    return proved(within, { id, usedAt }, rules)
  }
  // Another request has used it, or the session has ended meanwhile.
  const present = await findDevice(manager, sessionId)
  if (present === 'unknown') return UNKNOWN
  return present?.device?.id === id ? challenged(within, present.device) : FORGET
}

/**
 * Whether it is stored is not known. A browser that has the key loses nothing: it is told to forget it at its first refresh if not. One
 * that has not would be kept out by a key that nobody has.
 */
function unlessUnknown(error: unknown): 'unknown' {
  if (isStoreFault(error)) return 'unknown'
  throw error
}

/** The inside of a session that the store knows, or does not have. */
async function opened(session: Session): Promise<Inside> {
  const within = inside(session)
  // Browsers ask ahead of any request, also of those that are no activity.
  within.passive()
  // Stores nothing, as nothing has changed. With `onStoreError: 'anonymous'` it says that nobody knows.
  await session.save()
  return within
}

function proved(within: Inside, device: Pick<Device, 'id' | 'usedAt'>, rules: DeviceRules): RouteAnswer {
  const keys = within.sharedKeys(PURPOSE)
  const { cookieName, attributes, lifetimeMs, refreshPath, scope } = rules
  const value = boundCookieValue(keys, device.id, within.now() + lifetimeMs + GRACE_MS)
  const body = {
    session_identifier: device.id,
    refresh_url: refreshPath,
    scope,
    credentials: [{ type: 'cookie', name: cookieName, attributes }],
    // Or a page that is reached from another site comes without the cookie, and without having asked for it.
    allowed_refresh_initiators: ['*'],
  }
  return {
    status: 200,
    headers: {
      'Content-Type': 'application/json',
      'Set-Cookie': `${cookieName}=${value}; Max-Age=${Math.floor(lifetimeMs / 1000)}; ${attributes}`,
      // For the next time, which saves a round trip.
      ...challengeFor(within, device),
    },
    body: JSON.stringify(body),
  }
}

/** Which origins below it may register a key for all of a site, as browsers ask its registrable domain. */
export function registeringOrigins(origins: Iterable<string>): RouteAnswer {
  const body = JSON.stringify({ registering_origins: [...origins] })
  return { status: 200, headers: { 'Content-Type': 'application/json' }, body }
}

function challenged(within: Inside, device: Pick<Device, 'id' | 'usedAt'>): RouteAnswer {
  return { status: 403, headers: challengeFor(within, device), body: '' }
}

/** Later than the last one that was used, whatever the clock of the process was that issued that. */
function challengeFor(within: Inside, { id, usedAt }: Pick<Device, 'id' | 'usedAt'>): Record<string, string> {
  const at = Math.max(within.now(), usedAt + 1)
  const challenge = issueChallenge(within.sharedKeys(PURPOSE), 'refresh', id, at)
  return { 'Secure-Session-Challenge': `"${challenge}";id="${id}"` }
}

function refused(
  within: Inside,
  session: Session,
  reason: Refusal,
  id = session.isNew ? undefined : session.id,
): RouteAnswer {
  const userId = session.id === id ? session.metadata.userId : undefined
  within.events.emit('deviceRefused', { id, userId, reason, ...within.request() })
  return FORGET
}
