// The metrics of sessions for OpenTelemetry, which is not imported: who calls passes a meter.

import { invalidOption } from '../../errors.js'
import type { SessionManager } from '../../manager/manager.js'
import { ACTIVE_SESSIONS, COUNTERS, ERROR_TYPE, forEachCounter, listen, OPERATION, STORE_CALLS } from './counters.js'
import { once } from './once.js'
import { isFunction, type MeasuredSessions, type MetricsOptions, managerOf, resolveOptions } from './options.js'

/** What `otelMetrics()` takes. */
export interface OtelMetricsOptions extends MetricsOptions {
  /** A meter of `@opentelemetry/api`: `metrics.getMeter('sojourn')`. Taken after the SDK has started, or it does nothing. */
  readonly meter: OtelMeter
  /**
   * Go with every data point: to tell several kinds of sessions on one meter apart.
   * @default none
   */
  readonly attributes?: Readonly<Record<string, string>> | undefined
}

/** What is asked of a `Meter` of `@opentelemetry/api`, version 1. */
export interface OtelMeter {
  createCounter(
    name: string,
    options?: OtelInstrumentOptions,
  ): { add(value: number, attributes?: Record<string, string>): void }
  createHistogram(
    name: string,
    options?: OtelInstrumentOptions,
  ): { record(value: number, attributes?: Record<string, string>): void }
  createObservableGauge(
    name: string,
    options?: OtelInstrumentOptions,
  ): { addCallback(callback: OtelCallback): void; removeCallback(callback: OtelCallback): void }
}

/** What an instrument of OpenTelemetry is made from. */
export interface OtelInstrumentOptions {
  description?: string
  unit?: string
  advice?: { explicitBucketBoundaries?: number[] }
}

/** Asked for a value whenever OpenTelemetry collects. */
export type OtelCallback = (result: {
  observe(value: number, attributes?: Record<string, string>): void
}) => void | Promise<void>

/** Which sessions a meter has. */
const measuredOn = new WeakMap<OtelMeter, WeakSet<SessionManager>>()

/**
 * Registers the metrics of sessions with a meter of OpenTelemetry: `sojourn.session.started` and the others that
 * docs/operations/metrics.md lists. No attribute holds the ID of a session or a user.
 *
 * Returns a function that stops counting; a meter keeps what was counted.
 * @throws {SessionError} `INVALID_OPTION`, also when the meter has these sessions already.
 */
export function otelMetrics(sessions: MeasuredSessions, options: OtelMetricsOptions): () => void {
  const manager = managerOf(sessions)
  const { buckets, active } = resolveOptions(manager, options)
  const { meter, attributes = {} } = options
  if (![meter?.createCounter, meter?.createHistogram, meter?.createObservableGauge].every(isFunction)) {
    throw invalidOption("meter is not a Meter of @opentelemetry/api; pass metrics.getMeter('sojourn').")
  }
  const measured = measuredOn.get(meter) ?? new WeakSet()
  if (measured.has(manager)) {
    throw invalidOption(
      'The meter has these sessions already, and would count them twice. Call the function that otelMetrics() returned ' +
        'first, or use another meter.',
    )
  }
  measuredOn.set(meter, measured.add(manager))

  const counters = forEachCounter((key) => {
    const { name, help, unit } = COUNTERS[key]
    return meter.createCounter(`sojourn.${name}`, { description: help, unit })
  })
  const durations = meter.createHistogram(`sojourn.${STORE_CALLS.name}`, {
    description: STORE_CALLS.help,
    unit: 's',
    advice: { explicitBucketBoundaries: [...buckets] },
  })
  const gauge =
    active &&
    meter.createObservableGauge(`sojourn.${ACTIVE_SESSIONS.name}`, {
      description: ACTIVE_SESSIONS.help,
      unit: '{session}',
    })
  const observe: OtelCallback = async (result) => {
    const count = await active?.read()
    if (count !== undefined) result.observe(count, { ...attributes })
  }
  gauge?.addCallback(observe)

  const stop = listen(manager, {
    count(key, ...values) {
      const { labels } = COUNTERS[key]
      const own = labels.map(({ attribute }, index) => [attribute, values[index] as string])
      counters[key].add(1, { ...attributes, ...Object.fromEntries(own) })
    },
    storeCall(operation, seconds, error) {
      const outcome = error !== undefined && { [ERROR_TYPE]: error }
      durations.record(seconds, { ...attributes, [OPERATION]: operation, ...outcome })
    },
  })
  return once(() => {
    stop()
    active?.stop()
    gauge?.removeCallback(observe)
    measured.delete(manager)
  })
}
