// Builds the package into dist/: ESM and CommonJS, with types for both.
import { execFileSync } from 'node:child_process'
import { appendFileSync, rmSync, writeFileSync } from 'node:fs'
import { buildSync } from 'esbuild'

const node = (script, ...args) => execFileSync(process.execPath, [script, ...args], { stdio: 'inherit' })
const tsc = (...args) => node('node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json', ...args)

rmSync('dist', { recursive: true, force: true })
tsc('--outDir', 'dist/esm')
tsc('--outDir', 'dist/cjs', '--module', 'commonjs', '--moduleResolution', 'bundler', '--verbatimModuleSyntax', 'false')
writeFileSync('dist/cjs/package.json', '{"type":"commonjs"}\n')

// uuid is ESM only. Node can require it, but an ordinary CommonJS Jest cannot: the CommonJS build carries it inside.
buildSync({
  entryPoints: ['src/ids.ts'],
  outfile: 'dist/cjs/ids.js',
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
})

// `require('sojourn/express-session')` is the function itself, as with express-session; and where its types are loaded,
// `req.session` is what it puts there.
const face = 'features/express-session/index'
appendFileSync(`dist/cjs/${face}.js`, '\nmodule.exports = Object.assign(exports.default, exports)\n')
for (const format of ['esm', 'cjs']) {
  appendFileSync(
    `dist/${format}/${face}.d.ts`,
    `
declare module '../../request/http-request.js' {
  interface SessionTypes { attached: Session & Partial<SessionData> }
}
interface RequestParts { sessionID: string; sessionStore: Store }
declare global {
  namespace Express { interface Request extends RequestParts {} }
}
`,
  )
}
