#!/usr/bin/env node
// The program behind `npx sojourn`.
import { main } from './cli.js'

// A store tells what is wrong with how it is set up in production only, and that is what is asked.
const env = { ...process.env }
process.env['NODE_ENV'] = 'production'
if (process.argv[2] === 'check') hush()
const terminal = {
  args: process.argv.slice(2),
  env,
  print: (line: string) => console.log(line),
  complain: (line: string) => console.error(line),
}
void main(terminal).then((code) => {
  process.exitCode = code
})

/** What a store has to say of how it is set up is told by `check` itself, once. */
function hush(): void {
  const listeners = process.listeners('warning')
  process.removeAllListeners('warning')
  process.on('warning', (warning) => {
    if (warning.name !== 'SojournWarning') for (const tell of listeners) tell(warning)
  })
}
