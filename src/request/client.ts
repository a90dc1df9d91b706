// What is kept of the client that begins a session. It comes from outside, so it is cut and cleaned before it is kept.
import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import { isIPv4, isIPv6 } from 'node:net'
import type { SessionContext } from '../record/session-data.js'

/** Which facts are wanted. */
type WantedFacts = Readonly<Record<keyof SessionContext, boolean>>

type ClientRequest = (IncomingMessage | Http2ServerRequest) & {
  /** Express's judgement, which honours `trust proxy`. */
  ip?: string | undefined
}

/** The client's address, if that is to be known: Express's judgement, or that of the connection. */
export function ipOf(req: ClientRequest, wanted: WantedFacts): string | undefined {
  if (!wanted.ip) return undefined
  const ip = typeof req.ip === 'string' ? req.ip : req.socket?.remoteAddress
  return cleanAddress(ip)
}

function cleanAddress(ip: string | undefined): string | undefined {
  return ip === undefined ? undefined : printable(unmapped(ip), MAX_SHORT_TEXT)
}

/** What is kept of the client that begins a session: what it says of itself, cut and without control characters. */
export function contextOf(req: ClientRequest, wanted: WantedFacts): SessionContext | undefined {
  const { userAgent, referrer, locale } = wanted
  const { headers } = req
  return cleanContext({
    ip: ipOf(req, wanted),
    userAgent: userAgent ? headers['user-agent'] : undefined,
    referrer: referrer ? headers.referer : undefined,
    locale: locale ? preferredLanguage(headers['accept-language']) : undefined,
  })
}

/** A context as it is kept, wherever it comes from; `undefined` when nothing is left of it. */
export function cleanContext({
  ip,
  userAgent,
  referrer,
  locale,
}: Partial<Record<keyof SessionContext, string | undefined>>): SessionContext | undefined {
  const facts: [keyof SessionContext, string | undefined][] = [
    ['ip', cleanAddress(ip)],
    ['userAgent', printable(userAgent, MAX_TEXT)],
    ['referrer', printable(withoutQuery(referrer), MAX_TEXT)],
    ['locale', printable(locale, MAX_SHORT_TEXT)],
  ]
  const known = facts.filter(([, text]) => text !== undefined && text !== '')
  return known.length === 0 ? undefined : Object.freeze(Object.fromEntries(known))
}

/** What is known of a client that claims a session. */
export interface ClientFacts {
  ip?: string | undefined
  userAgent?: string | undefined
}

/**
 * In what a client differs from the one that began a session, as far as both are known: networks change within a /24 or a
 * /48, and browsers update themselves.
 */
export function differenceOf(context: SessionContext | undefined, client: ClientFacts): 'ip' | 'user-agent' | null {
  if (context?.ip !== undefined && client.ip !== undefined && networkOf(context.ip) !== networkOf(client.ip))
    return 'ip'
  const [then, now] = [context?.userAgent, printable(client.userAgent, MAX_TEXT)]
  if (then !== undefined && now !== undefined && withoutVersions(then) !== withoutVersions(now)) return 'user-agent'
  return null
}

/** The /24 of an IPv4 address, the /48 of an IPv6 address; anything else stands for itself. */
export function networkOf(address: string): string {
  const ip = unmapped(address)
  if (isIPv4(ip)) return ip.slice(0, ip.lastIndexOf('.'))
  if (!isIPv6(ip)) return ip
  // "::" stands for as many zero groups as are missing (RFC 4291 2.2).
  const [head = '', tail] = ip.split('%')[0]?.split('::') ?? []
  const groups = head === '' ? [] : head.split(':')
  if (tail !== undefined) {
    const rest = tail === '' ? [] : tail.split(':')
    while (groups.length + rest.length < 8) groups.push('0')
    groups.push(...rest)
  }
  return groups
    .slice(0, 3)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')
}

function withoutVersions(userAgent: string): string {
  return userAgent.replace(/\d+(?:[._]\d+)*/g, '')
}

/** IPv4 in IPv6 (RFC 4291 2.5.5.2) is the same address. */
function unmapped(ip: string): string {
  return ip.replace(/^::ffff:(?=\d+\.)/i, '')
}

/** Bounds of what a client says of itself. */
const MAX_TEXT = 256
const MAX_SHORT_TEXT = 64

/** For lists and logs: no line breaks, terminal escapes or lone surrogates, and no more than so many characters. */
function printable(text: string | undefined, length: number): string | undefined {
  return text
    ?.slice(0, length)
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, ' ')
    .toWellFormed()
    .trim()
}

/** Queries carry tokens of other sites and of ours. */
function withoutQuery(url: string | undefined): string | undefined {
  return url?.replace(/[?#].*$/s, '')
}

/** The language tag (BCP 47) that `Accept-Language` prefers (RFC 9110 12.5.4). */
export function preferredLanguage(header: string | undefined): string | undefined {
  let best: { tag: string; weight: number } | undefined
  for (const part of header?.slice(0, 512).split(',') ?? []) {
    const [, tag, weight = '1'] =
      /^\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*)\s*(?:;\s*q=([01](?:\.\d{0,3})?)\s*)?$/.exec(part) ?? []
    if (tag !== undefined && Number(weight) > (best?.weight ?? 0)) best = { tag, weight: Number(weight) }
  }
  return best?.tag
}
