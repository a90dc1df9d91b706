// What a server says of a failure differs between Redis and Valkey and between versions; the word at its beginning does not.
import { expect, test } from '@jest/globals'
import { reasonOf } from '../../../src/stores/redis/setup.js'
import { REDIS_ERRORS } from '../../support/redis-errors.js'

/** The store sends the script then, and tells nobody. */
const MENDED = 'NOSCRIPT'

test.each(Object.entries(REDIS_ERRORS))(
  'the error %s of a server is known by its first word, and told with its reason',
  async (word, { provoke }) => {
    const said = await provoke()
    expect(said).toMatch(new RegExp(`^${word} `))
    if (word !== MENDED) expect(reasonOf(new Error(said))).toMatch(new RegExp(`^${word}:`))
  },
  60_000,
)
