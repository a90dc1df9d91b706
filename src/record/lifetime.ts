// Fields that are gone after a time: when that is stands before their text, so that value and end are always written, merged
// and moved as one.

/** Begins a stored text that is more than what the codec made. No text of JSON begins so. */
const MARK = '~'
const MARK_CODE = MARK.charCodeAt(0)

/** What the store keeps of a field's text: as it is, or with the time (milliseconds since the epoch) when it is over. */
export function withEnd(text: string, endsAt: number | undefined): string {
  if (endsAt !== undefined) return MARK + endsAt.toString(36) + MARK + text
  // A text of another codec may begin like one that ends.
  return text.charCodeAt(0) === MARK_CODE ? MARK + MARK + text : text
}

/** The text that `withEnd()` was given. */
export function textOf(stored: string): string {
  return stored.charCodeAt(0) === MARK_CODE ? stored.slice(stored.indexOf(MARK, 1) + 1) : stored
}

/** When a stored field is over; `undefined` for one that stays. */
export function endOf(stored: string | undefined): number | undefined {
  if (stored === undefined || stored.charCodeAt(0) !== MARK_CODE) return undefined
  const end = Number.parseInt(stored.slice(1, stored.indexOf(MARK, 1)), 36)
  return Number.isNaN(end) ? undefined : end
}

/** Whether an end has come. */
export function isPast(endsAt: number | undefined, now: number): boolean {
  return endsAt !== undefined && now >= endsAt
}
