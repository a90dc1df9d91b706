// The notes of the Redis store: one string a note.
import type { SessionNotes } from '../../record/notes.js'
import { countOf, isYes, textOrNull } from './replies.js'
import { type Script, script } from './scripts.js'

/** What notes ask of their store. */
interface NoteCalls {
  run(script: Script, key: string, args: (string | number)[]): Promise<unknown>
  get(key: string): Promise<string | null>
  delete(key: string): Promise<unknown>
}

/** Notes on strings whose keys `keyOf` names. */
export function redisNotes(keyOf: (purpose: string, key: string) => string, calls: NoteCalls): SessionNotes {
  return {
    async put(purpose, key, text, { ttlSeconds, ifAbsent = false }) {
      return isYes(await calls.run(PUT, keyOf(purpose, key), [text, ttlSeconds, ifAbsent ? 1 : 0]), 'notes.put')
    },
    async get(purpose, key) {
      return textOrNull(await calls.get(keyOf(purpose, key)), 'notes.get')
    },
    async take(purpose, key) {
      return textOrNull(await calls.run(TAKE, keyOf(purpose, key), []), 'notes.take')
    },
    async delete(purpose, key) {
      countOf(await calls.delete(keyOf(purpose, key)), 'notes.delete')
    },
  }
}

/** ARGV: text, ttl in seconds, 1 to leave one that is there. */
const PUT = script(`
if ARGV[3] == '1' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
`)

const TAKE = script(`
local text = redis.call('GET', KEYS[1])
if text then redis.call('DEL', KEYS[1]) end
return text
`)
