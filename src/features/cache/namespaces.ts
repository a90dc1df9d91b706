// Which namespace code is in: that of a block, of its request, of the process.
import { AsyncLocalStorage } from 'node:async_hooks'
import { invalidArgument, invalidOption } from '../../errors.js'
import { presentRequestObject } from '../../request-scope.js'

/** The namespace of code that has no other. */
const DEFAULT_NAMESPACE = 'default'
const VARIABLE = 'SOJOURN_CACHE_NAMESPACE'
const LONGEST = 500

/** A request, as far as middleware of namespaces looks at it. */
type NamespaceOf<Req> = (req: Req) => string | undefined

/** The namespaces of one cache. */
export class NamespaceScope {
  readonly #blocks = new AsyncLocalStorage<string | (() => string | undefined)>()
  /** For code that has lost the block of its request, but not the request. */
  readonly #requests = new WeakMap<object, () => string | undefined>()
  readonly #own: string
  /** Whether there is anything to look for. */
  #isUsed = false

  constructor(namespace: string | undefined) {
    const given = namespace ?? (process.env[VARIABLE] || DEFAULT_NAMESPACE)
    try {
      this.#own = checkNamespace(given)
    } catch {
      throw invalidOption(
        `SessionCache: ${namespace === undefined ? VARIABLE : 'namespace'} must be text of 1 to ${LONGEST} characters.`,
      )
    }
  }

  /** The namespace here and now. */
  get present(): string {
    if (!this.#isUsed) return this.#own
    const block = this.#blocks.getStore()
    if (typeof block === 'string') return block
    const request = presentRequestObject()
    const ofRequest = block ?? (request && this.#requests.get(request))
    return checkNamespace(ofRequest?.() ?? this.#own)
  }

  within<T>(namespace: string, task: () => T): T {
    this.#isUsed = true
    return this.#blocks.run(checkNamespace(namespace), task)
  }

  forRequest<Req extends object>(
    namespaceOf: NamespaceOf<Req>,
  ): (req: Req, res: object, next: (error?: unknown) => void) => void {
    if (typeof namespaceOf !== 'function')
      throw invalidArgument('forRequest() needs a function from the request to its namespace.')
    this.#isUsed = true
    return (req, _res, next) => {
      const ofRequest = (): string | undefined => namespaceOf(req)
      try {
        const first = ofRequest()
        if (first !== undefined) checkNamespace(first)
      } catch (error) {
        next(error)
        return
      }
      this.#requests.set(req, ofRequest)
      this.#blocks.run(ofRequest, next)
    }
  }
}

/**
 * @returns the namespace
 * @throws {SessionError} `INVALID_ARGUMENT`
 */
export function checkNamespace(namespace: string): string {
  if (typeof namespace === 'string' && namespace !== '' && namespace.length <= LONGEST) return namespace
  throw invalidArgument(`A namespace must be text of 1 to ${LONGEST} characters, not ${kindOf(namespace)}.`)
}

function kindOf(value: unknown): string {
  if (typeof value === 'string') return `text of ${value.length}`
  return value === null ? 'null' : typeof value
}

const OF_SESSION = 'session:'
const OF_USER = 'user:'
const OF_NUMBERED_USER = 'user#'

/** The namespace of a session, by its ID: what is kept in it goes when the session ends. See `SessionCache.follow()`. */
export function sessionNamespace(session: { readonly id: string } | string): string {
  return OF_SESSION + (typeof session === 'string' ? session : session.id)
}

/** The namespace of a user: what is kept in it goes when the last session of the user ends. A number and its text are two users. */
export function userNamespace(userId: string | number): string {
  return typeof userId === 'number' ? `${OF_NUMBERED_USER}${userId}` : OF_USER + userId
}

/** Whose namespace it is, or `undefined` when it is neither a session's nor a user's. */
export function ownerOf(
  namespace: string,
): { readonly sessionId: string } | { readonly userId: string | number } | undefined {
  if (namespace.startsWith(OF_SESSION)) return { sessionId: namespace.slice(OF_SESSION.length) }
  if (namespace.startsWith(OF_USER)) return { userId: namespace.slice(OF_USER.length) }
  if (namespace.startsWith(OF_NUMBERED_USER)) return { userId: Number(namespace.slice(OF_NUMBERED_USER.length)) }
  return undefined
}
