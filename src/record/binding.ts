// Texts that only the session can have had that they are stored in: where a codec binds them, the session keeps a random text for
// it, from its beginning on and under whatever ID it goes on. A field of its own, so that it is stored and merged as one.
import { randomBytes } from 'node:crypto'
import type { SessionCodec } from './codec.js'
import { hiddenField, isOwnField, ownField } from './hidden-fields.js'
import { endOf, textOf, withEnd } from './lifetime.js'
import type { SessionContext, SessionData } from './session-data.js'

/** The field that holds it, as it is. */
export const BINDING = ownField('binding')

const BINDING_BYTES = 16

type Texts = ReadonlyMap<string, string>

/** What a new session is bound to; `undefined` where the codec binds nothing. */
export function newBinding(codec: SessionCodec): string | undefined {
  return codec.forSession === undefined ? undefined : randomBytes(BINDING_BYTES).toString('base64url')
}

/** The fields of a session that begins, with what they are bound to. */
export function withBinding(fields: Texts, binding: string | undefined): Texts {
  return binding === undefined || fields.has(BINDING) ? fields : new Map([...fields, [BINDING, binding]])
}

/** The codec for the texts of one session. Those of sessions from before the codec are bound to nothing. */
export function codecOf(codec: SessionCodec, fields: Texts): SessionCodec {
  return codec.forSession === undefined ? codec : codec.forSession(fields.get(BINDING) ?? '')
}

/**
 * Stored texts as they are under another codec, each with its end. Those that cannot be opened are left out.
 */
export function resealed(texts: Iterable<readonly [string, string]>, from: SessionCodec, to: SessionCodec): Texts {
  const all = new Map<string, string>()
  for (const [name, stored] of texts) {
    if (isOwnField(name)) {
      all.set(name, stored)
      continue
    }
    const text = textOf(stored)
    try {
      const opened = from.open === undefined ? text : from.open(text, name)
      all.set(name, withEnd(to.seal === undefined ? opened : to.seal(opened, name), endOf(stored)))
    } catch {
      // Who reads the field is told.
    }
  }
  return all
}

/** What is known of a client as it is stored: each text sealed where the codec wants that. */
export function sealedContext(
  context: SessionContext | undefined,
  codec: SessionCodec,
  fields: Texts,
): SessionContext | undefined {
  if (context === undefined || codec.sealsContext !== true) return context
  const own = codecOf(codec, fields)
  return mapped(context, (text, name) => (own.seal === undefined ? text : own.seal(text, name)))
}

/** What of a session is kept as its successor begins: what goes over is bound to what it was bound to. */
export function keptWithBinding(
  { keep, isFresh = false }: { keep: 'all' | readonly string[]; isFresh?: boolean },
  codec: SessionCodec,
): 'all' | readonly string[] {
  return keep === 'all' || isFresh || codec.forSession === undefined ? keep : [...keep, BINDING]
}

/** What the successor of a session keeps of the client, as it is stored: of a new one, or of the one before. */
export function contextAfter(
  record: SessionData,
  successor: { context?: SessionContext | undefined; isFresh?: boolean; set?: Texts | undefined },
  codec: SessionCodec,
): SessionContext | undefined {
  const { context, isFresh = false, set } = successor
  if (context === undefined) return isFresh ? undefined : record.context
  return sealedContext(context, codec, isFresh && set !== undefined ? set : record.fields)
}

/** What was known of the client of a session; what cannot be opened is left out. */
export function contextOf({ context, fields }: SessionData, codec: SessionCodec): SessionContext {
  if (context === undefined) return NO_CONTEXT
  if (codec.sealsContext !== true) return context
  const own = codecOf(codec, fields)
  return mapped(context, (text, name) => {
    try {
      return own.open === undefined ? text : own.open(text, name)
    } catch {
      return undefined
    }
  })
}

/** What is known of a client of which nothing is recorded. */
export const NO_CONTEXT: SessionContext = Object.freeze({})

function mapped(context: SessionContext, change: (text: string, name: string) => string | undefined): SessionContext {
  const texts = Object.entries(context).map(([name, text]) => [
    name,
    change(text as string, hiddenField(`context.${name}`)),
  ])
  return Object.freeze(Object.fromEntries(texts.filter(([, text]) => text !== undefined)) as SessionContext)
}
