// The public face of `sojourn/activity`, nothing else.
export type {
  Activity,
  ActivityHook,
  ActivityRecorder,
  ActivityRequest,
  SessionActivityType,
} from '../activity-hook.js'
export {
  type ErrorAnswer,
  type ErrorLogger,
  type SessionErrorHandler,
  type SessionErrorHandlerOptions,
  sessionErrorHandler,
} from './error-handler.js'
export { functionSink } from './function-sink.js'
export {
  type ActivityDrop,
  ActivityLog,
  type ActivityLogOptions,
  type ActivityLogStats,
  type ActivitySubject,
  type RecordedActivity,
  type SinkFailure,
  type SinkStats,
} from './log.js'
export { logActivity } from './log-activity.js'
export { type ChildLogger, type SessionLogFields, sessionLogger, sessionMixin } from './logging.js'
export { type MemorySink, type MemorySinkOptions, memorySink } from './memory-sink.js'
export { type PinoLike, type PinoSinkOptions, pinoSink } from './pino-sink.js'
export { type RedisStreamSinkOptions, redisStreamSink } from './redis-sink.js'
export {
  type ActivityReport,
  type ActivityTotals,
  activitiesOf,
  isErrorActivity,
  type PeriodTotals,
  type ReportedBoundary,
  type ReportQuery,
  type TotalsQuery,
} from './reports.js'
export {
  type ActivityArchive,
  type ActivityPage,
  type ActivityPageQuery,
  type ActivityQuery,
  type ActivitySink,
  isArchive,
} from './sink.js'
export { type SqlSinkOptions, sqlSink } from './sql.js'
export {
  activityMigration,
  migrateActivities,
  type SqlDatabase,
  type SqlMigration,
  type SqlTableOptions,
} from './sql-table.js'
