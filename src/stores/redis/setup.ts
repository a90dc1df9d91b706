// What is wrong with how Redis was set up, told to whoever runs it: the reason of a failure, in words, and warnings at start.
// Nothing here quotes a URL, a command or a password.
import { warn, warnOnce } from '../../warn.js'

/** What is called of a connection to see how the server is set up. */
interface Informant {
  info?(section: string): Promise<string>
}

const REASONS: readonly (readonly [sign: RegExp, reason: string])[] = [
  [/\bNOAUTH\b/, 'NOAUTH: the server wants a password. Put it into the url: redis://user:password@host'],
  [/\bWRONGPASS\b|invalid password/i, 'WRONGPASS: the server does not know this user and password'],
  [/\bNOPERM\b/, 'NOPERM: the user lacks rights; the documentation lists what the store needs'],
  [/\bECONNREFUSED\b/, 'ECONNREFUSED: nothing listens there. Is Redis running, and are host and port right?'],
  [/\b(ENOTFOUND|EAI_AGAIN)\b/, 'the host name is not known (ENOTFOUND). Is the url right?'],
  [/\b(EHOSTUNREACH|ENETUNREACH)\b/, 'the host cannot be reached (EHOSTUNREACH)'],
  [/\bETIMEDOUT\b|timed? ?out/i, 'ETIMEDOUT: the host does not answer. Is a firewall in between?'],
  [/^The command was aborted/, 'the command could not be sent in time, since the client is not connected, or is busy'],
  [/wrong version number|packet length too long|ERR_SSL/i, 'this port does not speak TLS. Use redis:// for it'],
  [/\bProtocol error\b|Unknown RESP type/, 'what answers is not Redis without TLS. For a port with TLS, use rediss://'],
  [/\bcertificate\b|\bCERT_|ERR_TLS|UNABLE_TO_|SELF_SIGNED/, 'the TLS certificate of the server was refused'],
  [/\bmax number of clients\b/, 'the server has no room for another connection (maxclients)'],
  [/^OOM\b/, 'OOM: Redis is out of memory (maxmemory)'],
  [/^READONLY\b/, 'READONLY: this is a replica. Connect to the primary'],
  [/^LOADING\b/, 'LOADING: Redis is reading its data from disk'],
  [/^BUSY\b/, 'BUSY: a script has run for too long. SCRIPT KILL ends one that has written nothing'],
  [/^MISCONF\b/, 'MISCONF: Redis cannot save to disk and refuses writes'],
  [/^MASTERDOWN\b/, 'MASTERDOWN: the replica has lost its primary'],
  [/^CLUSTERDOWN\b/, 'CLUSTERDOWN: the cluster is down'],
  [/^NOREPLICAS\b/, 'NOREPLICAS: too few replicas are connected (min-replicas-to-write)'],
  [/\b(ECONNRESET|EPIPE)\b|Connection is closed/, 'the connection was closed. Does the port want TLS (rediss://)?'],
]

/** Why Redis fails, for an operator; `null` for what we know nothing of, whose text may hold anything. */
export function reasonOf(error: unknown): string | null {
  const { message, code } = (error ?? {}) as { message?: unknown; code?: unknown }
  const text = `${String(message)} ${String(code)}`
  return REASONS.find(([sign]) => sign.test(text))?.[1] ?? null
}

/** Sessions, and a password, that cross a network for everybody on it to read. */
export function warnOfPlainText(url: string): void {
  if (!/^(redis|valkey):/.test(url) || isThisMachine(url)) return
  warn(
    'RedisSessionStore: sessions go to another host without TLS. Use rediss://, or set warnInProduction: false where the ' +
      'network in between is yours alone.',
    'redis_plain_text',
  )
}

function isThisMachine(url: string): boolean {
  const host = /^\w+:\/\/(?:[^@/]*@)?(\[[^\]]*\]|[^:/?#]*)/.exec(url)?.[1] ?? ''
  return host === '' || /^(localhost|127(\.\d+){3}|\[::1\])$/i.test(host)
}

/** A Redis that makes room by forgetting sessions, and logouts. Asked in the background; a server that does not say is left alone. */
export function warnOfEviction(client: Informant): void {
  client.info?.('memory').then((memory) => {
    const policy = /^maxmemory_policy:(\S+)/m.exec(memory)?.[1]
    const isBounded = /^maxmemory:[1-9]/m.test(memory)
    if (!isBounded || policy === undefined || policy === 'noeviction') return
    warn(
      `RedisSessionStore: maxmemory-policy is ${policy}, so Redis drops sessions, and the marks of ended ones, when memory ` +
        'runs short. Set it to noeviction.',
      'redis_eviction',
    )
  }, ignore)
}

/** A server that refuses to tell of changes: every read asks Redis then. A lost connection is no refusal. */
export function warnOfSilence(store: object, error: unknown): void {
  const { message = '' } = (error ?? {}) as { message?: string }
  const refusal = /^(NOPERM|ERR|WRONGPASS|NOAUTH)\b/.exec(message)?.[0]
  if (refusal === undefined) return
  const why = reasonOf(error) ?? 'the server, or a proxy before it, knows no CLIENT TRACKING'
  warnOnce(store, 'near_cache', `RedisSessionStore: nearCache has no effect, every read asks Redis: ${why}.`)
}

function ignore(): void {}
