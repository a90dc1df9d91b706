// What a name that does not exist was probably meant to be, for messages.

/** `" Did you mean idleTimeout?"`, with its space, or `''` when nothing known is like it. */
export function didYouMean(name: string, known: Iterable<string>): string {
  let best: string | undefined
  let least = Math.min(MAX_EDITS, Math.floor(name.length / 3)) + 1
  for (const candidate of known) {
    const edits = editsBetween(plain(name), plain(candidate))
    if (edits >= least) continue
    least = edits
    best = candidate
  }
  return best === undefined ? '' : ` Did you mean ${best}?`
}

/** More make another word. */
const MAX_EDITS = 2

/** Case and separators are what is mistaken most: `idletimeout`, `idle_timeout`. */
function plain(name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9]/g, '')
}

/** How many letters have to be put in, left out or replaced (Levenshtein). */
function editsBetween(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1))
    }
    row = next
  }
  return row[b.length] as number
}
