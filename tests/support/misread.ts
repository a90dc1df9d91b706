// A program for names.test.ts: runs each piece of code in its first argument, a JSON list, with the sessions of two requests, and
// prints the warnings of each as JSON.
import { createServer, get } from 'node:http'
import type { AddressInfo } from 'node:net'
import { MemorySessionStore, session as sessions } from 'sojourn'

type Handler = (session: object) => Promise<void>
const AsyncFunction = (async () => {}).constructor as new (...args: string[]) => Handler

const pieces = JSON.parse(process.argv[2] as string) as string[]
const warnings: string[][] = pieces.map(() => [])
let running = 0
let handler: Handler

process.removeAllListeners('warning')
process.on('warning', ({ message, name }) => {
  if (name === 'SojournWarning') warnings[running]?.push(message)
})

const store = new MemorySessionStore({ warnInProduction: false })
const middleware = sessions({ secret: 'u8Yw3kq0Zt5VbN7xLr2PfHs9Dm4Gc6Ja', cookie: { secure: false }, store })
const server = createServer((req, res) => {
  middleware(req, res, () => {
    handler(req.session).then(
      () => res.end('done'),
      () => {
        res.statusCode = 500
        res.end('failed')
      },
    )
  })
})
server.listen(0, '127.0.0.1', () => void run())

async function run(): Promise<void> {
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  for (const [index, piece] of pieces.entries()) {
    running = index
    handler = new AsyncFunction('session', `${piece}\n//# sourceURL=piece.js`)
    for (let request = 0; request < 2; request++) {
      await new Promise((resolve) => get(url, (res) => res.resume().on('end', resolve)))
      // Warnings come a tick later.
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  console.log(JSON.stringify(warnings))
  server.close()
  server.closeAllConnections()
}
