// Endings that are heard everywhere, and the sockets that they close: `sojourn/live`.

export { type ClosableSocket, closeOnEnd, isSameOrigin, type OriginOptions } from './sockets.js'
export { type EndingsWatch, type WatchOptions, watchEndings } from './watch.js'
