// Where the microseconds of a request go: the processor time of each contender by file, beside that of bare Express.
import { runLoad } from './load.mjs'
import { urlAndCookies } from './measure.mjs'

/** How many files, and functions, are told of one contender. */
const MOST_FILES = 24
const MOST_FUNCTIONS = 40

/**
 * Loads each server for a while and notes where it spends its time.
 * @returns {Promise<Record<string, Profile>>} by name
 * @typedef {{ cpuUs: number, files: Map<string, number>, functions: Map<string, number> }} Profile µs a request
 */
export async function profile(servers, task, { tool, ms }) {
  const profiles = {}
  for (const server of servers) {
    const load = (time) => runLoad({ tool, ...urlAndCookies(server, task), ms: time })
    await load(ms / 4)
    await server.startProfile()
    const before = await server.usage()
    await load(ms)
    const after = await server.usage()
    const samples = await server.stopProfile()
    const requests = after.requests - before.requests
    profiles[server.name] = { cpuUs: (after.cpuUs - before.cpuUs) / requests, ...attribute(samples, requests) }
  }
  return profiles
}

/** The time of a profile by file and by function, in µs a request. What waits for requests is left out. */
function attribute({ nodes, samples, timeDeltas }, requests) {
  const byId = new Map(nodes.map((node) => [node.id, node.callFrame]))
  const files = new Map()
  const functions = new Map()
  for (const [index, id] of samples.entries()) {
    const { functionName, url, lineNumber } = byId.get(id)
    // Nor is the profiler's own work a request's.
    if (functionName === '(idle)' || functionName === '(root)' || url === 'node:inspector') continue
    const us = timeDeltas[index] / requests
    const file = fileOf(url, functionName)
    add(files, file, us)
    add(functions, `${file} ${functionName || '(anonymous)'}:${lineNumber + 1}`, us)
  }
  return { files, functions }
}

function add(map, key, us) {
  map.set(key, (map.get(key) ?? 0) + us)
}

/** A short name: of our files below `dist/`, of a package's its name and path, of Node's own as Node has it. */
function fileOf(url, functionName) {
  if (url === '') return functionName.startsWith('(') ? functionName : 'V8 and Node, native'
  if (url.startsWith('node:')) return url
  const path = decodeURIComponent(url.replace('file://', ''))
  const packaged = path.lastIndexOf('node_modules/')
  if (packaged !== -1) return path.slice(packaged + 'node_modules/'.length)
  return path.replace(/^.*\/dist\/(esm|cjs)\//, 'sojourn/').replace(/^.*\/bench\//, 'bench/')
}

/** A contender's files, those first that cost most above bare: `[file, µs, µs above bare]`. */
export function aboveBare(profile, bare, kind = 'files') {
  const names = new Set([...profile[kind].keys(), ...bare[kind].keys()])
  return [...names]
    .map((name) => {
      const us = profile[kind].get(name) ?? 0
      return [name, us, us - (bare[kind].get(name) ?? 0)]
    })
    .sort((a, b) => b[2] - a[2])
    .filter(([, , above]) => Math.abs(above) >= 0.05)
    .slice(0, kind === 'files' ? MOST_FILES : MOST_FUNCTIONS)
}
