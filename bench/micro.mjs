// What whole requests cost inside one process, without HTTP. Prints JSON: nanoseconds by kind of request and session size.
//   argv: directory of the package, milliseconds for each step
import { load } from './contenders.mjs'
import { sessionData } from './data.mjs'
import { exchange } from './in-process.mjs'
import { median } from './statistics.mjs'

const [, , packageDirectory, ms] = process.argv
const SECRET = 'Jb2mV6xq9tRz4nKc7wLp3yHd8sFg5aQe'
const library = await load(packageDirectory)

const result = {}
for (const size of ['0.2', '20', '200']) result[size] = await steps(size)
console.log(JSON.stringify(result))

async function steps(size) {
  const options = { secret: SECRET, cookie: { secure: false }, store: new library.MemorySessionStore() }
  const middleware = library.session(options)
  const cookie = await exchange(middleware, {
    handler: (req) => Object.assign(req.session, sessionData(size, 1)),
  })
  let views = 0
  const write = (req) => {
    req.session.views = ++views
  }
  return {
    'a request without a cookie': await time(() => exchange(middleware, { handler: (req) => req.session.views })),
    'that does not look at its session': await time(() => exchange(middleware, { cookie, handler() {} })),
    'that reads one field': await time(() => exchange(middleware, { cookie, handler: (req) => req.session.views })),
    'that changes one field': await time(() => exchange(middleware, { cookie, handler: write })),
    'without a session': await time(() => exchange((_req, _res, next) => next(), { cookie, handler() {} })),
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
