// The public face of `sojourn/metrics`, nothing else: what happens to sessions as metrics, for prom-client and for OpenTelemetry.
export type { ActiveSessionsOptions, MeasuredSessions, MetricsOptions } from './options.js'
export {
  type OtelCallback,
  type OtelInstrumentOptions,
  type OtelMeter,
  type OtelMetricsOptions,
  otelMetrics,
} from './otel.js'
export {
  type PrometheusClient,
  type PrometheusConfiguration,
  type PrometheusMetricsOptions,
  type PrometheusRegistry,
  prometheusMetrics,
} from './prometheus.js'
