// What a request allocates, in bytes, counted where nothing is collected meanwhile: the same on a busy machine as on an idle one.
// Who lets one of these numbers grow raises it here, on purpose.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from '@jest/globals'

/** Bytes in the middleware, above a middleware that does nothing. Node 20 to 26 need between 4,600 and 21,100 of them. */
const MOST = {
  memory: { ignores: 7_000, reads: 8_000, changes: 14_300 },
  distant: { ignores: 8_500, reads: 10_500, changes: 22_800 },
}
const FLAGS = ['--expose-gc', '--min-semi-space-size=64', '--max-semi-space-size=64', '--import', 'tsx']

test('a request allocates no more than it did, on a store that answers at once and on one that does not', async () => {
  const { NODE_OPTIONS: _jestOptions, ...env } = process.env
  const program = [...FLAGS, 'tests/support/allocations-process.ts']
  const { stdout } = await promisify(execFile)(process.execPath, program, { env })
  const bytes = JSON.parse(stdout) as typeof MOST
  const grown: string[] = []
  for (const store of ['memory', 'distant'] as const) {
    for (const does of ['ignores', 'reads', 'changes'] as const) {
      expect(bytes[store][does]).toBeGreaterThan(1_000)
      if (bytes[store][does] > MOST[store][does]) grown.push(`${store}, ${does}: ${bytes[store][does]}`)
    }
  }
  expect(grown).toEqual([])
}, 120_000)
