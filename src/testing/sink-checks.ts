// The suite that every activity sink must pass, ours and yours: what is written comes back, in order, whole and once. Free
// of any test runner.

import type { Activity } from '../events/activity-hook.js'
import { type ActivityArchive, type ActivitySink, isArchive } from '../features/activity/sinks/sink.js'
import { CONCURRENCY } from './sink-checks/concurrency.js'
import { CONTENTS } from './sink-checks/contents.js'
import { QUERIES } from './sink-checks/queries.js'
import { WRITING } from './sink-checks/writing.js'

/** One check of the suite for sinks. Run it with any test runner: `test(check.name, check.run)`. */
export interface SinkCheck {
  readonly name: string
  /** `'sink'`: takes activities. `'archive'`: gives them back; `run()` does nothing when the sink cannot be read. */
  readonly kind: 'sink' | 'archive'
  /** Rejects, saying what was expected and what was found, when the sink breaks the promise. */
  readonly run: () => Promise<void>
}

/** What the suite needs of a sink. */
export interface SinkConformanceOptions {
  /**
   * Makes a sink that keeps activities of any age; called once a check. The data may be shared: the suite uses fresh IDs
   * and types, times around the present, and times before 1990 for what it prunes.
   */
  readonly createSink: () => ActivitySink | Promise<ActivitySink>
  /**
   * For a sink that is no archive: what it has kept, in its order. Without it nothing that such a sink keeps is checked.
   * An activity that it says again after a batch was written twice may be there twice.
   */
  readonly read?: ((sink: ActivitySink) => readonly Activity[] | Promise<readonly Activity[]>) | undefined
  /** Makes a second sink on the same data, as another process would have it. */
  readonly createPeer?: ((sink: ActivitySink) => ActivitySink | Promise<ActivitySink>) | undefined
  /** Called after each check with every sink made for it. Default: `sink.close()`. */
  readonly destroySink?: ((sink: ActivitySink) => Promise<void>) | undefined
}

/** What `checkSink()` found. */
export interface SinkReport {
  readonly passed: readonly string[]
  readonly failed: readonly { readonly name: string; readonly error: unknown }[]
  /** Whether the sink can be read. The checks of archives are in the report only then. */
  readonly isArchive: boolean
}

/** Runs the whole suite. */
export async function checkSink(options: SinkConformanceOptions): Promise<SinkReport> {
  const sink = await options.createSink()
  const canBeRead = isArchive(sink)
  await destroyerOf(options)(sink)

  const passed: string[] = []
  const failed: { name: string; error: unknown }[] = []
  for (const { name, kind, run } of sinkChecks(options)) {
    if (kind === 'archive' && !canBeRead) continue
    try {
      await run()
      passed.push(name)
    } catch (error) {
      failed.push({ name, error })
    }
  }
  return { passed, failed, isArchive: canBeRead }
}

/** The checks, for a test runner that wants them one by one. */
export function sinkChecks(options: SinkConformanceOptions): SinkCheck[] {
  const destroy = destroyerOf(options)
  const plain = Object.entries(WRITING).map(
    ([name, check]): SinkCheck => ({
      name,
      kind: 'sink',
      async run() {
        const sink = await options.createSink()
        try {
          const { read } = options
          await check(sink, read && (() => Promise.resolve(read(sink))))
        } finally {
          await destroy(sink)
        }
      },
    }),
  )
  const archive = (prefix: string, isShared: boolean): SinkCheck[] =>
    Object.entries(isShared ? CONCURRENCY : { ...CONTENTS, ...QUERIES, ...CONCURRENCY }).map(([name, check]) => ({
      name: prefix + name,
      kind: 'archive',
      async run() {
        const sink = await options.createSink()
        try {
          if (!isArchive(sink)) return
          const peer = isShared && options.createPeer ? await options.createPeer(sink) : sink
          try {
            await check(sink, peer as ActivityArchive)
          } finally {
            if (peer !== sink) await destroy(peer)
          }
        } finally {
          await destroy(sink)
        }
      },
    }))
  return [...plain, ...archive('', false), ...(options.createPeer ? archive('across processes: ', true) : [])]
}

function destroyerOf(options: SinkConformanceOptions): (sink: ActivitySink) => Promise<void> {
  return options.destroySink ?? (async (sink) => sink.close?.())
}
