// What a session keeps of the device that it is bound to: one drawer, with a short text that every request of it reads.
import type { SessionManager } from '../../manager/manager.js'
import { type Drawer, type Inside, inside } from '../../session/inside.js'
import type { Session } from '../../session/session.js'
import type { DeviceAlgorithm } from './proof.js'

/** What a session is bound to. Times in milliseconds since the epoch. */
export interface Device {
  /** The name of the registration, as the browser knows it: no secret. See `newDeviceId()`. */
  readonly id: string
  readonly boundAt: number
  /** When it last proved that it has the key. */
  readonly provedAt: number
  /** When the last challenge that was used had been issued: those from before are void. */
  readonly usedAt: number
  readonly algorithm: DeviceAlgorithm
  /** The public key, as `isSignedBy()` takes it. */
  readonly key: string
}

const DRAWER = 'device-bound'

/** The device of a session; `undefined` while it has none. */
export function deviceIn(within: Inside): Device | undefined {
  return deviceFrom(drawerIn(within).get())
}

/** Whether a session has a device of which nothing can be read: nobody can prove then that it is theirs. */
export function isDeviceUnreadable(within: Inside): boolean {
  return drawerIn(within).isUnreadable()
}

/** As much of it as every request needs. */
export function registrationIn(within: Inside): Pick<Device, 'id' | 'boundAt'> | undefined {
  const text = drawerIn(within).get()
  if (text === undefined) return undefined
  const [id = '', boundAt] = text.split(' ', 2)
  return { id, boundAt: Number(boundAt) }
}

/**
 * Binds a session to a device, across processes: `false` when it is bound already. Stored when the promise resolves.
 * @throws {SessionError} as `session.update()`
 */
export function bind(session: Session, device: Device): Promise<boolean> {
  const within = inside(session)
  drawerIn(within)
  return within.updateGroup(DRAWER, (drawers) => {
    if (drawers.get(DRAWER) !== undefined) return false
    drawers.set(DRAWER, textOf(device))
    return true
  })
}

/**
 * What is bound to the session of this ID, or to what it became; `null` when it is over, and `'unknown'` when that cannot be told.
 * @throws {SessionError} when the store does not answer
 */
export async function findDevice(
  manager: SessionManager,
  sessionId: string,
): Promise<{ sessionId: string; device: Device | undefined } | 'unknown' | null> {
  const found = await manager.drawers.find<string>(sessionId, DRAWER)
  if (found.status === 'unreadable') return 'unknown'
  return found.status === 'live' ? { sessionId: found.id, device: deviceFrom(found.value) } : null
}

/**
 * Takes note of a proof, across processes: `false` when its challenge or a later one was used before, or the session has ended. Stored
 * when the promise resolves.
 * @throws {SessionError} when the store does not answer
 */
export async function takeProof(
  manager: SessionManager,
  { sessionId, id, usedAt, provedAt }: Pick<Device, 'id' | 'usedAt' | 'provedAt'> & { sessionId: string },
): Promise<boolean> {
  const { hasChanged } = await manager.drawers.update<string>(sessionId, DRAWER, (text) => {
    const device = deviceFrom(text)
    return device?.id === id && usedAt > device.usedAt ? textOf({ ...device, usedAt, provedAt }) : undefined
  })
  return hasChanged
}

/** Another login has a key of its own; renewals, and what goes on under another ID, keep it. */
function drawerIn(within: Inside): Drawer<string> {
  return within.drawer<string>(DRAWER, { endsWithLogin: true })
}

function deviceFrom(text: string | undefined): Device | undefined {
  if (text === undefined) return undefined
  const [id = '', boundAt, provedAt, usedAt, algorithm, key = ''] = text.split(' ')
  return {
    id,
    boundAt: Number(boundAt),
    provedAt: Number(provedAt),
    usedAt: Number(usedAt),
    algorithm: algorithm as DeviceAlgorithm,
    key,
  }
}

/** One text: an object would be encoded again with each request, to see whether somebody has changed it. */
function textOf({ id, boundAt, provedAt, usedAt, algorithm, key }: Device): string {
  return [id, boundAt, provedAt, usedAt, algorithm, key].join(' ')
}
