// The package as npm would publish it, and projects that use it.
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'

export const ROOT = resolve('.')

const { NODE_OPTIONS: _jestOptions, ...environment } = process.env
/** Programs of a project do not run under Jest. */
export const PLAIN_ENV = { ...environment, npm_config_loglevel: 'error' }

/** A packed package, unpacked, in a temporary folder. */
export interface PackedPackage {
  readonly directory: string
  /** A fresh project with the package and its dependencies, and nothing else unless it is named, as `name` or `name@alias`. */
  project(name: string, manifest: object, also?: readonly string[]): string
  remove(): void
}

/** Builds and packs a copy of the project: two suites at the same time do not meet in its `dist`. */
export function packPackage(): PackedPackage {
  const workspace = mkdtempSync(join(tmpdir(), 'sojourn-package-'))
  const source = join(workspace, 'source')
  const isSource = (path: string): boolean => !/^(?:\.git|\.mirror|node_modules|dist|tests|bench)$/.test(path)
  mkdirSync(source)
  for (const name of readdirSync(ROOT).filter(isSource))
    cpSync(join(ROOT, name), join(source, name), { recursive: true })
  symlinkSync(join(ROOT, 'node_modules'), join(source, 'node_modules'))
  execFileSync('npm', ['pack', '--silent', '--pack-destination', workspace], {
    cwd: source,
    env: PLAIN_ENV,
    stdio: 'pipe',
  })
  const tarball = readdirSync(workspace).find((name) => name.endsWith('.tgz')) as string
  execFileSync('tar', ['-xzf', join(workspace, tarball), '-C', workspace])
  const unpacked = join(workspace, 'package')
  return {
    directory: unpacked,
    project(name, manifest, also = []) {
      const directory = join(workspace, name)
      const modules = join(directory, 'node_modules')
      mkdirSync(modules, { recursive: true })
      cpSync(unpacked, join(modules, 'sojourn'), { recursive: true })
      for (const dependency of ['cookie', 'cookie-signature', 'uuid', ...also]) {
        const [, installed = '', place = installed] = /^(@?[^@]+)(?:@(.+))?$/.exec(dependency) ?? []
        const link = join(modules, place)
        mkdirSync(dirname(link), { recursive: true })
        symlinkSync(join(ROOT, 'node_modules', installed), link)
      }
      writeFileSync(join(directory, 'package.json'), JSON.stringify(manifest))
      return directory
    },
    remove: () => rmSync(workspace, { recursive: true, force: true }),
  }
}

/** The packages of Express's types. */
export function expressTypes(): string[] {
  const wanted = ['express', 'express-serve-static-core', 'body-parser', 'connect', 'serve-static', 'http-errors']
  const more = ['qs', 'range-parser', 'send', 'mime']
  return [...wanted, ...more].map((name) => `@types/${name}`).filter((name) => existsSync(join('node_modules', name)))
}
