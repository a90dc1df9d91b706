// Tools for tests, yours and ours: the suites that every store and every sink must pass, a clock that stands still, and a
// store that fails on demand. Free of any test runner.
import { abilitiesOf, type SessionStore, type StoreAbility } from '../record/store.js'
import type { Check } from './samples.js'
import { ABILITY_CHECKS } from './store-checks/abilities.js'
import { CHANGES } from './store-checks/changes.js'
import { CONCURRENCY } from './store-checks/concurrency.js'
import { ENDINGS, REGENERATIONS } from './store-checks/endings.js'
import { KEEPING } from './store-checks/keeping.js'
import { ATOMIC_LIMITS, BASIC_LIMITS } from './store-checks/limits.js'

export type { StoreAbility } from '../record/store.js'
export { type CacheStorageCheck, type CacheStorageCheckOptions, cacheStorageChecks } from './cache-checks.js'
export { FakeClock } from './fake-clock.js'
export { FaultyStore, type StoreFault, type StoreOperation } from './faulty-store.js'
export {
  checkSink,
  type SinkCheck,
  type SinkConformanceOptions,
  type SinkReport,
  sinkChecks,
} from './sink-checks.js'

/** One check of the conformance suite. Run it with any test runner: `test(check.name, check.run)`. */
export interface ConformanceCheck {
  readonly name: string
  /** What a store that passes may claim. */
  readonly guarantee: StoreGuarantee
  /** The ability that is checked, if it is one that a store may lack: `run()` does nothing then. */
  readonly ability?: StoreAbility | undefined
  /** Rejects, saying what was expected and what was found, when the store breaks the promise. */
  readonly run: () => Promise<void>
}

/**
 * `'basic'`: keeps and forgets records whole. `'atomic'`: concurrent operations of one process neither lose updates nor
 * bring back what ended. `'shared'`: the same across processes.
 */
export type StoreGuarantee = 'basic' | 'atomic' | 'shared'

/** What the suite needs of a store. */
export interface ConformanceOptions {
  /** Makes a store; called once a check, and once more by `checkStore()`. The suite uses fresh session IDs, so the data may be shared. */
  readonly createStore: () => SessionStore | Promise<SessionStore>
  /**
   * Makes a second store on the same data, as another process would have it. Without it nothing is checked across
   * processes, and the report says so.
   */
  readonly createPeer?: ((store: SessionStore) => SessionStore | Promise<SessionStore>) | undefined
  /** Called after each check with every store made for it. Default: `store.close()`. */
  readonly destroyStore?: ((store: SessionStore) => Promise<void>) | undefined
}

/** What `checkStore()` found. */
export interface ConformanceReport {
  readonly passed: readonly string[]
  readonly failed: readonly { readonly name: string; readonly error: unknown }[]
  /** The guarantees of which every check passed. `'shared'` appears only when `createPeer` was given. */
  readonly guarantees: readonly StoreGuarantee[]
  /** The abilities that the store has and of which every check passed. Without one its checks are not in the report. */
  readonly abilities: readonly StoreAbility[]
}

/** Runs the whole suite and reports which guarantees the store gives. */
export async function checkStore(options: ConformanceOptions): Promise<ConformanceReport> {
  const store = await options.createStore()
  const present = abilitiesOf(store)
  await (options.destroyStore ?? closeStore)(store)

  const checks = conformanceChecks(options).filter(({ ability }) => ability === undefined || present.includes(ability))
  const passed: string[] = []
  const failed: { name: string; error: unknown }[] = []
  const broken = new Set<StoreGuarantee | StoreAbility | undefined>()
  for (const { name, guarantee, ability, run } of checks) {
    try {
      await run()
      passed.push(name)
    } catch (error) {
      failed.push({ name, error })
      broken.add(guarantee).add(ability)
    }
  }
  const offered = new Set(checks.map((check) => check.guarantee))
  const guarantees = [...offered].filter((guarantee) => !broken.has(guarantee))
  return { passed, failed, guarantees, abilities: present.filter((ability) => !broken.has(ability)) }
}

/** The checks, for a test runner that wants them one by one. */
export function conformanceChecks(options: ConformanceOptions): ConformanceCheck[] {
  const checks: ConformanceCheck[] = []
  const add = (guarantee: StoreGuarantee, group: Record<string, Check>, ability?: StoreAbility): void => {
    const prefix = guarantee === 'shared' ? 'across processes: ' : ''
    for (const [name, check] of Object.entries(group)) {
      checks.push({
        name: prefix + name,
        guarantee,
        ability,
        run: () => runCheck(options, { check, guarantee, ability }),
      })
    }
  }
  const abilities = Object.entries(ABILITY_CHECKS) as [StoreAbility, (typeof ABILITY_CHECKS)[StoreAbility]][]
  for (const group of [KEEPING, CHANGES, ENDINGS, REGENERATIONS, BASIC_LIMITS]) add('basic', group)
  for (const [ability, { basic }] of abilities) add('basic', basic, ability)
  add('atomic', CONCURRENCY)
  add('atomic', ATOMIC_LIMITS)
  for (const [ability, { atomic }] of abilities) add('atomic', atomic, ability)
  if (options.createPeer) {
    add('shared', CONCURRENCY)
    add('shared', ATOMIC_LIMITS)
    for (const [ability, { atomic }] of abilities) add('shared', atomic, ability)
  }
  return checks
}

interface CheckToRun {
  readonly check: Check
  readonly guarantee: StoreGuarantee
  readonly ability: StoreAbility | undefined
}

async function runCheck(options: ConformanceOptions, { check, guarantee, ability }: CheckToRun): Promise<void> {
  const destroy = options.destroyStore ?? closeStore
  const store = await options.createStore()
  try {
    if (ability !== undefined && !abilitiesOf(store).includes(ability)) return
    const peer = guarantee === 'shared' && options.createPeer ? await options.createPeer(store) : store
    try {
      await check(store, peer)
    } finally {
      if (peer !== store) await destroy(peer)
    }
  } finally {
    await destroy(store)
  }
}

function closeStore(store: SessionStore): Promise<void> {
  return store.close()
}
