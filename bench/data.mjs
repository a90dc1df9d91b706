// What the sessions of a benchmark hold; the same data for every contender.
//
// The small fields are what any application keeps: a user, a locale, a counter, a token against CSRF, a path, a flag.
// Larger sessions add five fields of nested objects, as a shop would have: results (40 % of the bulk), recent (30 %),
// drafts (15 %), cart (10 %), settings (5 %). No work of the main table touches those, but for "read every field".

/** The session sizes, by the bytes that `JSON.stringify` makes of the data. */
export const SIZES = { 0.2: 200, 2: 2_000, 20: 20_000, 200: 200_000 }

const BULK = { results: 0.4, recent: 0.3, drafts: 0.15, cart: 0.1, settings: 0.05 }

/**
 * The data of one session.
 * @param {keyof typeof SIZES} size in KB
 * @param {number} n which session: no two hold the same texts
 */
export function sessionData(size, n) {
  const bytes = SIZES[size]
  const data = {
    userId: 100_000 + n,
    views: 1,
    locale: 'en-GB',
    csrfToken: text(n, 43),
    returnTo: `/account/orders/${10_000 + n}`,
    isAdmin: false,
    lastSearch: '',
  }
  const small = JSON.stringify(data).length
  if (bytes < 1_000) data.lastSearch = text(n, Math.max(0, bytes - small))
  else for (const [name, share] of Object.entries(BULK)) data[name] = items(n, (bytes - small) * share)
  return data
}

/** Nested objects of so many bytes altogether, about 130 each. */
function items(n, bytes) {
  const list = []
  for (let length = 2; length < bytes - 60; ) {
    const item = {
      sku: `SKU-${n}-${list.length}`,
      title: text(n + list.length, 40),
      price: { amount: 1999 + list.length, currency: 'EUR' },
      quantity: (list.length % 3) + 1,
      tags: ['new', 'sale'],
    }
    list.push(item)
    length += JSON.stringify(item).length + 1
  }
  return list
}

/** Text that looks random and is the same in every run. */
function text(seed, length) {
  let state = (seed + 1) * 2_654_435_761
  let out = ''
  while (out.length < length) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    out += state.toString(36)
  }
  return out.slice(0, length)
}
