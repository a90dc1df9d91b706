#!/bin/sh
# "Cache-Control: max-age=3600, must-revalidate" lets a cache use a response for an hour without asking; the second word only
# forbids to use it after that (RFC 9111, 5.2.2.2). http-cache-semantics, on which got, cacheable-request and make-fetch-happen
# stand, asks the origin each time, also within the hour: satisfiesWithoutRevalidation() is false from the start, while
# timeToLive() is an hour. Whoever wants the hour has to keep the word out of its sight.
#
# Exits non-zero when that is no longer so.
set -eu
cd "$(mktemp -d)"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund http-cache-semantics@4.3.0
cat >try.cjs <<'EOF'
const CachePolicy = require('http-cache-semantics')
const { version } = require('http-cache-semantics/package.json')

const request = { url: '/', method: 'GET', headers: { host: 'example.com' } }
const found = ['max-age=3600', 'max-age=3600, must-revalidate'].map((cacheControl) => {
  const policy = new CachePolicy(request, { status: 200, headers: { 'cache-control': cacheControl, etag: '"one"' } })
  const isUsed = policy.satisfiesWithoutRevalidation(request)
  console.log(`http-cache-semantics ${version}, ${cacheControl}: fresh for ${policy.timeToLive() / 1000} s, stale: ${policy.stale()}, ` +
    `used without asking: ${isUsed}`)
  return isUsed
})
process.exit(found[0] && !found[1] ? 0 : 1)
EOF
node try.cjs
