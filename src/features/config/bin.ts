#!/usr/bin/env node
// The program behind `npx sojourn`.
import { main } from './cli.js'

// A store tells what is wrong with how it is set up in production only, and that is what is asked.
const env = { ...process.env }
process.env['NODE_ENV'] = 'production'
const terminal = {
  args: process.argv.slice(2),
  env,
  print: (line: string) => console.log(line),
  complain: (line: string) => console.error(line),
}
void main(terminal).then((code) => {
  process.exitCode = code
})
