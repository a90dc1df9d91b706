// The rules that keep the house liveable (who may import whom), read from the import statements of the sources.
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from '@jest/globals'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const SRC = join(ROOT, 'src')

interface Import {
  /** What is imported: a file of src by its path there, or a package by its name. */
  readonly target: string
  readonly isPackage: boolean
  /** `type`: gone at run time. `dynamic`: loaded only when it is reached. */
  readonly kind: 'static' | 'type' | 'dynamic'
}

/** Every import, re-export, `import()` and `require()` of a source text. */
function importsOf(text: string, file: string): Import[] {
  // No comment may pass for an import; a string with // in it stays whole up to there, which is all that is needed.
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '')
  const found: Import[] = []
  const add = (specifier: string, kind: Import['kind']): void => {
    const isPackage = !specifier.startsWith('.')
    const target = isPackage ? packageOf(specifier) : sourceOf(specifier, file)
    found.push({ target, isPackage, kind })
  }
  const statement = /^\s*(import|export)\s+((?:type\s+)?(?:[\w$*{][^'"`;]*?)\s+from\s+)?(['"])([^'"]+)\3/gm
  for (const [, keyword, clause = '', , specifier = ''] of code.matchAll(statement)) {
    if (keyword === 'export' && clause === '') continue
    add(specifier, isTypeOnly(clause) ? 'type' : 'static')
  }
  for (const [, specifier = ''] of code.matchAll(/\b(?:import|require)\s*\(\s*['"`]([^'"`]+)['"`]/g)) {
    add(specifier, 'dynamic')
  }
  return found
}

/** `import type …`, or braces in which every name is marked as a type. */
function isTypeOnly(clause: string): boolean {
  if (/^type\s/.test(clause)) return true
  const names = /^\{([^}]*)\}/.exec(clause)?.[1]?.split(',')
  const given = names?.map((name) => name.trim()).filter((name) => name !== '')
  return given !== undefined && given.length > 0 && given.every((name) => name.startsWith('type '))
}

function packageOf(specifier: string): string {
  if (isBuiltin(specifier)) return specifier
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')
}

function sourceOf(specifier: string, file: string): string {
  return relative(SRC, resolve(SRC, dirname(file), specifier)).replace(/\.js$/, '.ts')
}

const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'))
const imports = new Map(files.map((file) => [file, importsOf(readFileSync(join(SRC, file), 'utf8'), file)]))
const importsFrom = (file: string): readonly Import[] => imports.get(file) ?? []

const isStore = (file: string): boolean => file.startsWith('stores/')
const isFeature = (file: string): boolean => /^(features|testing)\//.test(file)
const isOptionalStore = (file: string): boolean => isStore(file) && !/^stores\/memory[./]/.test(file)
const core = files.filter((file) => !isFeature(file) && !isStore(file))

describe('the reader of imports', () => {
  test('knows every form', () => {
    const text = `
      // import 'commented'
      /* import x from './gone.js' */
      import 'bare'
      import one from './one.js'
      import * as all from '@scope/name/deep'
      import { a, type B } from './mixed.js'
      import {
        type C,
        type D,
      } from './types.js'
      import type { E } from './type.js'
      export { f } from './f.js'
      export type { G } from './g.js'
      export * from './star.js'
      export const text = 'from nowhere'
      const later = await import('later')
      const old = require('./old.js')`
    expect(importsOf(text, 'sub/file.ts').map(({ target, kind }) => `${kind} ${target}`)).toEqual([
      'static bare',
      'static sub/one.ts',
      'static @scope/name',
      'static sub/mixed.ts',
      'type sub/types.ts',
      'type sub/type.ts',
      'static sub/f.ts',
      'type sub/g.ts',
      'static sub/star.ts',
      'dynamic later',
      'dynamic sub/old.ts',
    ])
  })

  test('finds the sources, and every file that they import', () => {
    expect(core).toEqual(
      expect.arrayContaining([
        'index.ts',
        'request/middleware.ts',
        'session/session.ts',
        'record/store.ts',
        'manager/manager.ts',
      ]),
    )
    expect(importsFrom('request/middleware.ts').length).toBeGreaterThan(8)
    const missing = [...imports.values()]
      .flat()
      .filter(({ target, isPackage }) => !isPackage && !files.includes(target))
    expect(missing).toEqual([])
  })
})

/**
 * The rooms of the house, from the ground up; those in one line are neighbours that do not know each other. ARCHITECTURE.md
 * draws them.
 */
const FLOORS = [
  ['ground'],
  ['record', 'cookie'],
  ['events', 'stores'],
  ['options'],
  ['lifecycle'],
  ['session'],
  ['request'],
  ['manager'],
  ['features', 'index.ts'],
  ['testing'],
] as const
const GROUND = [
  'did-you-mean.ts',
  'duration.ts',
  'errors.ts',
  'ids.ts',
  'recent.ts',
  'request-scope.ts',
  'soon.ts',
  'warn.ts',
]

function roomOf(file: string): string {
  if (GROUND.includes(file)) return 'ground'
  return file.includes('/') || file.startsWith('stores') ? (file.split('/')[0] as string) : file
}

function floorOf(file: string): number {
  return FLOORS.findIndex((rooms) => (rooms as readonly string[]).includes(roomOf(file)))
}

/** What a feature may stand on besides the ground and its own folder. */
const FOR_FEATURES =
  /^(events\/.*|record\/(session-data|session-info|changes|store|notes|signals|codec)|session\/(inside|session|typed)|request\/(current-session|client)|options\/options|manager\/(manager|drawers)|stores\/(memory|redis|sql|redis\/(clients|connection|node-redis|scripts)))\.ts$/

/** What another face of the middleware stands on, too, and what brings sessions in from elsewhere: ways in, beside ours, to the same request path. */
const FOR_FACES =
  /^(request\/(face|http-request|http-response)|session\/(state|life|inherited|response-cookie|fields)|lifecycle\/lifecycle|cookie\/cookie|options\/options|stores\/(connect|memory)(\/packed-text|\/store-calls)?)\.ts$/

/** What configuration from outside asks whether options are right. */
const CONFIGURED =
  /^(features\/((encryption|client-binding)\/index|(csrf|recovery)\/options|activity\/log-options)|stores\/redis\/near-cache\/options)\.ts$/

const isFace = (file: string): boolean => /^features\/(express-session|adopt)\//.test(file)

describe('rules', () => {
  test('every file stands in a room, and imports, types too, come from its own room or from below', () => {
    expect(files.filter((file) => floorOf(file) === -1)).toEqual([])
    const upwards = files.flatMap((file) =>
      importsFrom(file)
        .filter(({ target, isPackage }) => !isPackage && roomOf(target) !== roomOf(file))
        .filter(({ target }) => floorOf(target) >= floorOf(file))
        .map(({ target }) => `${file} imports ${target}`),
    )
    expect(upwards).toEqual([])
  })

  test('a feature stands on files that are there for it, and on no other feature', () => {
    const broken = files
      .filter((file) => file.startsWith('features/'))
      .flatMap((file) => {
        const own = file.split('/').slice(0, 2).join('/')
        return (
          importsFrom(file)
            .filter(({ target, isPackage }) => !isPackage && !GROUND.includes(target))
            .filter(({ target }) => !FOR_FEATURES.test(target) && !target.startsWith(`${own}/`))
            .filter(({ target }) => !isFace(file) || !FOR_FACES.test(target))
            // Configuration from outside is of features, too.
            .filter(({ target }) => !file.startsWith('features/config/') || !CONFIGURED.test(target))
            .map(({ target }) => `${file} imports ${target}`)
        )
      })
    expect(broken).toEqual([])
  })

  test('what is inside a session is for features', () => {
    const users = files.filter((file) => importsFrom(file).some(({ target }) => target === 'session/inside.ts'))
    expect(users.filter((file) => !/^(features|session)\//.test(file))).toEqual([])
  })

  test('no class has more than 400 lines, and no file of the core more than 500', () => {
    const long: string[] = []
    for (const file of files) {
      const lines = readFileSync(join(SRC, file), 'utf8').split('\n')
      if (core.includes(file) && lines.length > 501) long.push(`${file}: ${lines.length - 1}`)
      for (const [start, line] of lines.entries()) {
        const name = /^export (?:abstract )?class (\w+)|^class (\w+)/.exec(line)
        if (name === null) continue
        const length = lines.indexOf('}', start) - start + 1
        if (length > 400) long.push(`${file}: class ${name[1] ?? name[2]}: ${length}`)
      }
    }
    expect(long).toEqual([])
  })

  test('the core imports no feature, and no store but the one in memory', () => {
    const broken = core.flatMap((file) =>
      importsFrom(file)
        .filter(({ target, isPackage }) => !isPackage && (isFeature(target) || isOptionalStore(target)))
        .map(({ target }) => `${file} imports ${target}`),
    )
    expect(broken).toEqual([])
  })

  test('stores know neither sessions nor cookies nor servers, not even by what they import', () => {
    const FORBIDDEN = /^((session|cookie|request|manager|lifecycle|options|features)\/.*|record\/codec\.ts|index\.ts)$/
    const broken: string[] = []
    for (const store of files.filter(isStore)) {
      const seen = new Set<string>()
      const visit = (file: string, path: string): void => {
        if (seen.has(file)) return
        seen.add(file)
        for (const { target, isPackage } of importsFrom(file)) {
          const isForbidden = isPackage
            ? /^(node:)?(http|https|http2)$|^(express|connect|cookie|cookie-signature)$/.test(target)
            : FORBIDDEN.test(target)
          if (isForbidden) broken.push(`${path} imports ${target}`)
          else if (!isPackage) visit(target, `${path} → ${target}`)
        }
      }
      visit(store, store)
    }
    expect(broken).toEqual([])
  })

  test('there are no import cycles, those of types included', () => {
    const done = new Set<string>()
    const cycles: string[] = []
    const visit = (file: string, path: readonly string[]): void => {
      if (path.includes(file)) {
        cycles.push([...path.slice(path.indexOf(file)), file].join(' → '))
        return
      }
      if (done.has(file)) return
      for (const { target, isPackage } of importsFrom(file)) {
        if (!isPackage) visit(target, [...path, file])
      }
      done.add(file)
    }
    for (const file of files) visit(file, [])
    expect(cycles).toEqual([])
  })

  test('index.ts is the public face and nothing else', () => {
    const code = readFileSync(join(SRC, 'index.ts'), 'utf8').replace(/^\s*\/\/.*$/gm, '')
    expect(code.replace(/export\s+(?:type\s+)?\{[^}]*\}\s+from\s+'[^']+'/g, '').trim()).toBe('')
    const importers = files.filter((file) => importsFrom(file).some(({ target }) => target === 'index.ts'))
    expect(importers).toEqual([])
  })
})

describe('packages', () => {
  const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>
    peerDependencies: Record<string, string>
    peerDependenciesMeta: Record<string, { optional?: boolean }>
  }
  const packages = [...imports].flatMap(([file, list]) =>
    list.filter(({ target, isPackage }) => isPackage && !isBuiltin(target)).map((entry) => ({ file, ...entry })),
  )

  test('at run time only dependencies are imported, and each of them is', () => {
    const peers = Object.keys(manifest.peerDependencies)
    const loaded = packages.filter(({ kind, target }) => kind !== 'type' && !peers.includes(target))
    expect(new Set(loaded.map(({ target }) => target))).toEqual(new Set(Object.keys(manifest.dependencies)))
  })

  test('a peer is optional, and loaded only by what needs it, when it needs it', () => {
    const peers = Object.keys(manifest.peerDependencies)
    for (const peer of peers) expect(manifest.peerDependenciesMeta[peer]?.optional).toBe(true)
    const uses = packages.filter(({ target, kind }) => peers.includes(target) && kind !== 'type')
    expect(uses.map(({ file, kind }) => `${kind} in ${file}`).toSorted()).toEqual([
      'dynamic in features/cache/http-rules.ts',
      'dynamic in features/cache/storages/memory.ts',
      'dynamic in stores/redis.ts',
    ])
    expect(packages.filter(({ target }) => target === 'ioredis').map(({ file }) => file)).not.toContain('index.ts')
  })

  test('the core loads without any optional peer', () => {
    const reached = new Set<string>()
    const visit = (file: string): void => {
      if (reached.has(file)) return
      reached.add(file)
      for (const { target, isPackage, kind } of importsFrom(file)) if (!isPackage && kind !== 'type') visit(target)
    }
    visit('index.ts')
    expect(reached).not.toContain('stores/redis.ts')
    const peers = Object.keys(manifest.peerDependencies)
    const loaded = packages.filter(({ file, target }) => reached.has(file) && peers.includes(target))
    expect(loaded).toEqual([])
  })

  test('Node’s own modules are imported with node:', () => {
    const bare = [...imports.values()].flat().filter(({ target, isPackage }) => isPackage && isBuiltin(target))
    expect(bare.length).toBeGreaterThan(0)
    expect(bare.filter(({ target }) => !target.startsWith('node:'))).toEqual([])
  })
})

describe('what is exported', () => {
  /** The exported names of a public file, with the file that declares each. */
  function exportsOf(file: string): { name: string; from: string }[] {
    const code = readFileSync(join(SRC, file), 'utf8')
    const own = [
      ...code.matchAll(/^export (?:abstract |async )*(?:class|function\*?|interface|type|const) (\w+)/gm),
    ].map(([, name = '']) => ({ name, from: file }))
    const passed = [...code.matchAll(/^export\s+(?:type\s+)?\{([^}]*)\}\s+from\s+'([^']+)'/gm)].flatMap(
      ([, names = '', specifier = '']) =>
        names
          .split(',')
          .map((name) =>
            name
              .trim()
              .replace(/^type /, '')
              .replace(/ as .*$/, ''),
          )
          .filter((name) => name !== '')
          .map((name) => ({ name, from: sourceOf(specifier, file) })),
    )
    return [...own, ...passed]
  }

  const PUBLIC = [
    'index.ts',
    'features/express-session/index.ts',
    'stores/connect.ts',
    'stores/redis.ts',
    'stores/sql.ts',
    'features/activity/index.ts',
    'features/cache/index.ts',
    'features/metrics/index.ts',
    'session/inside.ts',
    'features/recovery/index.ts',
    'features/live/index.ts',
    'features/passport.ts',
    'features/flash.ts',
    'features/csrf/index.ts',
    'features/device-bound/index.ts',
    'features/workspace/index.ts',
    'features/config/index.ts',
    'features/state/index.ts',
    'features/adopt/index.ts',
    'features/encryption/index.ts',
    'features/client-binding/index.ts',
    'testing/index.ts',
  ]
  const names = PUBLIC.flatMap((file) => exportsOf(file))

  test('is found', () => {
    expect(names.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['session', 'Session', 'SessionStore', 'RedisSessionStore', 'FakeClock']),
    )
  })

  test.each(names)('$name has a doc comment', ({ name, from }) => {
    const code = readFileSync(join(SRC, from), 'utf8')
    const declaration = new RegExp(
      // A comment, perhaps an instruction for the linter, then the declaration.
      `/\\*\\*(?:[^*]|\\*(?!/))*\\*/\\n(?://.*\\n)*export (?:abstract |async )*(?:class|function\\*?|interface|type|const) ${name}\\b`,
    )
    expect({ name, from, isDocumented: declaration.test(code) }).toEqual({ name, from, isDocumented: true })
  })
})

test('the compile-time tests hold', () => {
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc')
  let output = ''
  try {
    execFileSync(process.execPath, [tsc, '--noEmit', '-p', 'tests/types'], { cwd: ROOT, stdio: 'pipe' })
  } catch (error) {
    output = String((error as { stdout?: Buffer }).stdout)
  }
  expect(output).toBe('')
})
