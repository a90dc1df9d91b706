// The public face of `sojourn/config`, nothing else.
export { type SessionManagerConfig, sessionOptions, sessionOptionsFromEnv } from './config.js'
