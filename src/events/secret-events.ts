// Secrets that change at run time, as events.
import type { Secrets } from '../cookie/secrets.js'
import { SessionEvents } from './events.js'

/** The events of sessions whose cookies these secrets sign. */
export function eventsWith(secrets: Secrets, clock: () => number): SessionEvents {
  const events = new SessionEvents(clock)
  secrets.listen({
    changed: (facts) => events.emit('secretsChanged', facts),
    refused: (error) => events.emit('secretsRefused', { error }),
  })
  return events
}
