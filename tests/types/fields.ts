import type { Request } from 'express'

declare module 'sojourn' {
  interface SessionFields {
    userId?: number
    cart?: string[]
  }
}
export function typed(req: Request): void {
  const a: number | undefined = req.session.userId
  req.session.cart ??= []
  req.session.cart.push('x')
  // @ts-expect-error
  req.session.userId = 'x'
  // @ts-expect-error
  req.session.set('userId', 'x')
  req.session.set('userId', 1)
  req.session.set('other', 1)
  void a
}
