// A view of a session's fields through a schema: `session.typed(schema)`.
import { invalidArgument, SessionError, type ValidationIssue } from '../errors.js'
import type { Fields } from './fields.js'
import { inherited } from './inherited.js'

/** The part of Standard Schema v1 (standardschema.dev) that is used. */
export interface StandardSchema<Input = unknown, Output = Input> {
  readonly '~standard': {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => StandardResult<Output> | Promise<StandardResult<Output>>
    readonly types?: { readonly input: Input; readonly output: Output } | undefined
  }
}

type StandardResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly ValidationIssue[] }

/** The type that a schema's values have after validation. */
export type InferSchemaOutput<S extends StandardSchema> = NonNullable<S['~standard']['types']>['output']

/** The fields of a session, typed by a schema. Reading validates, assigning validates first. */
export type TypedSession<T> = { -readonly [K in keyof T]: T[K] }

/** Fields, and how they are changed where anybody may object. */
interface TypedFields {
  readonly fields: Pick<Fields, 'get' | 'names' | 'input' | 'adopt' | 'schemaOf'>
  set(name: string, value: unknown): void
  delete(name: string): boolean
}

/**
 * A field is validated when it is first read and when it was assigned since; what the schema made of it then is the
 * field's value for the rest of the request. A schema that transforms must accept its own output if fields are to be
 * assigned or altered through the view.
 */
export function typedSession<T>(state: TypedFields, schema: StandardSchema<unknown, T>): TypedSession<T> {
  if (typeof schema?.['~standard']?.validate !== 'function') {
    throw invalidArgument('typed() needs a Standard Schema, such as one of zod, valibot, arktype.')
  }
  const validated = (fields: Record<string, unknown>): Record<string, unknown> =>
    validate(schema, fields, { what: 'The session', by: 'typed()' }) as Record<string, unknown>

  function read(name: string): unknown {
    if (state.fields.schemaOf(name) !== schema) {
      const output = validated(plain(state))
      if (!Object.hasOwn(output, name)) return inherited(name)
      // The handler gets what the schema made: from now on that is the field, so that changes to it are noticed.
      state.fields.adopt(name, output[name], schema)
    }
    return state.fields.get(name)
  }

  return new Proxy({} as TypedSession<T> & object, {
    get: (_target, name) => (typeof name === 'string' && name !== 'then' ? read(name) : undefined),
    set(_target, name, value) {
      if (typeof name !== 'string') return false
      const output = validated({ ...plain(state), [name]: value })
      if (value !== undefined && !Object.hasOwn(output, name)) {
        const issue = { message: 'The schema has no such field.', path: [name] }
        throw new SessionError('VALIDATION_FAILED', `The schema has no field ${name.slice(0, 80)}.`, {
          issues: [issue],
        })
      }
      state.set(name, output[name])
      if (output[name] !== undefined) state.fields.adopt(name, output[name], schema)
      return true
    },
    deleteProperty(_target, name) {
      const rest = plain(state)
      delete rest[name as string]
      validated(rest)
      state.delete(name as string)
      return true
    },
    has: (_target, name) => typeof name === 'string' && Object.hasOwn(validated(plain(state)), name),
    ownKeys: () => Object.keys(validated(plain(state))),
    getOwnPropertyDescriptor: (_target, name) =>
      typeof name === 'string' && Object.hasOwn(validated(plain(state)), name)
        ? { value: read(name), writable: true, enumerable: true, configurable: true }
        : undefined,
    defineProperty: () => false,
    preventExtensions: () => false,
  })
}

/**
 * What a schema makes of a value.
 * @param names for messages: what is validated, and what asked for it
 * @throws {SessionError} `VALIDATION_FAILED` with the schema's issues, `INVALID_ARGUMENT` for a schema that needs a promise
 */
export function validate<T>(
  schema: StandardSchema<unknown, T>,
  value: unknown,
  { what, by }: { what: string; by: string },
): T {
  const result = schema['~standard'].validate(value)
  if (result instanceof Promise) {
    result.catch(() => {})
    throw invalidArgument(`${by} needs a schema that validates synchronously.`)
  }
  if (!result.issues) return result.value
  const [first] = result.issues
  const path = first?.path?.map((part) => String(typeof part === 'object' ? part.key : part)).join('.')
  throw new SessionError('VALIDATION_FAILED', `${what} does not fit its schema at ${path ?? 'its root'}.`, {
    issues: result.issues,
  })
}

/** The fields as a plain object. Made of entries, so that no field name is special. */
function plain(state: TypedFields): Record<string, unknown> {
  const entries = state.fields.names().map((name) => [name, state.fields.input(name)] as const)
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined))
}
