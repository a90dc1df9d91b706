// Field values as express-session stores them: what JSON drops or bends is dropped or bent, with one warning for each field.
import { jsonCodec, type SessionCodec } from '../../record/codec.js'
import { warn } from '../../warn.js'

/** Fields that are warned of; one that is named by what clients send must not fill the memory. */
const MAX_WARNED = 100

/** The codec of a middleware; warnings are its own. */
export function lenientCodec(): SessionCodec {
  const strict = jsonCodec({ maxDepth: 100 })
  const warned = new Set<string>()
  return {
    ...strict,
    encode(value, name) {
      try {
        return strict.encode(value, name)
      } catch (error) {
        const text: string | undefined = JSON.stringify(value)
        if (text === undefined) throw error
        if (!warned.has(name) && warned.size < MAX_WARNED) {
          warned.add(name)
          warn(`${(error as Error).message} It is stored as JSON has it, as express-session does.`, 'lossy_field')
        }
        return text
      }
    },
  }
}
