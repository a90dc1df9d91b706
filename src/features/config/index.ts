// The public face of `sojourn/config`, nothing else.
export {
  type ServiceOptions,
  type SessionConfig,
  type SessionManagerConfig,
  serviceOptions,
  serviceOptionsFromEnv,
  sessionOptions,
  sessionOptionsFromEnv,
} from './config.js'
export type { PartsConfig } from './parts.js'
