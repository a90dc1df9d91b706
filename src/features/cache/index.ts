// Two caches, `sojourn/cache`: one for a request, one for whoever the session belongs to.

export { type PerRequest, type PerRequestOptions, perRequest, requestContext } from './per-request.js'
