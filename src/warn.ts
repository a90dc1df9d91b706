// Process warnings of ours: what nobody else would be told.

/** A process warning of ours; `code` tells them apart. */
export function warn(message: string, code: string): void {
  process.emitWarning(message, { type: 'SojournWarning', code: `SOJOURN_${code.toUpperCase()}` })
}

/** The warning that a function of the application's failed where it must not harm anything. */
export function warnOfFailure(what: string, error: unknown): void {
  warn(`${what} failed: ${error instanceof Error ? error.message : String(error)}`, 'listener')
}

const warned = new WeakMap<object, Set<string>>()

/** The same, but once for `owner`. */
export function warnOnce(owner: object, code: string, message: string): void {
  const codes = warned.get(owner) ?? new Set()
  if (codes.has(code)) return
  warned.set(owner, codes.add(code))
  warn(message, code)
}
