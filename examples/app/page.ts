// The page of the shop. Everything that goes into it is escaped by `html`.
import type { Session } from 'sojourn'

export function page(view: {
  session: Session
  store: { name: string; survives: string }
  products: readonly string[]
  racers: number
}): string {
  const { session, store, products, racers } = view
  const { userId, absoluteExpiresAt } = session.metadata
  const body = html`<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Sojourn example</title>
  <link rel="icon" href="/icon.svg">
  <link rel="stylesheet" href="/style.css">
  <script src="/race.js" defer></script>
</head>
<body>
<header>
  <h1>Sojourn</h1>
  <p>One session, on the server; the browser holds a signed cookie and nothing else.</p>
</header>
<main>
  <section class="wide">
    <h2>This session</h2>
    <dl>
      <dt>Visits</dt><dd id="visits">${session.visits}</dd>
      <dt>User</dt><dd id="user">${userId ?? 'nobody is logged in'}</dd>
      <dt>Session ID</dt><dd><code id="session-id">${session.id}</code></dd>
      <dt>Ends when idle</dt><dd>${time(session.expiresAt)}</dd>
      <dt>Ends at the latest</dt><dd>${time(absoluteExpiresAt)}</dd>
      <dt>Store</dt><dd><span id="store">${store.name}</span>, ${store.survives}</dd>
    </dl>
    <p class="note">The session ID is safe to show and to log. What proves the right to the session is a token that is
      only in the cookie.</p>
  </section>

  <section>
    <h2>Cart</h2>
    ${cart(session)}
    <div class="row">${products.map((product) => button('/cart/add', `Add ${product}`, product))}</div>
  </section>

  <section>
    <h2>Login</h2>
    ${userId === undefined ? LOGIN_FORM : html`<p>Welcome, <strong>${userId}</strong>.</p>${button('/logout', 'Log out')}`}
    <p class="note">A demo: any name will do. Watch the session ID: logging in changes it and keeps the cart, logging out
      ends the session.</p>
  </section>

  <section class="wide">
    <h2>${racers} requests at once</h2>
    <p>Each adds one to the same counter and sets a field of its own, and all write the same session.</p>
    <div class="row"><button id="race" type="button" hidden>Run them</button> <output id="race-result"></output></div>
    <noscript><p class="note">This one needs JavaScript, to send the requests.</p></noscript>
  </section>

  <section class="wide">
    <details>
      <summary>The fields of the session</summary>
      <pre>${JSON.stringify(session, null, 2)}</pre>
    </details>
  </section>
</main>
</body>
</html>
`
  return body.text
}

function cart(session: Session): Html {
  const items = session.get('cart', [])
  if (items.length === 0) return html`<p>Empty.</p>`
  return html`<ul id="cart">${items.map(
    ({ product, quantity }) =>
      html`<li><span>${quantity} × ${product}</span>${button('/cart/remove', 'Remove', product)}</li>`,
  )}</ul>`
}

/** A form of one button. What changes something is a POST: links, prefetching and crawlers only send GET. */
function button(action: string, label: string, product?: string): Html {
  const hidden = product === undefined ? '' : html`<input type="hidden" name="product" value="${product}">`
  return html`<form method="post" action="${action}">${hidden}<button>${label}</button></form>`
}

function time(date: Date): Html {
  const iso = date.toISOString()
  return html`<time datetime="${iso}">${iso.slice(0, 19).replace('T', ' ')} UTC</time>`
}

/** Markup, as opposed to text that has to be escaped. */
class Html {
  constructor(readonly text: string) {}
}

/** A template whose values are escaped, unless they are made by `html` themselves. */
function html(template: TemplateStringsArray, ...values: readonly unknown[]): Html {
  return new Html(String.raw({ raw: template }, ...values.map(markup)))
}

function markup(value: unknown): string {
  if (value instanceof Html) return value.text
  if (Array.isArray(value)) return value.map(markup).join('')
  return String(value).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}

const LOGIN_FORM = html`<form method="post" action="/login" class="row">
  <input name="name" aria-label="Name" placeholder="Your name" required maxlength="40" autocomplete="username">
  <button>Log in</button>
</form>`
