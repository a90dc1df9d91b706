// What has changed between two values, as the steps that lead back: what is kept of a change is what changed, not a copy of the whole.
import { isDeepStrictEqual } from 'node:util'

/** Keys of objects and indexes of arrays, from a category down. */
export type Path = readonly (string | number)[]

/**
 * One step back, in a category: a value put where it was, one removed where none was, or items of an array in the place of as
 * many as there are now.
 */
export type Step =
  | readonly [category: string, path: Path, value: unknown]
  | readonly [category: string, path: Path]
  | readonly [category: string, path: Path, start: number, count: number, items: readonly unknown[]]

type Plain = Record<string, unknown>

/** The steps that make `before` of `after`. */
export function stepsBack(category: string, before: Plain, after: Plain): Step[] {
  return objectSteps(category, [], before, after)
}

/** Takes steps in `root`, the value of their category, which is altered. */
export function takeStep(root: Plain, step: Step): void {
  const path = [...step[1]]
  const isSplice = step.length === 5
  const last = isSplice ? undefined : path.pop()
  let at: unknown = root
  for (const key of path) at = isContainer(at) && Object.hasOwn(at, key) ? at[key as keyof typeof at] : undefined
  if (isSplice) {
    if (Array.isArray(at)) at.splice(step[2], step[3], ...(copyOf(step[4]) as unknown[]))
  } else if (isContainer(at) && last !== undefined) {
    if (step.length === 2) delete at[last as keyof typeof at]
    else Object.defineProperty(at, last, { value: copyOf(step[2]), ...ORDINARY })
  }
}

/** A copy whose objects and arrays can be altered. What a codec keeps as an object of another kind is copied where it can be. */
export function copyOf<T>(value: T): T {
  if (Array.isArray(value)) return value.map(copyOf) as T
  if (isPlain(value)) return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, copyOf(item)])) as T
  if (value instanceof Date) return new Date(value) as T
  if (value instanceof Map) return new Map([...value].map(([key, item]) => [key, copyOf(item)])) as T
  if (value instanceof Set) return new Set([...value].map(copyOf)) as T
  return value
}

/** Makes a value one that nobody can alter, with all objects and arrays in it. */
export function frozen<T>(value: T): T {
  if ((!Array.isArray(value) && !isPlain(value)) || Object.isFrozen(value)) return value
  for (const item of Object.values(value as object)) frozen(item)
  return Object.freeze(value)
}

/** Whether this is an object as literals and JSON make them. */
export function isPlain(value: unknown): value is Plain {
  if (typeof value !== 'object' || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

/** How many bytes a value takes in a store, about. */
export function bytesOf(value: unknown): number {
  const text = JSON.stringify(value, (_key, item) => (typeof item === 'bigint' ? String(item) : item))
  return text === undefined ? 0 : Buffer.byteLength(text)
}

const ORDINARY = { writable: true, enumerable: true, configurable: true }

function objectSteps(category: string, path: Path, before: Plain, after: Plain): Step[] {
  const steps: Step[] = []
  for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const at = [...path, key]
    // A property that is undefined is absent, as in JSON.
    const was = Object.hasOwn(before, key) ? before[key] : undefined
    const is = Object.hasOwn(after, key) ? after[key] : undefined
    if (was === undefined) {
      if (is !== undefined) steps.push([category, at])
    } else steps.push(...valueSteps(category, at, was, is))
  }
  return steps
}

function valueSteps(category: string, path: Path, was: unknown, is: unknown): Step[] {
  if (isDeepStrictEqual(was, is)) return []
  const whole: Step[] = [[category, path, was]]
  const finer =
    isPlain(was) && isPlain(is)
      ? objectSteps(category, path, was, is)
      : Array.isArray(was) && Array.isArray(is)
        ? arraySteps(category, path, was, is)
        : whole
  return finer !== whole && bytesOf(finer) < bytesOf(whole) ? finer : whole
}

function arraySteps(category: string, path: Path, was: unknown[], is: unknown[]): Step[] {
  const shorter = Math.min(was.length, is.length)
  let start = 0
  while (start < shorter && isDeepStrictEqual(was[start], is[start])) start++
  let end = 0
  while (end < shorter - start && isDeepStrictEqual(was.at(-1 - end), is.at(-1 - end))) end++
  const items = was.slice(start, was.length - end)
  const count = is.length - end - start
  if (items.length === 1 && count === 1) return valueSteps(category, [...path, start], items[0], is[start])
  return [[category, path, start, count, items]]
}

function isContainer(value: unknown): value is object {
  return Array.isArray(value) || isPlain(value)
}
