// The metrics of sessions for prom-client, which is not imported: who calls passes it.

import { invalidOption } from '../../errors.js'
import { ACTIVE_SESSIONS, COUNTER_NAMES, COUNTERS, forEachCounter, listen, STORE_CALLS } from './counters.js'
import { once } from './once.js'
import { isFunction, type MeasuredSessions, type MetricsOptions, managerOf, resolveOptions } from './options.js'

/** What `prometheusMetrics()` takes. */
export interface PrometheusMetricsOptions extends MetricsOptions {
  /** The module: `import * as client from 'prom-client'`. */
  readonly client: PrometheusClient
  /**
   * Where the metrics are registered.
   * @default client.register
   */
  readonly register?: PrometheusRegistry | undefined
  /**
   * Begins each name: letters, digits and `_`.
   * @default 'sojourn_'
   */
  readonly prefix?: string | undefined
}

/** What is asked of prom-client, version 15. */
export interface PrometheusClient {
  readonly Counter: new (
    configuration: PrometheusConfiguration,
  ) => { inc(labels: Record<string, string>, value?: number): void }
  readonly Gauge: new (configuration: PrometheusConfiguration) => { set(value: number): void; remove(): void }
  readonly Histogram: new (
    configuration: PrometheusConfiguration,
  ) => { observe(labels: Record<string, string>, value: number): void }
  readonly register: PrometheusRegistry
}

/** What is asked of a registry of prom-client. */
export interface PrometheusRegistry {
  getSingleMetric(name: string): unknown
  removeSingleMetric(name: string): void
}

/** What a metric of prom-client is made from. */
export interface PrometheusConfiguration {
  name: string
  help: string
  labelNames?: readonly string[]
  /** Registries, of a class that is not known here. */
  registers?: never[]
  aggregator?: 'sum' | 'max' | 'omit' | 'first' | 'min' | 'average'
  buckets?: number[]
  collect?: () => void | Promise<void>
}

/**
 * Registers the metrics of sessions with prom-client: `sojourn_session_started_total` and the others that
 * docs/operations/metrics.md lists. No label holds the ID of a session or a user.
 *
 * Returns a function that stops counting and takes the metrics off the registry.
 * @throws {SessionError} `INVALID_OPTION`, also when the registry has a metric of such a name; nothing is registered then.
 */
export function prometheusMetrics(sessions: MeasuredSessions, options: PrometheusMetricsOptions): () => void {
  const manager = managerOf(sessions)
  const { buckets, active } = resolveOptions(manager, options)
  const { client, prefix = 'sojourn_' } = options
  if (![client?.Counter, client?.Gauge, client?.Histogram].every(isFunction)) {
    throw invalidOption("client is not prom-client; pass the module: import * as client from 'prom-client'.")
  }
  const { register = client.register } = options
  if (!isFunction(register?.getSingleMetric)) throw invalidOption('register is not a Registry of prom-client.')
  if (!/^([a-z_]\w*)?$/i.test(prefix))
    throw invalidOption("prefix is made of letters, digits and '_', such as 'sojourn_'.")

  const nameOf = (name: string, unit = ''): string => `${prefix}${name.replaceAll('.', '_')}${unit}`
  const names = [
    ...COUNTER_NAMES.map((key) => nameOf(COUNTERS[key].name, '_total')),
    nameOf(STORE_CALLS.name, '_seconds'),
    ...(active ? [nameOf(ACTIVE_SESSIONS.name)] : []),
  ]
  const taken = names.find((name) => register.getSingleMetric(name) !== undefined)
  if (taken !== undefined) {
    throw invalidOption(
      `The registry has a metric ${taken} already. For other sessions use another prefix or register; to register these ` +
        'again, first call the function that prometheusMetrics() returned.',
    )
  }

  const registers = [register as never]
  const counters = forEachCounter((key) => {
    const { name, help, labels } = COUNTERS[key]
    const labelNames = labels.map(({ label }) => label)
    const counter = new client.Counter({ name: nameOf(name, '_total'), help, labelNames, registers })
    // A series that begins at 0 shows its first step.
    for (const { label, values = [] } of labels) for (const value of values) counter.inc({ [label]: value }, 0)
    return counter
  })
  const durations = new client.Histogram({
    name: nameOf(STORE_CALLS.name, '_seconds'),
    help: STORE_CALLS.help,
    labelNames: ['operation'],
    buckets: [...buckets],
    registers,
  })
  if (active) {
    const gauge = new client.Gauge({
      name: nameOf(ACTIVE_SESSIONS.name),
      help: ACTIVE_SESSIONS.help,
      registers,
      // The workers of a cluster count the same store.
      aggregator: 'max',
      async collect() {
        const count = await active.read()
        if (count === undefined) gauge.remove()
        else gauge.set(count)
      },
    })
    // Unknown is not 0.
    gauge.remove()
  }

  const made = names.map((name) => register.getSingleMetric(name))
  const stop = listen(manager, {
    count(key, ...values) {
      const { labels } = COUNTERS[key]
      counters[key].inc(Object.fromEntries(labels.map(({ label }, index) => [label, values[index] as string])))
    },
    storeCall: (operation, seconds) => durations.observe({ operation }, seconds),
  })
  return once(() => {
    stop()
    active?.stop()
    for (const [index, name] of names.entries()) {
      if (register.getSingleMetric(name) === made[index]) register.removeSingleMetric(name)
    }
  })
}
