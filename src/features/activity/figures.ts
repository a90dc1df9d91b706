// Figures of what happened, from counts by type: page views, API calls, files, and what they cost by the application's prices.

import { didYouMean } from '../../did-you-mean.js'
import { invalidOption } from '../../errors.js'

/** Which activities are page views and API calls, and what an activity costs. A type, or `'api.*'` for all that begin with `api.` */
export interface AnalyticsOptions {
  /**
   * The types that are page views.
   * @default ['page.viewed']
   */
  readonly pageViews?: readonly string[] | undefined
  /**
   * The types that are calls of an API.
   * @default ['api.called']
   */
  readonly apiCalls?: readonly string[] | undefined
  /**
   * What one activity of a type costs, in a currency of yours: `{ 'api.called': 0.002, 'mail.*': 0.0004 }`. What is named exactly goes
   * before what is named by its beginning, and a longer beginning before a shorter one.
   * @default {}
   */
  readonly prices?: Readonly<Record<string, number>> | undefined
}

/** What happened, in figures. */
export interface ActivityFigures {
  /** How many activities there are of each type. */
  readonly counts: Readonly<Record<string, number>>
  /** Activities that are page views: see `analytics` of the log. */
  readonly pageViews: number
  /** Activities that are calls of an API: see `analytics` of the log. */
  readonly apiCalls: number
  /** Files that were saved in a workspace, each time that one was. */
  readonly filesSaved: number
  /** What all of it costs by `analytics.prices`; 0 without any. */
  readonly cost: number
}

/** Makes figures of counts by type. */
export type Figures = (counts: ReadonlyMap<string, number>) => ActivityFigures

const KNOWN = ['pageViews', 'apiCalls', 'prices'] satisfies (keyof AnalyticsOptions)[]

/** @throws {SessionError} `INVALID_OPTION` */
export function figuresBy(analytics: AnalyticsOptions = {}): Figures {
  if (typeof analytics !== 'object' || analytics === null || Array.isArray(analytics)) {
    throw invalidOption('analytics is not an object, such as { prices: { "api.called": 0.002 } }.')
  }
  for (const name of Object.keys(analytics)) {
    if (!(KNOWN as string[]).includes(name)) {
      throw invalidOption(`There is no option "analytics.${name}".${didYouMean(name, KNOWN)}`)
    }
  }
  const { pageViews = ['page.viewed'], apiCalls = ['api.called'], prices = {} } = analytics
  const isPageView = anyOf(pageViews, 'analytics.pageViews')
  const isApiCall = anyOf(apiCalls, 'analytics.apiCalls')
  const priceOf = pricesOf(prices)
  return (counts) => {
    const figures = { pageViews: 0, apiCalls: 0, filesSaved: counts.get('file.saved') ?? 0, cost: 0 }
    for (const [type, count] of counts) {
      if (isPageView(type)) figures.pageViews += count
      if (isApiCall(type)) figures.apiCalls += count
      figures.cost += count * priceOf(type)
    }
    // Own members, whatever the types are called.
    return { counts: Object.fromEntries(counts), ...figures }
  }
}

function anyOf(types: readonly string[], name: string): (type: string) => boolean {
  if (!Array.isArray(types) || !types.every(isPattern)) {
    throw invalidOption(`${name} is not a list of types, such as ['page.viewed', 'page.*'].`)
  }
  return (type) => types.some((pattern) => isMeant(pattern, type))
}

function pricesOf(prices: Readonly<Record<string, number>>): (type: string) => number {
  const isObject = typeof prices === 'object' && prices !== null && !Array.isArray(prices)
  const entries = isObject ? Object.entries(prices) : []
  if (!isObject || !entries.every(([pattern, price]) => isPattern(pattern) && Number.isFinite(price) && price >= 0)) {
    throw invalidOption(
      'analytics.prices is not an object of types and numbers of at least 0: { "api.called": 0.002 }.',
    )
  }
  const byType = new Map(entries)
  const byBeginning = entries.filter(([pattern]) => pattern.endsWith('.*')).sort(([a], [b]) => b.length - a.length)
  return (type) => byType.get(type) ?? byBeginning.find(([pattern]) => isMeant(pattern, type))?.[1] ?? 0
}

function isPattern(pattern: unknown): boolean {
  return typeof pattern === 'string' && pattern !== '' && !/[*]./.test(pattern) && !/(?<!\.)\*/.test(pattern)
}

function isMeant(pattern: string, type: string): boolean {
  return pattern.endsWith('.*') ? type.startsWith(pattern.slice(0, -1)) : type === pattern
}
