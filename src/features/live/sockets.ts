// A socket or a stream that is closed when its session is over: `closeOnEnd()`, and the check of the Origin before it is opened.
import type { IncomingMessage } from 'node:http'
import { invalidArgument } from '../../errors.js'
import { inside } from '../../session/inside.js'
import type { Session } from '../../session/session.js'
import { openSocketsOf } from './watch.js'

/** A WebSocket of `ws`: closed with 1008 (policy violation, RFC 6455), and hears nothing any more. */
interface WebSocketLike {
  close(code: number, reason: string): void
  terminate(): void
  once(event: 'close', listener: () => void): unknown
}

/** A socket of Socket.IO, on the server. */
interface SocketIoLike {
  disconnect(close: boolean): unknown
  once(event: 'disconnect', listener: () => void): unknown
}

/** A response that stays open, such as a stream of server-sent events, or any other stream. */
interface StreamLike {
  destroy(): unknown
  once(event: 'close', listener: () => void): unknown
}

/** What `closeOnEnd()` takes: a WebSocket of `ws`, a socket of Socket.IO, a response or another stream. */
export type ClosableSocket = WebSocketLike | SocketIoLike | StreamLike

/**
 * Closes a socket or a stream when the session is over, by whatever and wherever: a logout, a revocation, a limit, another
 * process, a timeout. Nothing that arrives on it afterwards is heard. With a login the session goes on under another ID, and the
 * socket with it. Asks the store once, and again when the session's time would be over.
 *
 * Call it before anything else is done with the socket. Needs `await watchEndings(sessions.manager)` before. Returns what
 * takes it back; a socket that closes by itself needs no call.
 *
 * ```ts
 * io.on('connection', (socket) => closeOnEnd(requireSession(socket.request), socket))
 * webSockets.on('connection', (socket, req) => closeOnEnd(requireSession(req), socket))
 * app.get('/events', (req, res) => closeOnEnd(req.session, res))
 * ```
 * @throws {SessionError} `INVALID_ARGUMENT` for what is no session or no socket, or without `watchEndings()`.
 */
export function closeOnEnd(session: Session, socket: ClosableSocket): () => void {
  const sockets = openSocketsOf(inside(session).events)
  const [close, closed] = closing(socket)
  if (hasClosed(socket)) return () => {}
  const forget = sockets.add(session.id, close)
  ;(socket as StreamLike).once(closed as 'close', forget)
  return forget
}

/** What closes it, and the event that says that it is closed. */
function closing(socket: ClosableSocket): [close: () => void, closed: string] {
  if (typeof socket === 'object' && socket !== null && 'once' in socket) {
    if ('disconnect' in socket) return [() => socket.disconnect(true), 'disconnect']
    if ('terminate' in socket) return [() => closeWebSocket(socket), 'close']
    if ('destroy' in socket) return [() => socket.destroy(), 'close']
  }
  throw invalidArgument('closeOnEnd() takes a WebSocket of ws, a socket of Socket.IO, a response or another stream.')
}

/** Whether what says that it closes has been said. */
function hasClosed(socket: ClosableSocket): boolean {
  const { closed, disconnected, readyState } = socket as {
    closed?: boolean
    disconnected?: boolean
    readyState?: number
  }
  return closed === true || disconnected === true || readyState === WEB_SOCKET_CLOSED
}

const WEB_SOCKET_CLOSED = 3

/** A WebSocket that is only closed would go on to hear what comes until the other side agrees. */
function closeWebSocket(socket: WebSocketLike): void {
  socket.close(1008, 'The session is over.')
  setImmediate(() => socket.terminate())
}

/** What `isSameOrigin()` takes. */
export interface OriginOptions {
  /** Other origins that may open sockets, such as `'https://app.example.com'`: scheme, host, and port if it is not the default. */
  trustedOrigins?: readonly string[] | undefined
}

/**
 * Whether the page that opens a WebSocket is of this host (the header `Origin` of RFC 6454 against `Host`) or of an origin that is
 * trusted. A page of any other site can open a socket to yours, and the browser sends the user's cookie with it. A request
 * without an `Origin` comes from no page: true. One of an opaque origin, `null`, is of no host: false.
 *
 * ```ts
 * new Server(server, { allowRequest: (req, done) => done(null, isSameOrigin(req)) })
 * ```
 */
export function isSameOrigin(req: IncomingMessage, { trustedOrigins = [] }: OriginOptions = {}): boolean {
  const { origin, host } = req.headers
  if (origin === undefined || trustedOrigins.includes(origin)) return true
  if (host === undefined || !URL.canParse(origin)) return false
  const { protocol, host: own } = new URL(origin)
  // In one spelling, without the default port.
  return URL.canParse(`${protocol}//${host}`) && new URL(`${protocol}//${host}`).host === own
}
