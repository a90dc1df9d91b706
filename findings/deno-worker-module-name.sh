#!/bin/sh
# The text of a worker thread (new Worker(text, { eval: true })) runs as it is on Node: each name is its own to declare, "module" too,
# as in every CommonJS file. The guess is that the same text runs on Deno, whose node:worker_threads takes the option as well. There a
# "const module" is a SyntaxError, so that the thread ends before its first line: a clean-up that a library does beside the main thread
# never happens. Any other name will do.
#
# Exits non-zero when that is no longer so.
set -eu
cd "$(mktemp -d)"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts "@deno/linux-$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')-glibc@2.9.6"
cat >try.mjs <<'EOF'
import { Worker } from 'node:worker_threads'

/** What a thread says that declares a name, or the error that it ends with. */
function outcomeOf(name) {
  const text = `
    const { parentPort, workerData } = require('node:worker_threads')
    const { ${name} } = workerData
    parentPort.postMessage(${name})
  `
  const worker = new Worker(text, { eval: true, workerData: { [name]: 'ran' } })
  return new Promise((resolve) => {
    worker.once('message', resolve)
    worker.once('error', (error) => resolve(error.message.split('\n')[0]))
  })
}

const runtime = globalThis.Deno ? `Deno ${Deno.version.deno}` : `Node ${process.versions.node}`
console.log(`${runtime}: const file: ${await outcomeOf('file')}; const module: ${await outcomeOf('module')}`)
process.exit(0)
EOF
deno=$(echo node_modules/@deno/*/deno)
chmod +x "$deno"
onNode=$(node try.mjs)
onDeno=$("$deno" run --allow-all --no-lock try.mjs 2>/dev/null)
printf '%s\n%s\n' "$onNode" "$onDeno"
case "$onNode|$onDeno" in
*'const module: ran|'*'const file: ran; const module: '*'already been declared'*) ;;
*) exit 1 ;;
esac
