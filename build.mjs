// Builds the package into dist/: ESM and CommonJS, with types for both.
import { execFileSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
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
