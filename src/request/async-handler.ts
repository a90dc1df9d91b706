// For frameworks that do not look at what a handler returns: Express 4 and Connect.

/**
 * A handler whose rejection goes to `next`, as it does by itself on Express 5. Express 4 and Connect do not look at the promise of
 * an `async` handler: when `await req.session.login()` rejects there, Node ends the process.
 *
 * ```ts
 * app.post('/login', asyncHandler(async (req, res) => { await req.session.login('ann'); res.send('Welcome.') }))
 * ```
 */
export function asyncHandler<Req, Res, Next extends (error?: unknown) => void>(
  handler: (req: Req, res: Res, next: Next) => unknown,
): (req: Req, res: Res, next: Next) => void {
  return function asyncHandlerGuard(req, res, next) {
    void run(req, res, next)
  }

  async function run(req: Req, res: Res, next: Next): Promise<void> {
    try {
      await handler(req, res, next)
    } catch (error) {
      next(error)
    }
  }
}
