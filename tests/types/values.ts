// A field whose type JSON would change is an error where it is used, unless the codec keeps that type.
import type { ChangedByJson, Session } from 'sojourn'
import { exactly } from './assert.js'

declare class Decimal {
  plus(other: Decimal): Decimal
}

interface Tree {
  name: string
  children: Tree[]
}

declare module 'sojourn' {
  interface SessionFields {
    since?: Date
    seen?: Map<string, number>
    visits?: { at: Date; path: string }[]
    total?: bigint
    bytes?: Uint8Array
    run?: () => void
    price?: Decimal
    tree?: Tree
    unknown?: unknown
    pair?: [string, number | null]
    record?: Record<string, string | boolean>
    brand?: string & { readonly brand: 'id' }
  }
  interface CodecTypes {
    decimal: Decimal
  }
}

export function changed(session: Session): void {
  // @ts-expect-error a Date comes back as text
  session.since = new Date()
  // @ts-expect-error nor can it be read as one
  session.since?.getTime()
  // @ts-expect-error by accessor neither
  session.set('since', new Date())
  // @ts-expect-error a Map
  session.seen = new Map()
  // @ts-expect-error a Date inside
  session.visits = [{ at: new Date(), path: '/' }]
  // @ts-expect-error a bigint
  session.total = 1n
  // @ts-expect-error bytes
  session.bytes = new Uint8Array()
  // @ts-expect-error a function
  session.set('run', () => {})
  exactly<ChangedByJson<Date> | undefined>()(session.since)
  exactly<ChangedByJson<Date> | undefined>()(session.visits)
}

export function kept(session: Session, price: Decimal): void {
  session.price = price
  exactly<Decimal | undefined>()(session.get('price'))
  session.tree = { name: 'a', children: [{ name: 'b', children: [] }] }
  exactly<Tree | undefined>()(session.get('tree'))
  session.unknown = new Date()
  session.pair = ['a', null]
  session.record = { a: true }
  session.brand = 'x' as string & { readonly brand: 'id' }
}
