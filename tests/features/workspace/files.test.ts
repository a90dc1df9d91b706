// The files of one workspace: saved whole or not at all, within the quota however many write at once, read by parts, and out of
// reach for every path, link and race that leads elsewhere.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { open as openFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals'
import { isSessionError, SessionManager } from 'sojourn'
import { inside } from 'sojourn/inside'
import { type Workspace, type Workspaces, workspaces } from 'sojourn/workspace'
import { FileWriter } from '../../../src/features/workspace/file-writer.js'
import { Places } from '../../../src/features/workspace/places.js'
import { Workspace as WorkspaceClass } from '../../../src/features/workspace/workspace.js'
import { SECRET } from '../../support/http.js'
import { refusal } from '../../support/rig.js'

const ID = '11111111-2222-4333-8444-555555555555'
let root = ''
let places: Places

function workspaceWith(limits: { maxBytes?: number; maxFiles?: number } = {}): Workspace {
  const all = { maxBytes: 1_000, maxFiles: 10, ...limits }
  return new WorkspaceClass({ id: ID, place: places.of(ID), limits: all, tell: () => {} })
}
const contentOf = async (workspace: Workspace, name: string): Promise<string | null> => {
  const file = await workspace.open(name)
  return file && text(file.stream)
}
const asides = (): string[] => readdirSync(places.of(ID).asides)

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'sojourn-files-'))
  places = new Places(root)
  await places.make(ID)
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

describe('a file', () => {
  test('that nobody begins to read is closed after a minute, one that is read is not', async () => {
    const workspace = workspaceWith()
    await workspace.save('a.txt', 'hello')
    jest.useFakeTimers({ doNotFake: ['nextTick', 'queueMicrotask', 'setImmediate', 'performance', 'Date'] })
    try {
      const [unread, read] = [await workspace.open('a.txt'), await workspace.open('a.txt')]
      expect(await text(read?.stream as Readable)).toBe('hello')
      jest.advanceTimersByTime(59_999)
      expect(unread?.stream.destroyed).toBe(false)
      jest.advanceTimersByTime(1)
      expect(unread?.stream.destroyed).toBe(true)
      await once(unread?.stream as Readable, 'close')
    } finally {
      jest.useRealTimers()
    }
  })

  test.each<[what: string, content: () => Parameters<Workspace['save']>[1]]>([
    ['text', () => 'hello'],
    ['bytes', () => Buffer.from('hello')],
    ['a Blob', () => new Blob(['hel', 'lo'])],
    ['a File of the web', () => new File(['hello'], 'x.txt')],
    ['a stream', () => Readable.from(['hel', 'lo'])],
    ['a stream of the web', () => new Blob(['hello']).stream()],
    [
      'a generator',
      async function* () {
        yield 'hel'
        yield Buffer.from('lo')
      }.bind(null) as never,
    ],
  ])('is saved from %s', async (what, content) => {
    const workspace = workspaceWith()
    const given = what === 'a generator' ? (content as unknown as () => AsyncIterable<string>)() : content()
    expect(await workspace.save('a.txt', given)).toMatchObject({ name: 'a.txt', bytes: 5 })
    expect(await contentOf(workspace, 'a.txt')).toBe('hello')
    expect(await workspace.list()).toEqual([{ name: 'a.txt', bytes: 5, modifiedAt: expect.any(Date) }])
    expect(asides()).toEqual([])
  })

  test('is for nobody but the user that the server runs as', async () => {
    const workspace = workspaceWith()
    await workspace.save('a.txt', 'hello')
    expect(statSync(join(workspace.dataDir, 'a.txt')).mode & 0o777).toBe(0o600)
    for (const path of [workspace.dataDir, workspace.tempDir, join(root, 'workspaces')]) {
      expect(statSync(path).mode & 0o777).toBe(0o700)
    }
  })

  test('does not take the place of another, by no spelling, unless that is asked for', async () => {
    const workspace = workspaceWith()
    await workspace.save('Ärger.txt', 'one')
    for (const name of ['Ärger.txt', 'ärger.TXT', 'A\u0308rger.txt']) {
      expect(await refusal(workspace.save(name, 'two'))).toMatchObject({ code: 'FILE_EXISTS', status: 409 })
    }
    expect(await contentOf(workspace, 'Ärger.txt')).toBe('one')
    expect((await workspace.save('ärger.txt', 'three', { whenTaken: 'number' })).name).toBe('ärger (2).txt')
    expect((await workspace.save('ärger.txt', 'four', { whenTaken: 'number' })).name).toBe('ärger (3).txt')
    await workspace.save('ÄRGER.txt', 'five', { whenTaken: 'replace' })
    expect((await workspace.list()).map(({ name }) => name)).toEqual(['ÄRGER.txt', 'ärger (2).txt', 'ärger (3).txt'])
    expect(await contentOf(workspace, 'ÄRGER.txt')).toBe('five')
  })

  test('has one winner among many that are saved at once under one name', async () => {
    const workspace = workspaceWith()
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, (_, n) => workspace.save('a.txt', `${n}`)))
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    expect(await workspace.list()).toHaveLength(1)
    expect(asides()).toEqual([])
  })

  test('is seen whole or not at all while it is replaced', async () => {
    const workspace = workspaceWith({ maxBytes: 1_000_000 })
    const versions = ['a'.repeat(100_000), 'b'.repeat(100_000)] as const
    await workspace.save('a.txt', versions[0])
    let isDone = false
    const writing = (async () => {
      for (let n = 1; n <= 20; n++) await workspace.save('a.txt', versions[n % 2 ? 1 : 0], { whenTaken: 'replace' })
      isDone = true
    })()
    let looks = 0
    while (!isDone) {
      expect(versions).toContain(await contentOf(workspace, 'a.txt'))
      looks++
    }
    await writing
    expect(looks).toBeGreaterThan(3)
  })

  test('can be read from its first moment on', async () => {
    const workspace = workspaceWith({ maxFiles: 100 })
    for (let n = 0; n < 20; n++) {
      let isSaved = false
      const saving = workspace.save(`${n}`, 'x').finally(() => {
        isSaved = true
      })
      const readings: Promise<void>[] = []
      while (!isSaved) {
        readings.push(workspace.open(`${n}`).then((file) => void file?.stream.destroy()))
        await new Promise(setImmediate)
      }
      await Promise.all([saving, ...readings])
    }
  })

  test('whose stream breaks off leaves nothing, and the old one stays', async () => {
    const workspace = workspaceWith()
    await workspace.save('a.txt', 'old')
    async function* broken(): AsyncGenerator<string> {
      yield 'ne'
      throw new Error('cable')
    }
    await expect(workspace.save('a.txt', broken(), { whenTaken: 'replace' })).rejects.toThrow('cable')
    expect(await contentOf(workspace, 'a.txt')).toBe('old')
    expect(asides()).toEqual([])
  })

  test('that is refused lets its stream be read to its end', async () => {
    const workspace = workspaceWith({ maxBytes: 5 })
    for (const name of ['big.txt', '../bad']) {
      const stream = Readable.from(Array.from({ length: 100 }, () => 'chunk'))
      const error = await refusal(workspace.save(name, stream))
      expect(['QUOTA_EXCEEDED', 'INVALID_FILE_NAME']).toContain(error.code)
      await once(stream, 'end')
      expect(stream.errored).toBeNull()
    }
  })

  test('is removed once', async () => {
    const workspace = workspaceWith()
    await workspace.save('a.txt', 'hello')
    expect([await workspace.remove('a.txt'), await workspace.remove('a.txt')]).toEqual([true, false])
    expect(await workspace.open('a.txt')).toBeNull()
  })

  test('is read by parts, as a Range header asks', async () => {
    const workspace = workspaceWith()
    await workspace.save('a.txt', '0123456789')
    const rows: [range: string | undefined, content: string, range: string | undefined][] = [
      [undefined, '0123456789', undefined],
      ['bytes=2-4', '234', 'bytes 2-4/10'],
      ['bytes=7-', '789', 'bytes 7-9/10'],
      ['bytes=-3', '789', 'bytes 7-9/10'],
      ['bytes=-50', '0123456789', 'bytes 0-9/10'],
      ['bytes=5-500', '56789', 'bytes 5-9/10'],
      ['bytes=0-0', '0', 'bytes 0-0/10'],
      ['bytes=4-2', '0123456789', undefined],
      ['bytes=0-1,3-4', '0123456789', undefined],
      ['lines=1-2', '0123456789', undefined],
    ]
    for (const [range, content, contentRange] of rows) {
      const file = await workspace.open('a.txt', { range })
      expect(file?.status).toBe(contentRange === undefined ? 200 : 206)
      expect(file?.headers['Content-Range']).toBe(contentRange)
      expect(file?.headers['Content-Length']).toBe(String(content.length))
      expect(await text(file?.stream as Readable)).toBe(content)
    }
    for (const range of ['bytes=10-', 'bytes=-0']) {
      expect(await refusal(workspace.open('a.txt', { range }))).toMatchObject({
        code: 'RANGE_NOT_SATISFIABLE',
        status: 416,
      })
    }
    await workspace.save('empty', '')
    expect(await contentOf(workspace, 'empty')).toBe('')
    expect((await workspace.open('a.txt', { range: { start: 3, end: 5 } }))?.range).toEqual({ start: 3, end: 5 })
  })

  test('is served to be kept, under any name, and no name gets into the head', async () => {
    const workspace = workspaceWith()
    mkdirSync(join(workspace.dataDir, 'unpacked'))
    writeFileSync(join(workspace.dataDir, 'unpacked', `a';x "é.html`.replace('"', '')), 'hello')
    const file = await workspace.open(`unpacked/a';x é.html`)
    expect(file?.headers).toMatchObject({
      'Content-Type': 'application/octet-stream',
      'Content-Disposition': `attachment; filename="a';x _.html"; filename*=UTF-8''a%27%3Bx%20%C3%A9.html`,
      'X-Content-Type-Options': 'nosniff',
    })
    file?.stream.destroy()
  })
})

describe('the quota', () => {
  test('of bytes holds while files stream, and what is refused leaves the old files whole', async () => {
    const workspace = workspaceWith({ maxBytes: 100 })
    await workspace.save('old.txt', 'x'.repeat(60))
    let given = 0
    async function* endless(): AsyncGenerator<string> {
      for (; given < 1_000; given++) yield 'x'.repeat(10)
    }
    expect(await refusal(workspace.save('new.txt', endless()))).toMatchObject({ code: 'QUOTA_EXCEEDED', status: 413 })
    expect(given).toBeLessThan(10)
    expect(await refusal(workspace.save('old.txt', 'y'.repeat(101), { whenTaken: 'replace' }))).toMatchObject({
      status: 413,
    })
    expect(await contentOf(workspace, 'old.txt')).toBe('x'.repeat(60))
    await workspace.save('old.txt', 'y'.repeat(100), { whenTaken: 'replace' })
    expect(await workspace.usage()).toEqual({ bytes: 100, files: 1, maxBytes: 100, maxFiles: 10 })
    expect(asides()).toEqual([])
  })

  test('is never exceeded by twenty that write at once, and some of them come in', async () => {
    const workspace = workspaceWith({ maxBytes: 100, maxFiles: 8 })
    for (const [bytes, fitting] of [
      [30, 3],
      [1, 8],
    ] as const) {
      await Promise.all((await workspace.list()).map(({ name }) => workspace.remove(name)))
      const outcomes = await Promise.allSettled(
        Array.from({ length: 20 }, (_, n) => workspace.save(`${n}`, Readable.from(['x'.repeat(bytes)]))),
      )
      const refusals = outcomes.filter((outcome) => outcome.status === 'rejected')
      expect(refusals.every(({ reason }) => isSessionError(reason, 'QUOTA_EXCEEDED'))).toBe(true)
      const { files, bytes: held } = await workspace.usage()
      expect(files).toBe(20 - refusals.length)
      expect(held).toBeLessThanOrEqual(100)
      expect(files).toBeLessThanOrEqual(fitting)
      expect(files).toBeGreaterThan(0)
    }
  })

  test('holds against what another process has written whole and not put in its place yet', async () => {
    const limits = { maxBytes: 100, maxFiles: 10 }
    const other = new FileWriter(places.of(ID), limits)
    const staged = await other.stage({ name: () => 'a', content: 'x'.repeat(60), whenTaken: 'refuse' })
    renameSync(staged.path, `${staged.path}.done`)
    // As if it were another process: what is kept of it in memory is unknown here.
    await other.drop(staged)
    expect(await refusal(workspaceWith(limits).save('b', 'x'.repeat(60)))).toMatchObject({ code: 'QUOTA_EXCEEDED' })
    await workspaceWith(limits).save('b', 'x'.repeat(40))
  })

  test('counts what the application has written by itself', async () => {
    const workspace = workspaceWith({ maxBytes: 100 })
    mkdirSync(join(workspace.dataDir, 'unpacked'))
    writeFileSync(join(workspace.dataDir, 'unpacked', 'a'), 'x'.repeat(90))
    expect(await refusal(workspace.save('b', 'x'.repeat(20)))).toMatchObject({ code: 'QUOTA_EXCEEDED' })
    expect((await workspace.list()).map(({ name }) => name)).toEqual(['unpacked/a'])
  })

  test('several files come in together or not at all', async () => {
    const workspace = workspaceWith({ maxBytes: 100 })
    await workspace.save('kept', 'old')
    const upload = workspace.upload()
    await upload.add('one', 'x'.repeat(40))
    await upload.add('kept', 'new', { whenTaken: 'replace' })
    expect(await workspace.list()).toHaveLength(1)
    expect(await refusal(upload.add('two', 'x'.repeat(90)))).toMatchObject({ code: 'QUOTA_EXCEEDED' })
    expect([await contentOf(workspace, 'kept'), asides()]).toEqual(['old', []])
    const again = workspace.upload()
    await again.add('one', 'x')
    await again.add('three', 'y')
    await workspace.save('three', 'was quicker')
    expect(await refusal(again.commit())).toMatchObject({ code: 'FILE_EXISTS' })
    expect((await workspace.list()).map(({ name }) => name)).toEqual(['kept', 'three'])
    expect(asides()).toEqual([])
  })

  test('none comes in when one of them would replace a folder', async () => {
    const workspace = workspaceWith()
    await workspace.save('kept', 'old')
    mkdirSync(join(workspace.dataDir, 'Folder'))
    const upload = workspace.upload()
    await upload.add('one', 'x')
    await upload.add('kept', 'new', { whenTaken: 'replace' })
    await upload.add('folder', 'x', { whenTaken: 'replace' })
    expect(await refusal(upload.commit())).toMatchObject({ code: 'INVALID_FILE_NAME' })
    expect((await workspace.list()).map(({ name }) => name)).toEqual(['kept'])
    expect(await contentOf(workspace, 'kept')).toBe('old')
  })

  test('what is still written when another file fails goes as well, and takes no room', async () => {
    const workspace = workspaceWith({ maxBytes: 100 })
    const slow = new Readable({ read() {} })
    slow.push('x'.repeat(60))
    const upload = workspace.upload()
    const adding = upload.add('slow', slow)
    await refusal(upload.add('.hidden', 'x'))
    slow.push(null)
    expect(await refusal(adding)).toMatchObject({ code: 'INVALID_FILE_NAME' })
    expect(await refusal(upload.add('later', 'x'))).toMatchObject({ code: 'INVALID_FILE_NAME' })
    expect([await upload.commit(), asides()]).toEqual([[], []])
    await workspace.save('whole', 'x'.repeat(100))
  })
})

describe('out of reach', () => {
  let outside = ''
  beforeEach(() => {
    outside = mkdtempSync(join(tmpdir(), 'sojourn-outside-'))
    writeFileSync(join(outside, 'secret.txt'), 'secret')
  })
  afterEach(() => rmSync(outside, { recursive: true, force: true }))

  const refused = { code: 'INVALID_FILE_NAME', status: 400 }

  test('whatever path is asked for', async () => {
    const workspace = workspaceWith()
    await workspace.save('a.txt', 'hello')
    const hostile = [
      '..',
      '../owner',
      'a/../../owner',
      '/etc/passwd',
      join(workspace.dataDir, 'a.txt'),
      'C:\\x',
      'a\0b',
      '',
    ]
    for (const path of hostile) {
      expect(await refusal(workspace.open(path))).toMatchObject(refused)
      expect(await refusal(workspace.remove(path))).toMatchObject(refused)
      expect(await refusal(workspace.resolve(path))).toMatchObject(refused)
      expect(await refusal(workspace.save(path, 'x'))).toMatchObject(refused)
    }
    expect(await workspace.resolve('a.txt')).toBe(join(workspace.dataDir, 'a.txt'))
    expect(await workspace.resolve('not/yet.txt')).toBe(join(workspace.dataDir, 'not', 'yet.txt'))
  })

  test('links of every kind, which an archive may have unpacked', async () => {
    const workspace = workspaceWith()
    symlinkSync(join(outside, 'secret.txt'), join(workspace.dataDir, 'link'))
    symlinkSync(outside, join(workspace.dataDir, 'folder'))
    symlinkSync('/nowhere/yet', join(workspace.dataDir, 'dangling'))
    linkSync(join(outside, 'secret.txt'), join(workspace.dataDir, 'hard'))
    for (const path of ['link', 'folder/secret.txt', 'dangling', 'hard']) {
      expect(await refusal(workspace.open(path))).toMatchObject(refused)
    }
    for (const path of ['link', 'folder/secret.txt', 'folder', 'dangling']) {
      expect(await refusal(workspace.resolve(path))).toMatchObject(refused)
      expect(await workspace.owns(path)).toBe(false)
    }
    await workspace.save('link', 'mine', { whenTaken: 'replace' })
    expect(readFileSync(join(outside, 'secret.txt'), 'utf8')).toBe('secret')
    expect(await contentOf(workspace, 'link')).toBe('mine')
    expect((await workspace.list()).map(({ name }) => name)).toEqual(['hard', 'link'])
  })

  test('what is no file: folders, pipes', async () => {
    const workspace = workspaceWith()
    mkdirSync(join(workspace.dataDir, 'folder'))
    execFileSync('mkfifo', [join(workspace.dataDir, 'pipe')])
    for (const path of ['folder', 'pipe']) expect(await refusal(workspace.open(path))).toMatchObject(refused)
    expect(await refusal(workspace.save('folder', 'x', { whenTaken: 'replace' }))).toMatchObject(refused)
  })

  test('what a path is exchanged for between the look and the use', async () => {
    const workspace = workspaceWith()
    const { dataDir } = workspace
    mkdirSync(join(dataDir, 'sub'))
    writeFileSync(join(dataDir, 'sub', 'secret.txt'), 'mine')
    // Another process exchanges the folder for a link to elsewhere, and back, as fast as it can.
    const swapping = spawn(
      process.execPath,
      [
        '-e',
        `const fs = require('fs'); const [dir, outside] = process.argv.slice(1)
         process.chdir(dir); fs.symlinkSync(outside, 'link'); process.stdout.write('go')
         for (;;) { fs.renameSync('sub', 'real'); fs.renameSync('link', 'sub'); fs.renameSync('sub', 'link'); fs.renameSync('real', 'sub') }`,
        dataDir,
        outside,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    await once(swapping.stdout, 'data')
    const seen: Record<string, number> = { mine: 0, absent: 0, refused: 0, naive: 0 }
    for (let n = 0; n < 1_000; n++) {
      try {
        const content = await contentOf(workspace, 'sub/secret.txt')
        expect(content).not.toBe('secret')
        seen[content ?? 'absent'] = (seen[content ?? 'absent'] ?? 0) + 1
      } catch (error) {
        if (!isSessionError(error, 'INVALID_FILE_NAME')) throw error
        seen['refused'] = (seen['refused'] ?? 0) + 1
      }
      // What a look before the use is worth.
      if (n % 10 === 0) {
        const path = await workspace.resolve('sub/secret.txt').catch(() => undefined)
        const handle = path && (await openFile(path).catch(() => undefined))
        if (handle) {
          if ((await handle.readFile('utf8')) === 'secret') seen['naive'] = (seen['naive'] ?? 0) + 1
          await handle.close()
        }
      }
    }
    swapping.kill('SIGKILL')
    await once(swapping, 'exit')
    expect(seen['mine']).toBeGreaterThan(0)
    expect((seen['refused'] ?? 0) + (seen['absent'] ?? 0)).toBeGreaterThan(0)
  })

  test('owns() says what is really within', async () => {
    const workspace = workspaceWith()
    await workspace.save('a.txt', 'hello')
    symlinkSync(join(workspace.dataDir, 'a.txt'), join(outside, 'in'))
    const { dataDir, tempDir } = workspace
    const rows: [path: string, isOwn: boolean][] = [
      ['a.txt', true],
      ['not/yet', true],
      [join(dataDir, 'a.txt'), true],
      [join(tempDir, 'x'), true],
      [join(outside, 'in'), true],
      ['../temp/x', false],
      [`${dataDir}/../owner`, false],
      [dataDir, false],
      [`${dataDir}-2/a.txt`, false],
      [join(outside, 'secret.txt'), false],
      ['/', false],
      ['a\0', false],
    ]
    for (const [path, isOwn] of rows) expect([path, await workspace.owns(path)]).toEqual([path, isOwn])
  })
})

describe('a disk that fails', () => {
  let manager: SessionManager
  let files: Workspaces
  beforeEach(() => {
    manager = new SessionManager({ secret: SECRET })
  })
  afterEach(async () => {
    await files?.close()
    await manager.close()
  })

  test('is told when the root has vanished, and not made again', async () => {
    files = workspaces(manager, { root: join(root, 'own'), sweepInterval: 0 })
    rmSync(join(root, 'own'), { recursive: true })
    const gone = { code: 'STORAGE_UNAVAILABLE', status: 503, message: expect.stringMatching(/root is not there/) }
    expect(await refusal(files.sweep())).toMatchObject(gone)
    const workspace = workspaceWith()
    rmSync(root, { recursive: true })
    expect(await refusal(workspace.save('a', 'x'))).toMatchObject(gone)
    expect(await refusal(workspace.list())).toMatchObject(gone)
    expect(await refusal(workspace.open('a'))).toMatchObject(gone)
    expect(await refusal(places.make(ID))).toMatchObject(gone)
    expect(existsSync(root)).toBe(false)
  })

  test.each([
    ['is full', 'size=256k', '', { code: 'STORAGE_FULL', status: 507 }],
    ['is read-only', 'size=1m', 'mount -o remount,ro "$ROOT"', { code: 'STORAGE_UNAVAILABLE', status: 503 }],
  ])('%s: nothing half is left, and what was there can be read', (_how, options, then, error) => {
    const script = `
      mount -t tmpfs -o ${options} tmpfs "$ROOT" && "$NODE" --import tsx tests/support/workspace-disk.ts fill &&
      ${then || 'true'} && "$NODE" --import tsx tests/support/workspace-disk.ts try`
    const { NODE_OPTIONS: _jest, ...env } = process.env
    // A file system of its own, seen by nobody else.
    const printed = execFileSync('unshare', ['--mount', '--map-root-user', 'sh', '-c', script], {
      env: { ...env, ROOT: root, NODE: process.execPath },
      encoding: 'utf8',
    })
    expect(JSON.parse(printed)).toEqual({ ...error, files: ['old.txt'], content: 'old', asides: [] })
  })
})

test('the drawer is the only thing that a session keeps of it', async () => {
  const manager = new SessionManager({ secret: SECRET })
  const files = workspaces(manager, { root, sweepInterval: 0 })
  const { id } = await manager.create({ userId: 'ann' })
  expect(await files.find(id)).toBeNull()
  expect(() => inside({})).toThrow()
  await files.close()
  await manager.close()
})
