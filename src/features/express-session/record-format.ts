// What the drop-in writes into stores of express-session: the fields beside the cookie, as express-session writes them and as
// other programs read them there, and what else a record has as one text. A session of express-session is read as it is.

import { SessionError } from '../../errors.js'
import type { IssuedToken } from '../../ids.js'
import { SessionData } from '../../record/session-data.js'
import { type Metadata, recordOf } from '../../stores/connect/packed-text.js'
import type { RecordFormat } from '../../stores/connect.js'
import { Cookie, type CookieData, type CookieOptions, OWN_ATTRIBUTES } from './cookie.js'

/** The field that a session's own cookie attributes are kept in. */
export const COOKIE_FIELD = 'sojourn:cookie'

/** What the format has to know of the middleware. */
export interface FormatOptions {
  readonly token: IssuedToken
  readonly cookie: CookieOptions
  readonly isPersistent: boolean
  readonly idleTimeoutMs: number
  readonly absoluteTimeoutMs: number
  readonly clock: () => number
}

/** The format of a middleware. */
export function fieldsFormat(options: FormatOptions): RecordFormat {
  return {
    write({ fields, ...metadata }) {
      const plain: Record<string, unknown> = Object.create(null)
      const others: [string, string][] = []
      for (const [name, text] of fields) {
        if (isPlainName(name)) plain[name] = JSON.parse(text)
        else others.push([name, text])
      }
      return { ...plain, sojourn: JSON.stringify({ ...metadata, ...(others.length > 0 && { others }) }) }
    },
    cookieOf(data, endsAt) {
      const own = data.fields.get(COOKIE_FIELD)
      const cookie = new Cookie({ ...attributesOf(options.cookie), ...(own !== undefined && JSON.parse(own)) })
      if (data.ended) cookie.expires = new Date(endsAt)
      else if (data.persistent ?? options.isPersistent) {
        cookie.expires = new Date(data.expiresAt)
        cookie.originalMaxAge = data.idleTimeoutMs ?? options.idleTimeoutMs
      }
      return cookie
    },
    read(stored, id) {
      const { sojourn, cookie, ...plain } = stored as { sojourn?: unknown; cookie?: Partial<CookieData> | null }
      const fields = Object.entries(plain)
        .filter(([, value]) => JSON.stringify(value) !== undefined)
        .map(([name, value]) => [name, JSON.stringify(value)] as const)
      if (typeof sojourn !== 'string') return adopted(id, { cookie, fields, options })
      const { others = [], ...metadata } = parsed(sojourn)
      return afterUseElsewhere(recordOf(metadata, [...fields, ...others]), cookie)
    },
  }
}

/** Names that a store of express-session can have beside its own. */
function isPlainName(name: string): boolean {
  return name !== 'cookie' && name !== 'sojourn' && name !== '__proto__' && !name.startsWith('sojourn:')
}

export function attributesOf(cookie: CookieOptions): CookieOptions {
  const attributes: Record<string, unknown> = {}
  for (const name of OWN_ATTRIBUTES) if (cookie[name] !== undefined) attributes[name] = cookie[name]
  return attributes
}

/** A record of express-session, as the session that it is. */
function adopted(
  id: string,
  parts: {
    cookie: Partial<CookieData> | null | undefined
    fields: readonly (readonly [string, string])[]
    options: FormatOptions
  },
): SessionData {
  const { cookie, fields, options } = parts
  const now = options.clock()
  const { token, isPersistent, idleTimeoutMs, absoluteTimeoutMs } = options
  const expires = timeOf(cookie?.expires)
  const ownIdleMs = expires === null ? undefined : (cookie?.originalMaxAge ?? Math.max(1, expires - now))
  const lastAccessedAt = expires === null ? now : Math.min(now, expires - (ownIdleMs as number))
  const attributes = attributesOf((cookie ?? {}) as CookieOptions)
  const own = Object.entries(attributes).filter(([name, value]) => {
    const usual = options.cookie[name as keyof CookieOptions] ?? DEFAULTS[name]
    return value !== usual && !(usual === 'auto')
  })
  const others: [string, string][] = own.length > 0 ? [[COOKIE_FIELD, JSON.stringify(Object.fromEntries(own))]] : []
  return new SessionData({
    id,
    tokenHash: token.tokenHash,
    generation: 1,
    createdAt: lastAccessedAt,
    updatedAt: lastAccessedAt,
    lastAccessedAt,
    expiresAt: expires ?? now + idleTimeoutMs,
    absoluteExpiresAt: lastAccessedAt + absoluteTimeoutMs,
    ...(ownIdleMs !== undefined && ownIdleMs !== idleTimeoutMs && { idleTimeoutMs: ownIdleMs }),
    ...((expires !== null) !== isPersistent && { persistent: expires !== null }),
    fields: [...fields, ...others],
  })
}

const DEFAULTS: Readonly<Record<string, unknown>> = { path: '/', httpOnly: true, secure: false, domain: null }

/** An express-session on the same store moves the cookie's end and knows nothing of ours. */
function afterUseElsewhere(record: SessionData, cookie: Partial<CookieData> | null | undefined): SessionData {
  const expires = timeOf(cookie?.expires)
  if (record.ended || expires === null || expires <= record.expiresAt) return record
  const used = expires - (cookie?.originalMaxAge ?? 0)
  return record.with({ expiresAt: expires, lastAccessedAt: Math.max(record.lastAccessedAt, Math.min(used, expires)) })
}

function timeOf(expires: unknown): number | null {
  if (typeof expires !== 'string' && !(expires instanceof Date)) return null
  const time = new Date(expires).getTime()
  return Number.isNaN(time) ? null : time
}

function parsed(text: string): Metadata & { others?: readonly (readonly [string, string])[] } {
  try {
    return JSON.parse(text)
  } catch {
    // The parser's own message quotes the text.
    throw new SessionError('CORRUPT_RECORD', 'The record of a session cannot be read: its metadata is not JSON.')
  }
}
