// One contender as a process of its own. Started by measure.mjs, which talks to it over IPC.
//   argv: name of the contender, JSON of its setting
import { Session } from 'node:inspector/promises'
import express from 'express'
import { CONTENDERS } from './contenders.mjs'

const [, , name, setting] = process.argv
const contender = await CONTENDERS[name].create(JSON.parse(setting))
const { isCounted } = JSON.parse(setting)
const inspector = new Session()
let requests = 0
let storeCalls = 0

if (isCounted && contender.store) countCalls(contender.store)

const app = express()
if (contender.middleware) app.use(contender.middleware)
for (const [path, handler] of Object.entries(contender.handlers)) app.get(`/${path}`, handler)

const server = app.listen(0, '127.0.0.1', () => process.send({ port: server.address().port }))
server.on('request', () => {
  requests++
})

process.on('message', async ({ ask, count }) => {
  switch (ask) {
    case 'usage': {
      const { user, system } = process.cpuUsage()
      process.send({ requests, storeCalls, cpuUs: user + system })
      break
    }
    case 'profile':
      inspector.connect()
      await inspector.post('Profiler.enable')
      await inspector.post('Profiler.setSamplingInterval', { interval: 200 })
      await inspector.post('Profiler.start')
      process.send({})
      break
    case 'profiled': {
      const { profile } = await inspector.post('Profiler.stop')
      inspector.disconnect()
      process.send({ profile })
      break
    }
    case 'fill':
      await contender.fill(count)
      process.send({})
      break
    case 'stop':
      process.exit(0)
  }
})
process.on('disconnect', () => process.exit(0))

/** Counts the calls that come from outside the store. */
function countCalls(store) {
  let depth = 0
  for (const method of [
    'get',
    'set',
    'touch',
    'destroy',
    'create',
    'update',
    'regenerate',
    'end',
    'delete',
    'exists',
  ]) {
    const original = store[method]
    if (typeof original !== 'function') continue
    store[method] = function counted(...args) {
      if (depth === 0) storeCalls++
      depth++
      try {
        return original.apply(this, args)
      } finally {
        depth--
      }
    }
  }
}
