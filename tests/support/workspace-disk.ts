// A program on a disk that is full or read-only, in ROOT: `fill` saves a file, `try` a second one, and says what came of it.
import { readdirSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import type { SessionError } from 'sojourn'
import { Places } from '../../src/features/workspace/places.js'
import { Workspace } from '../../src/features/workspace/workspace.js'

const ID = '11111111-2222-4333-8444-555555555555'
const places = new Places(process.env['ROOT'] as string)
const limits = { maxBytes: 10_000_000, maxFiles: 10 }
const workspace = new Workspace({ id: ID, place: places.of(ID), limits, tell: () => {} })

if (process.argv[2] === 'fill') {
  await places.make(ID)
  await workspace.save('old.txt', 'old')
} else {
  const error = await workspace.save('new.txt', Buffer.alloc(1_000_000)).then(
    () => undefined,
    (refused: SessionError) => refused,
  )
  const opened = await workspace.open('old.txt')
  const { code, status } = error ?? {}
  const files = (await workspace.list()).map(({ name }) => name)
  const content = opened && (await text(opened.stream))
  console.log(JSON.stringify({ code, status, files, content, asides: readdirSync(places.of(ID).asides) }))
}
