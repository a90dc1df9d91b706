// What a session holds to protect forms, and for nobody else: it does not go over to a new session ID. Who planted an anonymous
// session knows it, and who stole a session does, too; after a login or another proof it must be worth nothing.
import type { FieldChanges } from './fields.js'

/** What goes over to another session ID: `'all'` but what protects forms, or the fields of these names. */
export type Kept = 'all' | readonly string[]

/**
 * Where packages for CSRF protection keep their token or secret in a session: csrf-sync, csurf and its successors, lusca,
 * @fastify/csrf-protection, and the same by hand.
 */
const FIELDS: readonly string[] = ['csrfToken', 'csrfSecret', '_csrfSecret', '_csrf', '_csrfToken']

/** The drawers that features of this process have opened as such. Few: a name is a feature's, not a client's. */
const drawers = new Set<string>()

/** Notes that a feature's hidden field does not go over to a new session ID. */
export function staysBehind(field: string): void {
  drawers.add(field)
}

/** Those of features that what follows by another login does not have. */
const ofLogins = new Set<string>()

/** Notes that a feature's hidden field belongs to one login. */
export function endsWithLogin(field: string): void {
  ofLogins.add(field)
}

/** The fields that belong to one login. */
export function fieldsOfLogin(): readonly string[] {
  return [...ofLogins]
}

/** The fields that do not go over although all are kept; those that the application names do. */
export function fieldsLeftBehind(): string[] {
  return [...FIELDS, ...drawers]
}

/** Of the changes that a request has made, those that go over. */
export function keptOf(changes: FieldChanges, keep: Kept): FieldChanges {
  const left = fieldsLeftBehind()
  const goesOver = (name: string): boolean => (keep === 'all' ? !left.includes(name) : keep.includes(name))
  return { set: new Map([...changes.set].filter(([name]) => goesOver(name))), delete: changes.delete }
}
