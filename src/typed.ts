// A view of a session's fields through a schema: `session.typed(schema)`.
import { SessionError, type ValidationIssue } from './errors.js'
import type { SessionState } from './session-state.js'

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

/** How often the fields were validated is bounded by how often they changed through the view. */
export function typedSession<T>(state: SessionState, schema: StandardSchema<unknown, T>): TypedSession<T> {
  if (typeof schema?.['~standard']?.validate !== 'function') {
    throw new SessionError('INVALID_ARGUMENT', 'typed() needs a Standard Schema, such as one of zod, valibot, arktype.')
  }
  /** The fields that were read through this view and hold what the schema made of them. */
  const adopted = new Set<string>()

  function validated(fields: Record<string, unknown>): Record<string, unknown> {
    const result = schema['~standard'].validate(fields)
    if (result instanceof Promise) {
      throw new SessionError('INVALID_ARGUMENT', 'typed() needs a schema that validates synchronously.')
    }
    if (result.issues) {
      const [first] = result.issues
      const path = first?.path?.map((part) => String(typeof part === 'object' ? part.key : part)).join('.')
      throw new SessionError('VALIDATION_FAILED', `The session does not fit its schema at ${path ?? 'its root'}.`, {
        issues: result.issues,
      })
    }
    return result.value as Record<string, unknown>
  }

  function read(name: string): unknown {
    if (!adopted.has(name)) {
      const value = validated(plain(state))[name]
      // The handler gets the schema's own copy: from now on that copy is the field, so that changes to it are noticed.
      if (!state.fields.isChanged(name)) state.fields.adopt(name, value)
      else state.fields.set(name, value)
      adopted.add(name)
    }
    return state.fields.get(name)
  }

  return new Proxy({} as TypedSession<T> & object, {
    get: (_target, name) => (typeof name === 'string' && name !== 'then' ? read(name) : undefined),
    set(_target, name, value) {
      if (typeof name !== 'string') return false
      const output = validated({ ...plain(state), [name]: value })
      state.set(name, output[name])
      adopted.add(name)
      return true
    },
    deleteProperty(_target, name) {
      const rest = plain(state)
      delete rest[name as string]
      validated(rest)
      state.delete(name as string)
      adopted.delete(name as string)
      return true
    },
    has: (_target, name) => typeof name === 'string' && name in validated(plain(state)),
    ownKeys: () => Object.keys(validated(plain(state))),
    getOwnPropertyDescriptor: (_target, name) =>
      typeof name === 'string' && name in validated(plain(state))
        ? { value: read(name), writable: true, enumerable: true, configurable: true }
        : undefined,
  })
}

/** The fields as a plain object. Made of entries, so that no field name is special. */
function plain(state: SessionState): Record<string, unknown> {
  return Object.fromEntries(state.fields.names().map((name) => [name, state.fields.get(name)]))
}
