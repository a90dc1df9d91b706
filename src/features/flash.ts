// Messages for the next page: `sojourn/flash`. What is flashed is kept until it was taken, and of all requests that take it at
// once, in whatever process, one gets it.
//
// Functions and not members of the session: `req.session.flash` is a field, that of connect-flash among others.

import { type Duration, milliseconds } from '../duration.js'
import { type Drawer, inside } from '../session/inside.js'
import type { Session } from '../session/session.js'

/**
 * The types of your flashed values, by name. Add to it once, and `flash()` and `takeFlash()` know them:
 *
 * ```ts
 * declare module 'sojourn/flash' {
 *   interface FlashValues { notice: string }
 * }
 * ```
 */
// biome-ignore lint/suspicious/noEmptyInterface: it is there to be added to
export interface FlashValues {}

/** A name of a flashed value: the declared ones are suggested, any other text of 1 to 80 characters is allowed. */
export type FlashName = (keyof FlashValues & string) | (string & {})

/** The type of a flashed value: as declared in `FlashValues`, `unknown` for the others. */
export type FlashValue<Name extends string> = Name extends keyof FlashValues ? FlashValues[Name] : unknown

/**
 * Keeps a value for the next request that takes it, in the place of one of the same name. It is stored with the response, goes
 * along with `login()`, and is none of the session's fields: no list and no spread shows it. With `ttl` it is gone after that
 * time, taken or not.
 *
 * ```ts
 * flash(req.session, 'notice', 'Saved.')
 * res.redirect('/')
 * ```
 * @throws {SessionError} as `session.set()`; `INVALID_ARGUMENT` for a name or a session that is none.
 */
export function flash<Name extends FlashName>(
  session: Session,
  name: Name,
  value: FlashValue<Name>,
  { ttl }: { ttl?: Duration | undefined } = {},
): void {
  drawerOf(session, name).set(value, ttl === undefined ? {} : { ttlMs: milliseconds(ttl, 'ttl') })
}

/**
 * Takes what was flashed under a name, or `undefined` when there is nothing: at once, and once. Of requests that run at the same time,
 * in one process or many, one gets it. Where nothing was flashed no store is asked.
 *
 * It is gone when the promise resolves: a response that is lost afterwards loses it.
 * @throws {SessionError} as `session.update()`: what was flashed is then still there, or, when the store gave no answer, may be.
 */
export async function takeFlash<Name extends FlashName>(
  session: Session,
  name: Name,
): Promise<FlashValue<Name> | undefined> {
  const drawer = drawerOf<FlashValue<Name>>(session, name)
  if (drawer.get() === undefined) return undefined
  let taken: FlashValue<Name> | undefined
  await drawer.update((value) => {
    taken = value
    return undefined
  })
  return taken
}

function drawerOf<T>(session: Session, name: string): Drawer<T> {
  return inside(session).drawer<T>(`flash.${name}`)
}
