// What every object has, for sessions: `String(session)` and its like go on working although no field is named so.
//
// An application may name fields by what a client sends: `req.session[a][b] = value`. So nothing that all sessions share, or all
// objects, may be reached by a name and be altered: neither `Object.prototype` and its functions nor `constructor`, which leads
// to a prototype.

const METHODS = {
  toString(): string {
    return Object.prototype.toString.call(this)
  },
  toLocaleString(): string {
    return Object.prototype.toString.call(this)
  },
  valueOf(): unknown {
    return this
  },
  hasOwnProperty(name: PropertyKey): boolean {
    return Object.hasOwn(this, name)
  },
  propertyIsEnumerable(name: PropertyKey): boolean {
    return Object.hasOwn(this, name)
  },
  isPrototypeOf(): boolean {
    return false
  },
}

freezeMethods(METHODS)
const INHERITED = new Map<string, unknown>(Object.entries(METHODS))

/** What every object has under this name; `undefined` for all other names, `constructor` and `__proto__` among them. */
export function inherited(name: string): unknown {
  return INHERITED.get(name)
}

/** Makes the functions of an object such that nobody can put anything on them. */
export function freezeMethods(owner: object): void {
  for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(owner))) {
    if (typeof value === 'function' && name !== 'constructor') Object.freeze(value)
  }
}
