// The documentation as a test sees it: pages, their code blocks, and the runs that they show.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { connect } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { build, transformSync } from 'esbuild'
import { SECRET } from './http.js'
import { sharedPostgres } from './postgres.js'
import { freePort, sharedRedis } from './redis.js'

export interface Block {
  readonly language: string
  readonly source: string
}

export interface Page {
  /** The path from the root of the project. */
  readonly name: string
  readonly text: string
  readonly blocks: readonly Block[]
  /** Code words in headings and in the first column of tables. */
  readonly named: readonly string[]
  /** Code words in the first column of tables. */
  readonly inTables: readonly string[]
}

/** A code block that is a whole file. */
export interface PageFile {
  readonly page: string
  readonly name: string
  readonly source: string
}

/** A block of commands and what they print. */
export interface Run {
  readonly page: string
  readonly steps: readonly { readonly command: string; readonly shown: string }[]
}

const ROOT = resolve('.')
const FENCE = /^```(\w*).*\n([\s\S]*?)^```$/gm
/** Node's way to packages leads up from here; the package itself is built into it. */
const DIRECTORY = resolve('node_modules/.cache/sojourn-docs')
/** What a page's programs get when they import a package: the version that the page is about. */
const VERSIONS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'docs/guides/express-4.md': { express: 'express4' },
}
/** A program that is given as an argument, with nothing in it that a shell would look into. */
const ONE_LINER = /^node --input-type=module -e "([^"$`\\]+)"$/
/** The package's entries, as the sources are found by them: `sojourn/redis` by `./src/stores/redis.ts`. */
const { paths } = (
  JSON.parse(readFileSync('tsconfig.json', 'utf8')) as {
    compilerOptions: { paths: Readonly<Record<string, readonly [string]>> }
  }
).compilerOptions
const ENTRIES = Object.fromEntries(
  Object.entries(paths).map(([name, [file]]) => [name === 'sojourn' ? 'index' : name.replace('sojourn/', ''), file]),
)

/** Every page, from the root down. */
export function pageNames(): string[] {
  const docs = (readdirSync('docs', { recursive: true }) as string[]).filter((file) => file.endsWith('.md'))
  const top = readdirSync('.').filter((file) => file.endsWith('.md'))
  const decisions = readdirSync('decisions').map((file) => join('decisions', file))
  return [...top, ...docs.map((file) => join('docs', file)), ...decisions, 'examples/README.md']
}

export function readPage(name: string): Page {
  const text = readFileSync(name, 'utf8')
  const blocks = [...text.matchAll(FENCE)].map(([, language = '', source = '']) => ({ language, source }))
  const rows = [...prose(text).matchAll(/^\| ([^|]+) \|.*\n(?!\| ---)/gm)].map(([, cell = '']) => cell)
  const headings = [...prose(text).matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => heading)
  return { name, text, blocks, named: [...words(headings), ...words(rows)], inTables: words(rows) }
}

/** A page without its code blocks. */
export function prose(text: string): string {
  return text.replace(FENCE, '')
}

/** `name`, `name(…)` and `metadata.name` name `name`. */
function words(cells: readonly string[]): string[] {
  return cells.flatMap((cell) => [...cell.matchAll(/`(?:[a-z]+\.)?(\w+)[^`]*`/g)].map(([, name]) => name as string))
}

/** The blocks of a page that are files: their first line names them. */
export function filesOf({ name: page, blocks }: Page): PageFile[] {
  return blocks.flatMap(({ language, source }) => {
    const [, name] = /^\/\/ ([\w./-]+\.[cm]?[jt]s)\b/.exec(source) ?? []
    return name !== undefined && (language === 'ts' || language === 'js') ? [{ page, name, source }] : []
  })
}

export function runsOf({ name: page, blocks }: Page): Run[] {
  return blocks
    .filter(({ language }) => language === 'console')
    .map(({ source }) => ({
      page,
      steps: source
        .split(/^\$ /m)
        .slice(1)
        .map((step) => {
          const [command = '', ...shown] = step.split('\n')
          return { command, shown: shown.join('\n') }
        }),
    }))
}

/** Where the files of pages are compiled and run. */
export class Workshop {
  readonly #ports = new Map<string, number>()
  readonly #onPostgres = new Set<string>()
  #redis: Awaited<ReturnType<typeof sharedRedis>> | undefined
  #postgres: ReturnType<typeof sharedPostgres> | undefined

  async open(pages: readonly Page[]): Promise<void> {
    rmSync(DIRECTORY, { recursive: true, force: true })
    this.#redis = await sharedRedis()
    for (const page of pages) {
      if (runsOf(page).length > 0) this.#ports.set(page.name, await freePort())
      for (const file of filesOf(page)) this.#write(file)
      for (const [name, actual] of Object.entries(VERSIONS[page.name] ?? {})) {
        const link = join(directoryOf(page.name, '.ts', 'run'), 'node_modules', name)
        mkdirSync(dirname(link), { recursive: true })
        symlinkSync(join(ROOT, 'node_modules', actual), link)
      }
    }
    write(join(DIRECTORY, 'package.json'), JSON.stringify({ type: 'module' }))
    await buildPackage()
  }

  async close(): Promise<void> {
    await this.#redis?.stop()
    await (await this.#postgres)?.stop()
    rmSync(DIRECTORY, { recursive: true, force: true })
  }

  /** What the compiler says of all files. */
  compile(): string {
    write(
      join(DIRECTORY, 'tsconfig.json'),
      JSON.stringify({
        extends: join(ROOT, 'tsconfig.json'),
        compilerOptions: {
          rootDir: ROOT,
          allowJs: true,
          experimentalDecorators: true,
          noPropertyAccessFromIndexSignature: false,
          skipLibCheck: true,
        },
        include: ['pages'],
        exclude: [],
      }),
    )
    try {
      execFileSync(process.execPath, [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', DIRECTORY], {
        stdio: 'pipe',
      })
      return ''
    } catch (error) {
      return String((error as { stdout: Buffer }).stdout)
    }
  }

  /** Loads files in one process, and tells what that prints: nothing, when all is well. */
  async load(files: readonly PageFile[]): Promise<string> {
    const paths = files.map(({ page, name }) => join(directoryOf(page, name, 'run'), name.replace(/ts$/, 'js')))
    const code = `for (const path of ${JSON.stringify(paths)}) {
      try { await import(path) } catch (error) { console.log(path, error) }
    }
    process.exit()`
    const child = start(DIRECTORY, ['--input-type=module', '--eval', code])
    await child.ended
    return child.stdout()
  }

  /** Goes through the commands of a run as a reader would, and tells what each has printed. */
  async run({ page, steps }: Run): Promise<{ command: string; shown: string; printed: string }[]> {
    const port = this.#ports.get(page) as number
    const jar = new Map<string, string>()
    const started: Started[] = []
    const results: { command: string; shown: string; printed: string }[] = []
    try {
      for (const { command, shown } of steps) {
        const [, flags = '', file, isServer] =
          /^(?:node|npx tsx)((?: --\S+)*) (\S+\.[cm]?[jt]s)( &)?$/.exec(command) ?? []
        if (file !== undefined) {
          // What a reader's .env holds is in the environment.
          const args = flags.split(' ').filter((flag) => flag !== '' && !flag.startsWith('--env-file'))
          const child = start(
            directoryOf(page, file, 'run'),
            [...args, file.replace(/ts$/, 'js')],
            await this.#settingsOf(page, file),
          )
          started.push(child)
          if (isServer === undefined) await child.ended
          else await listening(port, child)
          results.push({ command, shown, printed: isServer === undefined ? child.stdout() : shown })
        } else if (ONE_LINER.test(command)) {
          const [, code = ''] = ONE_LINER.exec(command) ?? []
          const child = start(DIRECTORY, ['--input-type=module', '-e', code], { REDIS_URL: this.#redis?.url })
          started.push(child)
          await child.ended
          results.push({ command, shown, printed: child.stdout() })
        } else if (command.startsWith('curl ')) {
          results.push({ command, shown, printed: await curl(command, { port, jar }) })
        } else throw new Error(`${page}: "${command}" is no command that this test knows.`)
      }
      return results
    } finally {
      for (const { process } of started) process.kill('SIGKILL')
      // The next run of the page listens on the same port.
      await Promise.allSettled(started.map(({ ended }) => ended))
    }
  }

  /** What the reader's .env names, beside the secret. The database is started for the first program that asks for it. */
  async #settingsOf(page: string, file: string): Promise<NodeJS.ProcessEnv> {
    if (!this.#onPostgres.has(`${page} ${file}`)) return {}
    this.#postgres ??= sharedPostgres()
    return { DATABASE_URL: (await this.#postgres).url }
  }

  #write({ page, name, source }: PageFile): void {
    if (source.includes('process.env.DATABASE_URL')) this.#onPostgres.add(`${page} ${name}`)
    const text = source
      .replaceAll('redis://localhost:6379', this.#redis?.url as string)
      .replace(/\b3000\b/g, String(this.#ports.get(page) ?? 0))
    write(join(directoryOf(page, name, 'pages'), name), text)
    const { code } = transformSync(text, {
      loader: name.endsWith('ts') ? 'ts' : 'js',
      target: 'es2023',
      tsconfigRaw: { compilerOptions: { experimentalDecorators: true } },
    })
    write(join(directoryOf(page, name, 'run'), name.replace(/ts$/, 'js')), code)
  }
}

/** A page may have the same program in both languages. */
function directoryOf(page: string, file: string, kind: 'pages' | 'run'): string {
  return join(DIRECTORY, kind, page.replace(/\W/g, '-'), file.endsWith('ts') ? 'ts' : 'js')
}

function write(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, text)
}

/** The package as the programs import it, made of the sources as they are. */
async function buildPackage(): Promise<void> {
  const outdir = join(DIRECTORY, 'node_modules/sojourn')
  await build({
    entryPoints: ENTRIES,
    outdir,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    packages: 'external',
    logLevel: 'error',
  })
  const paths = Object.keys(ENTRIES).map((name) => [name === 'index' ? '.' : `./${name}`, `./${name}.js`])
  write(join(outdir, 'package.json'), JSON.stringify({ type: 'module', exports: Object.fromEntries(paths) }))
}

interface Started {
  readonly process: ChildProcess
  readonly ended: Promise<void>
  stdout(): string
  all(): string
}

function start(cwd: string, args: readonly string[], settings: NodeJS.ProcessEnv = {}): Started {
  const { NODE_OPTIONS: _jestOptions, ...inherited } = process.env
  const env = { ...inherited, NODE_ENV: 'development', SESSION_SECRET: SECRET, NODE_NO_WARNINGS: '1', ...settings }
  const child = spawn(process.execPath, args, { cwd, env, stdio: 'pipe' })
  let stdout = ''
  let all = ''
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk
    all += chunk
  })
  child.stderr.on('data', (chunk: Buffer) => {
    all += chunk
  })
  const ended = once(child, 'close').then(([code]) => {
    if (code !== 0 && code !== null) throw new Error(`${args.join(' ')} ended with code ${code}:\n${all}`)
  })
  ended.catch(() => {})
  return { process: child, ended, stdout: () => stdout, all: () => all }
}

async function listening(port: number, child: Started): Promise<void> {
  for (let attempt = 0; attempt < 1_000; attempt++) {
    if (child.process.exitCode !== null) throw new Error(`The program ended:\n${child.all()}`)
    const isOpen = await new Promise<boolean>((resolve) => {
      const socket = connect(port, 'localhost')
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
      socket.once('connect', () => socket.destroy())
    })
    if (isOpen) return
    await delay(20)
  }
  throw new Error(`The program does not listen on its port:\n${child.all()}`)
}

/** As much of curl as the pages use, so that no test needs it: -s, -i, -X, -d, -H, -c jar, -b jar. */
async function curl(command: string, { port, jar }: { port: number; jar: Map<string, string> }): Promise<string> {
  const args = (command.match(/'[^']*'|\S+/g) ?? []).slice(1).map((arg) => arg.replace(/^'|'$/g, ''))
  const headers: Record<string, string> = {}
  let method = 'GET'
  let body: string | undefined
  let url = ''
  let showsHead = false
  let sends = false
  let keeps = false
  for (let at = 0; at < args.length; at++) {
    const arg = args[at] as string
    if (arg === '-s') continue
    else if (arg === '-i') showsHead = true
    else if (arg === '-X') method = args[++at] as string
    else if (arg === '-H') {
      const [name = '', value = ''] = (args[++at] as string).split(/:\s*/, 2)
      headers[name.toLowerCase()] = value
    } else if (arg === '-d') {
      body = args[++at] as string
      if (method === 'GET') method = 'POST'
      headers['content-type'] ??= 'application/x-www-form-urlencoded'
    } else if (arg === '-b') sends = args[++at] === 'jar'
    else if (arg === '-c') keeps = args[++at] === 'jar'
    else if (arg.startsWith('localhost:3000')) url = arg.replace('localhost:3000', `http://localhost:${port}`)
    else throw new Error(`curl ${arg} is not known here: ${command}`)
  }
  if (sends && jar.size > 0) headers['cookie'] = [...jar].map(([name, value]) => `${name}=${value}`).join('; ')
  if (body !== undefined) headers['content-length'] = String(Buffer.byteLength(body))
  return await new Promise((resolve, reject) => {
    const req = request(url, { method, headers }, (res) => {
      let text = ''
      if (showsHead) {
        text = `HTTP/${res.httpVersion} ${res.statusCode} ${res.statusMessage}\n`
        for (let at = 0; at < res.rawHeaders.length; at += 2)
          text += `${res.rawHeaders[at]}: ${res.rawHeaders[at + 1]}\n`
        text += '\n'
      }
      for (const cookie of keeps ? (res.headers['set-cookie'] ?? []) : []) {
        const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(cookie) ?? []
        if (/max-age=0|expires=thu, 01 jan 1970/i.test(cookie)) jar.delete(name)
        else jar.set(name, value)
      }
      res.setEncoding('utf8')
      res.on('data', (chunk: string) => {
        text += chunk
      })
      res.on('end', () => resolve(text))
      res.on('error', reject)
    })
    req.on('error', reject)
    req.end(body)
  })
}
