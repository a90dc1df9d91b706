// An application with state and recovery as a process of its own, on the Redis that argv[2] names. Prints its URL; SIGTERM ends it.
import type { IncomingMessage } from 'node:http'
import { recovery } from '../../src/features/recovery/index.js'
import { sessionState } from '../../src/features/state/index.js'
import { type Session, SessionManager } from '../../src/index.js'
import { RedisSessionStore } from '../../src/stores/redis.js'
import { listen, SECRET } from './http.js'

const [, , url] = process.argv as [string, string, string]
const manager = new SessionManager({
  secret: SECRET,
  store: new RedisSessionStore({ url, prefix: 'state:' }),
  storeTimeout: '20s',
})
const recoveries = recovery(manager)

const stateOf = (session: Session) => sessionState<Record<string, object>>(session, { keep: 200 })
const countIn = (form: object): number => (form as { n?: number }).n ?? 0

const actions: Readonly<Record<string, (req: IncomingMessage, argument: string) => unknown>> = {
  /** One more, by a recipe. Answers the version that it made. */
  count: ({ session }) => stateOf(session).update('form', (form) => ({ n: countIn(form) + 1 })),
  state({ session }) {
    const state = stateOf(session)
    return { n: countIn(state.get('form')), versions: state.history().map(({ version }) => version) }
  },
  save: ({ session }) => recoveries.save(session),
  recover: async (req, token) => (await recoveries.recover(token, req)).status,
}
const server = await listen((req: IncomingMessage, res) => {
  manager.middleware()(req, res, (error?: unknown) => {
    const [, action = '', argument = ''] = (req.url ?? '').split('/')
    const answer = async (): Promise<unknown> => {
      if (error !== undefined) throw error
      return actions[action]?.(req, decodeURIComponent(argument))
    }
    answer().then(
      (value) => res.end(JSON.stringify(value ?? null)),
      () => res.writeHead(500).end(),
    )
  })
})
process.on('SIGTERM', () => {
  void server
    .close()
    .then(() => manager.close())
    .then(() => process.exit(0))
})
console.log(server.url)
