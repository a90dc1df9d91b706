// `interface SessionFields` types the session's fields, by property and by accessor.
import type { FieldValue, Session } from 'sojourn'
import { exactly } from './assert.js'

interface Item {
  sku: string
  count: number
}

declare module 'sojourn' {
  interface SessionFields {
    userId?: number
    cart?: Item[]
    theme?: 'light' | 'dark'
    note?: string | null
    always: string
  }
}

export function byProperty(session: Session): void {
  exactly<number | undefined>()(session.userId)
  exactly<Item[] | undefined>()(session.cart)
  exactly<'light' | 'dark' | undefined>()(session.theme)
  exactly<string | null | undefined>()(session.note)
  // No session has a field before somebody sets it.
  exactly<string | undefined>()(session.always)

  session.cart ??= []
  session.cart.push({ sku: 'a', count: 1 })
  session.userId = 1
  delete session.userId
  // @ts-expect-error not a number
  session.userId = 'ann'
  // @ts-expect-error not an item
  session.cart = ['a']
  // @ts-expect-error not declared
  session.other = 1
  // @ts-expect-error not declared
  void session.other
  // @ts-expect-error a fact
  session.id = 'a'
  // @ts-expect-error a fact
  session.isNew = true
}

export function get(session: Session): void {
  exactly<number | undefined>()(session.get('userId'))
  exactly<Item[] | undefined>()(session.get('cart'))
  exactly<string | null | undefined>()(session.get('note'))

  // With a default of the field's type, the field's type.
  exactly<number>()(session.get('userId', 0))
  exactly<Item[]>()(session.get('cart', []))
  exactly<'light' | 'dark'>()(session.get('theme', 'light'))
  session.get('cart', []).push({ sku: 'a', count: 1 })
  // With another default, either of the two.
  exactly<number | null>()(session.get('userId', null))
  exactly<number | 'none'>()(session.get('userId', 'none' as const))

  exactly<unknown>()(session.get('other'))
  exactly<unknown>()(session.get('other', 1))
  exactly<unknown>()(session.get('other' as string))
  // @ts-expect-error a name is text
  session.get(1)
}

export function set(session: Session): void {
  exactly<Session>()(session.set('userId', 1))
  session.set('cart', []).set('theme', 'dark').set('note', null)
  session.set('userId', undefined)
  session.set('other', { any: ['thing'] })
  // @ts-expect-error not a number
  session.set('userId', 'ann')
  // @ts-expect-error not an item
  session.set('cart', [{ sku: 'a' }])
  // @ts-expect-error not one of the two
  session.set('theme', 'purple')
  // @ts-expect-error never null
  session.set('userId', null)
  // @ts-expect-error a value is needed; undefined deletes
  session.set('userId')
}

export async function update(session: Session): Promise<void> {
  exactly<number>()(await session.update('userId', (id) => (id ?? 0) + 1))
  exactly<number>()(await session.update('userId', (id = 0) => id + 1))
  exactly<Item[]>()(await session.update('cart', async (cart = []) => [...cart, { sku: 'a', count: 1 }]))
  exactly<undefined>()(await session.update('userId', () => undefined))
  await session.update('userId', (id) => {
    exactly<number | undefined>()(id)
    return id
  })
  await session.update('other', (value) => {
    exactly<unknown>()(value)
    return 1
  })
  // @ts-expect-error not a number
  await session.update('userId', () => 'ann')
  // @ts-expect-error not a number, later
  await session.update('userId', async () => 'ann')
}

export function others(session: Session): void {
  exactly<boolean>()(session.has('userId'))
  exactly<boolean>()(session.has('other'))
  exactly<boolean>()(session.delete('userId'))
  exactly<boolean>()(session.delete('other'))
  exactly<string[]>()(session.keys())
  exactly<unknown[]>()(session.values())
  exactly<[string, unknown][]>()(session.entries())
  exactly<string | number | undefined>()(session.metadata.userId)
  exactly<Date>()(session.expiresAt)
  exactly<number>()(0 as FieldValue<'userId'>)
  exactly<unknown>()(0 as FieldValue<'other'>)
}

/** Promises, or Node callbacks. */
export async function life(session: Session): Promise<void> {
  exactly<Promise<void>>()(session.save())
  exactly<void>()(session.save((error) => exactly<unknown>()(error)))
  exactly<void>()(session.reload(() => {}))
  exactly<void>()(session.touch(() => {}))
  exactly<void>()(session.regenerate(() => {}))
  exactly<void>()(session.destroy(() => {}))
  exactly<Session>()(await session.regenerate())
  exactly<Session>()(await session.regenerate({ keep: ['cart'] }))
  exactly<Promise<void>>()(session.login(1))
  exactly<Promise<void>>()(session.login('ann'))
  exactly<Promise<void>>()(session.setExpiry('30d'))
  exactly<Promise<void>>()(session.setExpiry(60))
  // @ts-expect-error nobody
  await session.login(undefined)
  // @ts-expect-error no duration
  await session.setExpiry(new Date())
}
