// The history of a session's state: what each version has changed, and which of that can be undone and redone.
//
// Each version keeps the steps that lead back from it, nothing else. To undo is to take them, and that makes a version of its own,
// whose steps back are the way to redo. So versions only go up, and whoever changes at the same time loses nothing.

import { bytesOf, type Step } from './changes.js'

/** What made a version. */
export type Kind = 'update' | 'undo' | 'redo' | 'restore'

/** One version as it is stored. What comes last may be missing: who, and what it undoes, redoes or restores. */
type Entry = [at: number, steps: Step[], by?: string | 1 | 0, cause?: `${'u' | 'r' | 'b'}${number}`]

/** The history as it is stored. The last entry is that of the present version, the one before it is one less, and so on. */
export interface StoredHistory {
  /** The present version. */
  v: number
  /** Entries, oldest first. */
  h: Entry[]
  /** The categories that are stored. */
  c?: string[]
  /** Those of them that may be gone some day. */
  t?: string[]
  /** Labels of versions, oldest first. */
  l?: [label: string, version: number][]
}

/** A version with what it has changed. */
export interface Version {
  readonly version: number
  readonly at: number
  readonly kind: Kind
  /** The version that it undoes, redoes or restores. */
  readonly of: number | undefined
  /** Who made it: the session's user (`true`), somebody else by name, or nobody known. */
  readonly by: string | true | undefined
  /** The steps back from it. */
  readonly steps: readonly Step[]
}

/** What makes a version, and who. */
export interface Cause {
  readonly kind: Kind
  readonly of?: number | undefined
  readonly by: string | true | undefined
  readonly at: number
}

const LETTERS = { undo: 'u', redo: 'r', restore: 'b' } as const
const KINDS: Record<string, Kind> = { u: 'undo', r: 'redo', b: 'restore' }

/** The versions that are kept, oldest first. */
export function versionsOf({ v, h }: StoredHistory): Version[] {
  return h.map(([at, steps, by, cause], index) => ({
    version: v - h.length + 1 + index,
    at,
    kind: KINDS[cause?.charAt(0) ?? ''] ?? 'update',
    of: cause === undefined ? undefined : Number(cause.slice(1)),
    by: by === 1 ? true : by || undefined,
    steps,
  }))
}

/** What can be undone next, and what redone. */
export function nextOf(history: StoredHistory): { undo: Version | undefined; redo: Version | undefined } {
  const undoable: Version[] = []
  let redoable: Version[] = []
  for (const version of versionsOf(history)) {
    const isEmpty = version.steps.length === 0
    switch (version.kind) {
      case 'update':
      case 'restore':
        redoable = []
        if (!isEmpty) undoable.push(version)
        break
      case 'undo':
        if (undoable.at(-1)?.version === version.of) undoable.pop()
        if (!isEmpty) redoable.push(version)
        break
      case 'redo':
        if (redoable.at(-1)?.version === version.of) redoable.pop()
        if (!isEmpty) undoable.push(version)
        break
    }
  }
  return { undo: undoable.at(-1), redo: redoable.at(-1) }
}

/** The steps back to a version, in their order, or `null` when the history does not reach it. */
export function stepsTo(history: StoredHistory, version: number): Step[] | null {
  if (version > history.v || version < history.v - history.h.length) return null
  return versionsOf(history)
    .filter((later) => later.version > version)
    .reverse()
    .flatMap(({ steps }) => steps)
}

/** The history with one more version, within its bounds: the oldest goes first. */
export function withVersion(
  history: StoredHistory,
  steps: Step[],
  { kind, of, by, at }: Cause,
  bounds: { keep: number; maxBytes: number },
): StoredHistory {
  const who = by === true ? 1 : by
  const entry: Entry =
    kind === 'update'
      ? who === undefined
        ? [at, steps]
        : [at, steps, who]
      : [at, steps, who ?? 0, `${LETTERS[kind]}${of ?? 0}`]
  return bounded({ ...history, v: history.v + 1, h: [...history.h, entry] }, bounds)
}

/** The history with a label for its present version: a label stands for the last version that was given it. */
export function withLabel(
  history: StoredHistory,
  label: string,
  bounds: { keep: number; maxBytes: number },
): StoredHistory {
  const others = (history.l ?? []).filter(([name]) => name !== label)
  return bounded({ ...history, l: [...others, [label, history.v]] }, bounds)
}

/** The history without what it tells of these categories, which are gone. */
export function without(history: StoredHistory, gone: readonly string[]): StoredHistory {
  if (gone.length === 0) return history
  return {
    ...history,
    h: history.h.map(([at, steps, ...rest]) => [at, steps.filter(([category]) => !gone.includes(category)), ...rest]),
    ...(history.c && { c: history.c.filter((name) => !gone.includes(name)) }),
    ...(history.t && { t: history.t.filter((name) => !gone.includes(name)) }),
  }
}

function bounded(history: StoredHistory, { keep, maxBytes }: { keep: number; maxBytes: number }): StoredHistory {
  let h = keep === 0 ? [] : history.h.slice(-keep)
  const sizes = h.map(bytesOf)
  let bytes = sizes.reduce((sum, size) => sum + size, 0)
  let dropped = 0
  while (bytes > maxBytes) bytes -= sizes[dropped++] as number
  h = h.slice(dropped)
  const { l, ...others } = history
  // A label that nothing leads back to is worth nothing, and neither are more labels than there are versions.
  const labels = l?.filter(([, version]) => version >= history.v - h.length).slice(-keep - 1)
  return { ...others, h, ...(labels !== undefined && labels.length > 0 && { l: labels }) }
}
