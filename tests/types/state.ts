// The types of `sojourn/state`: of a schema, as declared, or any object.
import type { Session } from 'sojourn'
import { sessionState } from 'sojourn/state'
import { z } from 'zod'
import { exactly } from './assert.js'

declare module 'sojourn/state' {
  interface StateCategories {
    preferences: { theme: 'light' | 'dark'; sizes: number[] }
  }
}
declare const session: Session

const state = sessionState(session, {
  categories: {
    form: z.object({ name: z.string(), at: z.date().optional() }),
    draft: { schema: z.object({ text: z.string() }), ttl: '10m' },
    preferences: { until: 'login' },
    any: {},
  },
  defaults: { preferences: { theme: 'light', sizes: [1] } },
})

exactly<string | undefined>()(state.get('form', 'name'))
exactly<string | undefined>()(state.get('draft').text)
exactly<'light' | 'dark'>()(state.get('preferences').theme)
exactly<readonly number[] | undefined>()(state.get('preferences', 'sizes'))
exactly<unknown>()(state.get('any', 'what'))
exactly<Promise<number>>()(state.update('form', 'name', 'Ann'))
exactly<Promise<number | null>>()(state.undo())
void state.update('form', (form) => {
  exactly<string | undefined>()(form.name)
  form.at = new Date()
})
void state.update('preferences', ({ sizes }) => ({ theme: 'dark' as const, sizes: [...sizes, 2] }))

// @ts-expect-error there is no such category
state.get('from')
// @ts-expect-error nor such a key
void state.update('form', 'names', 'Ann')
// @ts-expect-error nor is this a name
void state.update('form', 'name', 1)
// @ts-expect-error what is read cannot be altered
state.get('preferences').sizes.push(2)
// @ts-expect-error a default that is none
sessionState(session, { categories: { preferences: {} }, defaults: { preferences: { theme: 'pink', sizes: [] } } })

// Where no categories are named, those that are declared count.
const declared = sessionState(session)
exactly<'light' | 'dark' | undefined>()(declared.get('preferences', 'theme'))
// @ts-expect-error not declared
declared.get('form')
