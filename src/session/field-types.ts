// The types of a session's fields, as the application declares them, and which of them survive being stored.

/**
 * The types of your session's fields. Add to it once, and `req.session.cart`, `get`, `set` and `update` know them:
 *
 * ```ts
 * declare module 'sojourn' {
 *   interface SessionFields { userId?: number; cart?: string[] }
 * }
 * ```
 *
 * A type that JSON would change, such as `Date`, `Map` or `bigint`, is an error where the field is used, see `CodecTypes`.
 */
// biome-ignore lint/suspicious/noEmptyInterface: it is there to be added to
export interface SessionFields {}

/**
 * The types that your `codec` keeps and JSON does not. The names of the members are yours:
 *
 * ```ts
 * declare module 'sojourn' {
 *   interface CodecTypes { date: Date; map: Map<unknown, unknown> }
 * }
 * ```
 */
// biome-ignore lint/suspicious/noEmptyInterface: it is there to be added to
export interface CodecTypes {}

/** Stands where a field was declared with a type that would not come back from JSON as it was. */
export interface ChangedByJson<T> {
  readonly 'JSON changes this type: store text or a number, or give session() a codec and add the type to CodecTypes': T
}

/** The type of a field: as declared in `SessionFields`, `unknown` for the others. */
export type FieldValue<K extends string> = K extends keyof SessionFields
  ? StorableValue<Exclude<SessionFields[K], undefined>>
  : unknown

/** The declared fields as properties of a session: any of them may be absent. */
export type FieldProperties = { [K in keyof SessionFields]?: StorableValue<SessionFields[K]> }

/** A declared type, or what says why it cannot be one. */
type StorableValue<T> = [Bent<T>] extends [never] ? T : ChangedByJson<Bent<T>>

/** What JSON would drop or change in a type; `never` when there is nothing. A type may refer to itself: eight levels are looked at. */
type Bent<T, Depth extends 0[] = []> = Depth['length'] extends 8
  ? never
  : unknown extends T
    ? never
    : T extends CodecTypes[keyof CodecTypes] | string | number | boolean | null | undefined
      ? never
      : T extends bigint | symbol | ((...args: never[]) => unknown)
        ? T
        : T extends readonly (infer Item)[]
          ? Bent<Item, [...Depth, 0]>
          : HasMethod<T> extends true
            ? T
            : { [K in keyof T]-?: Bent<T[K], [...Depth, 0]> }[keyof T]

/** Data has none; a `Date`, a `Map` and a typed array do. */
type HasMethod<T> = true extends {
  [K in keyof T]-?: T[K] extends (...args: never[]) => unknown ? true : never
}[keyof T]
  ? true
  : false
