// The page: the shop, the trials, and what the session holds.
import type { Session } from 'sojourn'
import { type Html, html } from './html.js'
import { findProduct, PRODUCTS, price, totalOf } from './products.js'
import { trials } from './trials.js'

export function page(view: {
  session: Session
  store: { name: string; survives: string }
  hasRedis: boolean
  freezeMs: number
}): string {
  const { session, store } = view
  const cart = session.get('cart', [])
  const count = cart.reduce((sum, { quantity }) => sum + quantity, 0)
  return html`<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Sojourn: a shop, and four promises</title>
  <link rel="icon" href="/icon.svg">
  <link rel="stylesheet" href="/style.css">
  <script src="/trials.js" type="module"></script>
</head>
<body>
<header>
  <a class="brand" href="/"><img src="/icon.svg" alt="" width="32" height="32"> Sojourn</a>
  <nav aria-label="Parts of this page">
    <a href="#promises">Promises</a>
    <a href="#session">Session</a>
    <a class="pill" href="#cart">Cart: <strong id="cart-count">${count}</strong></a>
  </nav>
</header>
<main>
  <div class="shop">
    <div>
      <h1>A shop, and four promises</h1>
      <p class="intro">The shop keeps its cart and its login in one session on the server. The browser holds a signed cookie
        and nothing else. Further down, four promises can be tried, each beside express-session.</p>
    <section aria-labelledby="products-title">
      <h2 id="products-title">Products</h2>
      <ul class="products">${PRODUCTS.map(
        ({ name, price: cents, picture }) => html`
        <li class="card">
          <img src="${picture}" alt="" width="160" height="120">
          <h3>${name}</h3>
          <p>${price(cents)}</p>
          ${button('/cart/add', html`Add<span class="hidden"> ${name}</span>`, name)}
        </li>`,
      )}
      </ul>
    </section>
    </div>

    <div class="aside">
      <section class="card" id="cart" aria-labelledby="cart-title">
        <h2 id="cart-title">Cart</h2>
        ${cart.length === 0 ? html`<p class="faint">Empty. Add something.</p>` : cartLines(cart)}
        <p class="total">Total <strong id="total">${price(totalOf(cart))}</strong></p>
      </section>
      <section class="card" aria-labelledby="login-title">
        <h2 id="login-title">Login</h2>
        ${loginForm(session.metadata.userId)}
      </section>
    </div>
  </div>

  ${trials(view)}

  <section id="session" aria-labelledby="session-title">
    <h2 id="session-title">The session of the shop</h2>
    <div class="card">${facts(session, store)}</div>
  </section>
</main>
</body>
</html>
`.text
}

function cartLines(cart: readonly { product: string; quantity: number }[]): Html {
  return html`<ul class="lines">${cart.map(
    ({ product, quantity }) => html`
    <li>
      <img src="${findProduct(product)?.picture}" alt="" width="48" height="36">
      <span>${quantity} × ${product}</span>
      <span class="sum">${price(totalOf([{ product, quantity }]))}</span>
      ${button('/cart/remove', html`Remove<span class="hidden"> ${product}</span>`, product)}
    </li>`,
  )}
  </ul>`
}

function loginForm(user: string | number | undefined): Html {
  if (user !== undefined) {
    return html`<p class="welcome">Welcome, <strong>${user}</strong>.</p>${button('/logout', 'Log out')}
    <p class="faint small">Logging out ends the session, cart included.</p>`
  }
  return html`<form method="post" action="/login">
    <label for="name">Your name</label>
    <div class="row"><input id="name" name="name" required maxlength="40" autocomplete="username"><button>Log in</button></div>
  </form>
  <p class="faint small">A demo: any name will do. The session ID changes, and the cart stays.</p>`
}

function facts(session: Session, store: { name: string; survives: string }): Html {
  const { userId, absoluteExpiresAt } = session.metadata
  return html`<dl>
    <dt>Visits</dt><dd id="visits">${session.visits}</dd>
    <dt>User</dt><dd id="user">${userId ?? 'nobody is logged in'}</dd>
    <dt>Session ID</dt><dd><code id="session-id">${session.id}</code></dd>
    <dt>Ends when idle</dt><dd>${time(session.expiresAt)}</dd>
    <dt>Ends at the latest</dt><dd>${time(absoluteExpiresAt)}</dd>
    <dt>Store</dt><dd><span id="store">${store.name}</span>, ${store.survives}</dd>
  </dl>
  <p class="faint small">The session ID is safe to show and to log. What proves the right to the session is a token that is
    only in the cookie.</p>
  <details>
    <summary>The fields of the session</summary>
    <pre tabindex="0" aria-label="Fields of the session, as JSON">${JSON.stringify(session, null, 2)}</pre>
  </details>`
}

/** A form of one button. What changes something is a POST: links, prefetching and crawlers only send GET. */
function button(action: string, label: Html | string, product?: string): Html {
  return html`<form method="post" action="${action}">${
    product !== undefined && html`<input type="hidden" name="product" value="${product}">`
  }<button>${label}</button></form>`
}

function time(date: Date): Html {
  const iso = date.toISOString()
  return html`<time datetime="${iso}">${iso.slice(0, 19).replace('T', ' ')} UTC</time>`
}
