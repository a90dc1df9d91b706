// A member of a session that is read as a flag: what the compiler finds, and with `// found`, what a linter finds on top of it.
import type { Session } from 'sojourn'

export function asFlags(session: Session): readonly unknown[] {
  // @ts-expect-error a method is true for everybody
  if (session.login) return []
  // @ts-expect-error the same
  const byChoice = session.logout ? 1 : 2
  // @ts-expect-error the same
  const both = session.login && session.isNew
  if (!session.login) return [] // found
  const negated = !session.logout || session.isNew // found
  // As a field of that name, and as a call, it is right.
  if (session.get('login') === true) return []
  void session.logout()
  return [byChoice, both, negated]
}
