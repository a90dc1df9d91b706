// The public face of `sojourn/activity`, nothing else.
export type {
  Activity,
  ActivityHook,
  ActivityRecorder,
  ActivityRequest,
  SessionActivityType,
} from '../../events/activity-hook.js'
export {
  type ErrorAnswer,
  type ErrorLogger,
  type SessionErrorHandler,
  type SessionErrorHandlerOptions,
  sessionErrorHandler,
} from './error-handler.js'
export type { ActivityFigures, AnalyticsOptions } from './figures.js'
export { ActivityLog, type ActivityLogStats, type ActivitySubject, type SinkStats } from './log.js'
export { logActivity } from './log-activity.js'
export type { ActivityLogOptions } from './log-options.js'
export { type ChildLogger, type SessionLogFields, sessionLogger, sessionMixin } from './logging.js'
export { activitiesOf } from './pages.js'
export type { RecordedActivity } from './recorded.js'
export {
  type ActivityReport,
  isErrorActivity,
  type ReportedBoundary,
  type ReportedFile,
  type ReportQuery,
} from './reports.js'
export type { ActivityDrop, SinkFailure } from './sink-trouble.js'
export { functionSink } from './sinks/function-sink.js'
export { type MemorySink, type MemorySinkOptions, memorySink } from './sinks/memory-sink.js'
export { type PinoLike, type PinoSinkOptions, pinoSink } from './sinks/pino-sink.js'
export { type RedisStreamSinkOptions, redisStreamSink } from './sinks/redis-sink.js'
export {
  type ActivityArchive,
  type ActivityPage,
  type ActivityPageQuery,
  type ActivityQuery,
  type ActivitySink,
  type ActivitySums,
  isArchive,
  type SessionSums,
  type SessionTurn,
  type SumsQuery,
} from './sinks/sink.js'
export { type SqlSinkOptions, sqlSink } from './sinks/sql.js'
export {
  activityMigration,
  migrateActivities,
  type SqlDatabase,
  type SqlMigration,
  type SqlTableOptions,
} from './sinks/sql-table.js'
export type { ActivityTotals, PeriodTotals, TotalsQuery } from './totals.js'
