// `session.typed()` infers from the schema, for every library that speaks Standard Schema.
import type { Session, StandardSchema } from 'sojourn'
import * as v from 'valibot'
import { z } from 'zod'
import { exactly } from './assert.js'

export function withZod(session: Session): void {
  const view = session.typed(
    z.object({
      theme: z.enum(['light', 'dark']).default('light'),
      visits: z.number(),
      lastSeen: z.coerce.date().optional(),
      tags: z.string().transform((text) => text.split(',')),
    }),
  )
  exactly<'light' | 'dark'>()(view.theme)
  exactly<number>()(view.visits)
  exactly<Date | undefined>()(view.lastSeen)
  exactly<string[]>()(view.tags)
  view.visits++
  view.theme = 'dark'
  // @ts-expect-error not one of the two
  view.theme = 'purple'
  // @ts-expect-error not in the schema
  void view.other
}

export function withValibot(session: Session): void {
  const view = session.typed(
    v.object({
      theme: v.optional(v.picklist(['light', 'dark']), 'light'),
      visits: v.number(),
      note: v.nullable(v.string()),
    }),
  )
  exactly<'light' | 'dark'>()(view.theme)
  exactly<number>()(view.visits)
  exactly<string | null>()(view.note)
  view.note = null
  // @ts-expect-error not a number
  view.visits = 'one'
  // @ts-expect-error not in the schema
  void view.other
}

/** Readonly in the schema's output is writable in the view, since assigning is what it is for. */
export function withOwnSchema(session: Session, schema: StandardSchema<unknown, { readonly a: number }>): void {
  const view = session.typed(schema)
  exactly<number>()(view.a)
  view.a = 1
  // @ts-expect-error not a schema
  session.typed({ a: 'number' })
  // @ts-expect-error not a schema
  session.typed()
}
