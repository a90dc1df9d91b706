// The public face of `sojourn/activity`, nothing else.
export type {
  Activity,
  ActivityHook,
  ActivityRecorder,
  ActivityRequest,
  SessionActivityType,
} from '../activity-hook.js'
export { type MemorySink, type MemorySinkOptions, memorySink } from './memory-sink.js'
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
