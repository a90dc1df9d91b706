// Writes the table of error texts in docs/operations/redis.md: `npm run redis-errors -- redis-server /opt/valkey/bin/valkey-server`,
// with the binaries of the servers that it is to be of.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { redisServer } from './support/redis.js'
import { REDIS_ERRORS } from './support/redis-errors.js'

const PAGE = 'docs/operations/redis.md'
const HEAD = `| error | when | said by |
| --- | --- | --- |`
/** Of a longer text its first sentence says enough. */
const LONGEST = 120

const given = process.argv.slice(2)
const binaries = given.length > 0 ? given : [redisServer()]
const rows: string[] = []
for (const { when, provoke } of Object.values(REDIS_ERRORS)) {
  const serversOf = new Map<string, string[]>()
  for (const binary of binaries) {
    process.env['REDIS_SERVER'] = binary
    const text = await provoke()
    const said = text.length > LONGEST ? text.slice(0, text.indexOf('. ') + 1) : text
    serversOf.set(said, [...(serversOf.get(said) ?? []), versionOf(binary)])
  }
  for (const [said, servers] of serversOf)
    rows.push(`| \`${said}\` | ${when} | ${serversOf.size === 1 ? 'all' : servers.join(', ')} |`)
}
const table = [HEAD, ...rows].join('\n')
const page = readFileSync(PAGE, 'utf8')
const versions = `Of ${binaries.map(versionOf).join(', ')}`
writeFileSync(
  PAGE,
  page.replace(/^\| error \| when [\s\S]*?\n(?!\|)/m, `${table}\n`).replace(/^Of (Redis|Valkey) [^:]*/m, versions),
)
process.stdout.write(`${table}\n`)
process.exit()

/** As `Valkey 9.1.2`. */
function versionOf(binary: string): string {
  const said = execFileSync(binary, ['--version'], { encoding: 'utf8' })
  const [, name, version] = /^(\w+) server v=(\S+)/.exec(said) ?? []
  return `${name} ${version}`
}
