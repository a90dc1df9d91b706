// For frameworks that do not look at what a handler returns: Express 4 and Connect.

/**
 * A handler whose rejection goes to `next`, as it does by itself on Express 5. Express 4 and Connect do not look at the promise of
 * an `async` handler: when `await req.session.login()` rejects there, Node ends the process.
 *
 * ```ts
 * app.post('/login', asyncHandler(async (req, res) => { await req.session.login('ann'); res.send('Welcome.') }))
 * ```
 */
// biome-ignore lint/suspicious/noExplicitAny: the framework says what its handlers get, by where this is used
export function asyncHandler<Handler extends (req: any, res: any, next: any) => unknown>(handler: Handler): Handler {
  async function asyncHandlerGuard(req: unknown, res: unknown, next: (error?: unknown) => void): Promise<void> {
    try {
      await handler(req, res, next)
    } catch (error) {
      next(error)
    }
  }
  return asyncHandlerGuard as Handler
}
