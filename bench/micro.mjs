// What the steps of a request cost inside one process, without HTTP. Prints JSON: nanoseconds by step and session size.
//   argv: directory of the package, milliseconds for each step
import { load } from './contenders.mjs'
import { sessionData } from './data.mjs'
import { exchange } from './in-process.mjs'
import { median } from './statistics.mjs'

const [, , packageDirectory, ms] = process.argv
const SECRET = 'Jb2mV6xq9tRz4nKc7wLp3yHd8sFg5aQe'
const library = await load(packageDirectory, 'dist/esm/index.js')
const { readCookie } = await load(packageDirectory, 'dist/esm/cookie/cookie.js')
const { Lifecycle } = await load(packageDirectory, 'dist/esm/lifecycle/lifecycle.js')
const { resolveOptions } = await load(packageDirectory, 'dist/esm/options/resolve-options.js')
const { SessionState } = await load(packageDirectory, 'dist/esm/session/state.js')
const { save } = await load(packageDirectory, 'dist/esm/session/life.js')
const { sessionOf } = await load(packageDirectory, 'dist/esm/session/session.js')
/** A request that wants nothing to be done for it. */
const host = new Proxy({}, { get: (_target, name) => () => (name === 'cookieOutlook' ? 'open' : false) })

const result = {}
for (const size of ['0.2', '20', '200']) result[size] = await steps(size)
console.log(JSON.stringify(result))

async function steps(size) {
  const options = { secret: SECRET, cookie: { secure: false }, store: new library.MemorySessionStore() }
  const middleware = library.session(options)
  const engine = new Lifecycle(resolveOptions(options))
  const cookie = await exchange(middleware, {
    handler: (req) => Object.assign(req.session, sessionData(size, 1)),
  })
  const { keys } = engine.options.cookie
  const { claims } = readCookie(cookie, 'sid', keys)
  const found = await engine.find(claims)
  const begin = () => sessionOf(new SessionState(engine, host, found))
  let views = 0
  const changed = () => {
    const state = new SessionState(engine, host, found)
    state.set('views', ++views)
    return state
  }
  return {
    'cookie verify': await time(() => readCookie(cookie, 'sid', keys)),
    load: await time(() => engine.find(claims)),
    'begin, read one field': await time(() => begin().views),
    'begin, change one field': await time(() => changed()),
    'begin, change one field, commit': await time(() => save(changed())),
    'whole request, no cookie': await time(() => exchange(middleware, { handler: (req) => req.session.views })),
    'whole request, read': await time(() => exchange(middleware, { cookie, handler: (req) => req.session.views })),
    'whole request, write': await time(() =>
      exchange(middleware, {
        cookie,
        handler: (req) => {
          req.session.views = ++views
        },
      }),
    ),
    'the same without a session': await time(() => exchange((_req, _res, next) => next(), { cookie, handler() {} })),
  }
}

/** Nanoseconds a call: the median of ten batches. */
async function time(step) {
  const isAsync = step() instanceof Promise
  const batch = async (count) => {
    const start = process.hrtime.bigint()
    if (isAsync) for (let index = 0; index < count; index++) await step()
    else for (let index = 0; index < count; index++) step()
    return Number(process.hrtime.bigint() - start) / count
  }
  await batch(2_000)
  const count = Math.max(100, Math.round((Number(ms) * 1e6) / 10 / (await batch(2_000))))
  const batches = []
  for (let index = 0; index < 10; index++) batches.push(await batch(count))
  return median(batches)
}
