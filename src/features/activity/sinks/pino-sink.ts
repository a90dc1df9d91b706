// The pino sink: activities as log lines.

import { SessionError } from '../../../errors.js'
import type { Activity } from '../../../events/activity-hook.js'
import type { ActivitySink } from './sink.js'

/** The one member of a pino logger that is called: that of the level. */
export type PinoLike<Level extends string = string> = {
  readonly [level in Level]: (fields: object, message: string) => void
}

/** What `pinoSink()` takes beside a logger. */
export interface PinoSinkOptions<Level extends string> {
  /**
   * The level of the lines, or what says it of each activity.
   * @default 'info'
   */
  readonly level?: Level | ((activity: Activity) => Level) | undefined
}

type PinoLevel = 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace'

/**
 * A sink that logs each activity as one line: `msg` is the type, `sessionId` the logical ID, as in the other lines of the
 * request, and `activity` the whole of it with its time in ISO 8601. It cannot be read. Lines are written at the end of the
 * turn of the event loop; whether they are flushed is up to the logger.
 * @throws {SessionError} `INVALID_OPTION` when the logger has no such level.
 */
export function pinoSink<Level extends string = PinoLevel>(
  logger: PinoLike<NoInfer<Level>>,
  { level = 'info' as Level }: PinoSinkOptions<Level> = {},
): ActivitySink {
  const needed = typeof level === 'function' ? [] : [level]
  for (const name of needed) {
    if (typeof (logger as Record<string, unknown> | null)?.[name] !== 'function') {
      throw new SessionError('INVALID_OPTION', `pinoSink: the logger has no level "${name}"; give a pino logger.`)
    }
  }
  return {
    name: 'pino',
    isImmediate: true,
    write(activities) {
      for (const activity of activities) {
        const name = typeof level === 'function' ? level(activity) : level
        logger[name](lineOf(activity), printable(activity.type))
      }
    },
  }
}

function lineOf({ id, at, type, logicalId, sessionId, userId, details, request }: Activity): object {
  const activity = { id, at: at.toISOString(), type, logicalId, sessionId, userId, details, request }
  return logicalId === undefined ? { activity } : { sessionId: logicalId, activity }
}

/** JSON escapes line feeds and their like, but not those of Unicode, which a pretty printer may break a line at. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029]/gu, '\u{fffd}')
}
