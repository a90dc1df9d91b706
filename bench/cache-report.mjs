// The caches in the report, and their goals.

/** @param {object} found what cache.mjs printed @param {(head: string[], lines: string[][]) => string} table */
export function cacheReport(found, table) {
  const { perRequest, hit, redisHit, stampede, clear, fetch } = found
  const ofLru = hit['lru-cache get()']
  return [
    `Ten askers in one request, one after the other, of a load of 50 ms: ${perRequest.without.loads} loads and ${ms(perRequest.without.ms)} without perRequest(), ${perRequest.with.loads} and ${ms(perRequest.with.ms)} with it; ` +
      `at 100 requests a second ${ms(perRequest.underLoad.without.ms)} and ${ms(perRequest.underLoad.with.ms)}.`,
    table(
      ['a hit in a request', 'CPU, ns'],
      Object.entries(perRequest.hits).map(([name, ns]) => [name, ns.toFixed(0)]),
    ),
    table(
      ['a hit in memory, awaited', 'CPU, ns', 'of lru-cache'],
      Object.entries(hit).map(([name, ns]) => [name, ns.toFixed(0), (ns / ofLru).toFixed(2)]),
    ),
    table(
      ['a hit in Redis', 'a second', 'of the raw GET'],
      Object.entries(redisHit).map(([name, { perSecond, ofRaw }]) => [name, perSecond.toFixed(0), ofRaw.toFixed(2)]),
    ),
    table(
      ['1,000 askers of one key at once', 'loads'],
      Object.entries(stampede).map(([name, loads]) => [name, loads]),
    ),
    table(
      ['clearing one namespace of 100 entries', 'entries elsewhere', 'ms'],
      clear.map(({ kind, entries, ms: time }) => [kind, entries.toLocaleString('en'), time.toFixed(3)]),
    ),
    table(
      ['1,000 requests for ten URLs', 'requests to the origin', 'CPU, ms'],
      Object.entries(fetch).map(([name, { origin, cpuUs }]) => [name, origin, cpuUs.toFixed(0)]),
    ),
  ].join('\n\n')
}

/** @param {object | undefined} found what cache.mjs printed */
export function* cacheGoals(found) {
  if (found === undefined) return
  const { perRequest, hit, redisHit, stampede, clear, fetch } = found
  const share = perRequest.with.loads / perRequest.without.loads
  yield goal('perRequest(): loads of ten askers, with / without', '≤ 0.1', share.toFixed(2), share <= 0.1)
  const { map, 'perRequest()': ask } = perRequest.hits
  yield goal(
    'perRequest(): a hit',
    '≤ 1 µs',
    `${(ask / 1000).toFixed(2)} µs (a Map ${(map / 1000).toFixed(2)})`,
    ask <= 1000,
  )
  const ours = hit['sojourn get()']
  const ofLru = ours / hit['lru-cache get()']
  yield goal(
    'memory: a hit, ours / lru-cache',
    '≤ 1.5',
    `${ofLru.toFixed(2)} (${ours.toFixed(0)} / ${hit['lru-cache get()'].toFixed(0)} ns)`,
    ofLru <= 1.5,
  )
  const others = ['keyv', 'cacheable', 'cache-manager']
  const least = Math.min(...others.map((name) => hit[name]))
  yield goal('memory: a hit, ours / the quickest of the others', '< 1', (ours / least).toFixed(2), ours < least)
  const ofRaw = redisHit.sojourn.ofRaw
  yield goal('Redis: hits a second, ours / the raw GET', '≥ 0.95', ofRaw.toFixed(2), ofRaw >= 0.95)
  yield goal('1,000 askers of one key', '1 load', `${stampede.sojourn}`, stampede.sojourn === 1)
  for (const kind of ['memory', 'redis']) {
    const [few, many] = clear.filter((one) => one.kind === kind).map((one) => one.ms)
    yield goal(
      `${kind}: clearing a namespace, many / few entries elsewhere`,
      '≤ 1.5',
      (many / few).toFixed(2),
      many / few <= 1.5,
    )
  }
  const own = fetch['sojourn, memory']
  for (const name of ['undici cache, memory', 'make-fetch-happen, files']) {
    const isMet = own.origin <= fetch[name].origin && own.cpuUs < fetch[name].cpuUs
    const told = `${own.origin} / ${fetch[name].origin}, CPU ${(own.cpuUs / fetch[name].cpuUs).toFixed(2)}`
    yield goal(`fetch: requests to the origin, ours / ${name}; and CPU`, 'not more; < 1', told, isMet)
  }
}

function goal(what, bound, found, isMet) {
  return { what, goal: bound, found, isMet }
}

function ms(value) {
  return `${value.toFixed(0)} ms`
}
