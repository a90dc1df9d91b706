// Loaded before the tests of a peer: what they assign as `session` of a request is a session of the drop-in with these fields.
const { IncomingMessage, ServerResponse } = require('node:http')
const { Socket } = require('node:net')
const { join } = require('node:path')

const session = require(join(__dirname, '../../dist/cjs/features/express-session'))
const middleware = session({ secret: 'u8Yw3kq0Zt5VbN7xLr2PfHs9Dm4Gc6Ja', resave: false, saveUninitialized: false })

function dropInSession(fields) {
  const req = new IncomingMessage(new Socket())
  req.url = '/'
  let made
  middleware(req, new ServerResponse(req), (error) => {
    if (error) throw error
    made = req.session
  })
  const { id, ...others } = fields
  if (id !== undefined) Object.defineProperty(made, 'id', { value: id, writable: true, configurable: true })
  return Object.assign(made, others)
}

let count = 0
Object.defineProperty(Object.prototype, 'session', {
  configurable: true,
  get: () => undefined,
  set(value) {
    const isDouble = typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
    if (isDouble) count++
    Object.defineProperty(this, 'session', {
      value: isDouble ? dropInSession(value) : value,
      writable: true,
      enumerable: true,
      configurable: true,
    })
  },
})
process.on('exit', () => process.stderr.write(`sessions of the drop-in: ${count}\n`))
globalThis.dropInSession = (fields) => {
  count++
  return dropInSession(fields)
}
