// Where a browser keeps the token of an automatic recovery point: a cookie of its own, which outlives the window and the session's.
import type { IncomingMessage } from 'node:http'
import { parseCookie, stringifySetCookie } from 'cookie'
import { isRecoveryToken } from './points.js'

/** The name over plain HTTP; over HTTPS it has the prefix that no other host can plant. */
const PLAIN_NAME = 'recovery'
const SECURE_NAME = '__Host-recovery'

/** What is called of a response. */
export interface HeaderResponse {
  readonly headersSent: boolean
  appendHeader(name: string, value: string): unknown
}

/** The token in the cookie of a request, or `undefined`. */
export function tokenInCookie(req: IncomingMessage, isHttps: boolean): string | undefined {
  const token = parseCookie(req.headers.cookie ?? '')[isHttps ? SECURE_NAME : PLAIN_NAME]
  return isRecoveryToken(token) ? token : undefined
}

/** Sets the cookie; without a token, removes it. */
export function setRecoveryCookie(
  res: HeaderResponse,
  { token, maxAgeSeconds, isHttps }: { token?: string; maxAgeSeconds: number; isHttps: boolean },
): void {
  if (res.headersSent) return
  const value = stringifySetCookie({
    name: isHttps ? SECURE_NAME : PLAIN_NAME,
    value: token ?? '',
    maxAge: token === undefined ? 0 : maxAgeSeconds,
    path: '/',
    httpOnly: true,
    secure: isHttps,
    // The browser is to send it when the user comes back by a link.
    sameSite: 'lax',
  })
  res.appendHeader('Set-Cookie', value)
}
