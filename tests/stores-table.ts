// Writes the table of stores for express-session in docs/reference/connect-stores.md: `npm run stores`.
import { readFileSync, writeFileSync } from 'node:fs'
import { connectStore, type ExpressStore } from 'sojourn/connect-store'
import { checkStore } from 'sojourn/testing'
import { REAL_STORES } from './support/connect-stores.js'

const PAGE = 'docs/reference/connect-stores.md'
const HEAD = `| store | version | kept in | answer for an unknown ID | guarantees | checks |
| --- | --- | --- | --- | --- | --- |`

/** What its callback gets for an ID that nobody has. */
function answerForUnknown(store: ExpressStore): Promise<string> {
  return new Promise((resolve) => {
    store.get('unknown', (...args: unknown[]) => {
      const [error] = args
      if (error instanceof Error) resolve(`error ${(error as NodeJS.ErrnoException).code ?? error.name}`)
      else resolve(args.length === 0 ? 'no arguments' : args.map(String).join(', '))
    })
  })
}

const rows: string[] = []
for (const { name, version, keptIn, start } of REAL_STORES) {
  const { store, stop } = await start()
  const unknown = await answerForUnknown(store)
  const { passed, failed, guarantees } = await checkStore({ createStore: () => connectStore(store) })
  const cells = [
    name,
    version,
    keptIn,
    unknown,
    guarantees.join(', '),
    `${passed.length} of ${passed.length + failed.length}`,
  ]
  rows.push(`| ${cells.join(' | ')} |`)
  await stop()
}
const table = [HEAD, ...rows].join('\n')
const page = readFileSync(PAGE, 'utf8')
writeFileSync(PAGE, page.replace(/^\| store \| version [\s\S]*?\n(?!\|)/m, `${table}\n`))
process.stdout.write(`${table}\n`)
process.exit()
