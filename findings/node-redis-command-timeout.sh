#!/bin/sh
# The option commandOptions.timeout of node-redis ("Timeout for the command in milliseconds") ends with the sending of the
# command. One that is on its way to a server that has gone silent waits without a bound, and so does every session store
# that relies on it. What bounds it is a deadline of one's own around the call, or socketTimeout, which drops the connection.
#
# Exits non-zero when that is no longer so.
set -eu
cd "$(mktemp -d)"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund redis@6.3.1
cat >try.mjs <<'EOF'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { createClient } from 'redis'

const TIMEOUT_MS = 300
const PATIENCE_MS = 3_000

// Says OK to all that a client says at first, and nothing any more after that.
let isSilent = false
const server = createServer((socket) => {
  socket.on('data', (chunk) => {
    const commands = chunk.toString().match(/\*\d+\r\n/g) ?? []
    if (!isSilent) socket.write('+OK\r\n'.repeat(commands.length))
  })
}).listen(0, '127.0.0.1')
await once(server, 'listening')

const url = `redis://127.0.0.1:${server.address().port}`
const client = createClient({ url, RESP: 2, commandOptions: { timeout: TIMEOUT_MS } }).on('error', () => {})
await client.connect()
await client.set('key', 'value')
isSilent = true
const start = performance.now()
const outcome = await Promise.race([
  client.get('key').then(() => 'answered', (error) => `rejected: ${error.message}`),
  new Promise((resolve) => setTimeout(resolve, PATIENCE_MS, 'still waiting')),
])
const { version } = JSON.parse(readFileSync('node_modules/redis/package.json', 'utf8'))
console.log(`redis ${version}, timeout ${TIMEOUT_MS} ms: ${outcome} after ${Math.round(performance.now() - start)} ms`)
process.exit(outcome === 'still waiting' ? 0 : 1)
EOF
node try.mjs
