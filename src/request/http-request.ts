// A request of Node, and what a session is put on.
import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import type { Session } from '../session/session.js'

/** A request of `node:http`, `node:https` or the compatibility API of `node:http2`. */
export type HttpRequest = IncomingMessage | Http2ServerRequest

/** What `req.session` is where another face puts something else there than a `Session`: that one's types declare `attached`. */
// biome-ignore lint/suspicious/noEmptyInterface: it is there to be added to
export interface SessionTypes {}

type Attached = SessionTypes extends { attached: infer Other } ? Other : Session

// Express's request extends both of its own: they must say the same.
declare global {
  namespace Express {
    interface Request {
      session: Attached
    }
  }
}

declare module 'http' {
  interface IncomingMessage {
    /** There where the middleware ran, for this request or for the upgrade of this socket. */
    session: Attached
  }
}

declare module 'http2' {
  interface Http2ServerRequest {
    /** There where the middleware ran. */
    session: Attached
  }
}

/** A request with what frameworks and this package put on it. */
export type SessionRequest = HttpRequest & RequestExtras

interface RequestExtras {
  session?: Session | undefined
  /** Express and Connect keep the whole URL here. */
  originalUrl?: string
  /** Express's judgements, which honour `trust proxy`. */
  secure?: boolean
  ip?: string | undefined
  app?: { get?(setting: string): unknown }
}

/** Whether a request came over HTTPS, as far as those say who are believed. */
export function isEncrypted(req: SessionRequest, trustProxy: boolean): boolean {
  if ((req.socket as { encrypted?: boolean }).encrypted) return true
  if (typeof req.secure === 'boolean') return req.secure
  if (!trustProxy) return false
  const forwarded = req.headers['x-forwarded-proto']
  const [first] = String(forwarded ?? '').split(',')
  return first?.trim().toLowerCase() === 'https'
}

/** Whether some proxy's word counts, by Express's setting where there is Express. */
export function trustsProxy({ app, secure }: SessionRequest, trustProxy: boolean): boolean {
  return typeof secure === 'boolean' ? Boolean(app?.get?.('trust proxy')) : trustProxy
}
