// The part of the page where each promise is tried. public/trials.js sends the requests and fills in what came of them; the
// places for it are here from the start, so that nothing moves.
import { type Html, html } from './html.js'
import { READ_MS, WRITE_MS } from './sides.js'
import { RACERS } from './trial.js'

export const REDIRECTS = 10

interface Trial {
  name: 'race' | 'logout' | 'redirect' | 'frozen'
  promise: string
  story: string
  button: string
  /** The results: a square for each of so many, or a line for each of these. */
  squares?: number
  lines?: readonly string[]
  /** Why it cannot be tried here. */
  missing?: string | false
}

export function trials({ hasRedis, freezeMs }: { hasRedis: boolean; freezeMs: number }): Html {
  const seconds = freezeMs / 1_000
  const all: Trial[] = [
    {
      name: 'race',
      promise: 'No update is lost',
      story: `${RACERS} requests change one session at once. Each sets a field of its own. How many fields are there in the end?`,
      button: `Send ${RACERS} requests`,
      squares: RACERS,
    },
    {
      name: 'logout',
      promise: 'A logout stays a logout',
      story: 'Ann has a slow request under way, and logs out. The slow request ends after that. Who is logged in now?',
      button: 'Log out meanwhile',
      lines: ['Logout', 'Slow request'],
    },
    {
      name: 'redirect',
      promise: 'A redirect never outruns the save',
      story: `${REDIRECTS} times, a form saves a value and redirects to the page that shows it. How often is it the new value?`,
      button: `Save ${REDIRECTS} times`,
      squares: REDIRECTS,
    },
    {
      name: 'frozen',
      promise: 'A dead store is answered for, and logs nobody out',
      story: `Ann is logged in. Redis stops answering for ${seconds} s, its connections open. She asks for a page, and for another when Redis is back.`,
      button: 'Freeze Redis',
      lines: ['While it is frozen', 'Afterwards'],
      missing:
        !hasRedis && 'There is no redis-server on this machine. Install one and start the demo again to try this.',
    },
  ]
  return html`<section id="promises" aria-labelledby="promises-title" data-freeze-ms="${freezeMs}">
    <h2 id="promises-title">Four promises, beside express-session</h2>
    <p>Each button sends the same requests to two servers at the same moment. Both run in this process, and have the same
      handlers. Only the session middleware before them differs.</p>
    <ul class="terms">
      <li><strong>Store</strong> ${
        hasRedis
          ? 'for both, one redis-server that the demo has started'
          : 'for both, memory: there is no redis-server on this machine'
      }</li>
      <li><strong>Delay</strong> for both, a read of the store takes ${READ_MS} ms and a write ${WRITE_MS} ms</li>
      <li><strong>express-session</strong> 1.19${hasRedis && ' with connect-redis 10'}, <code>resave</code> and
        <code>saveUninitialized</code> off, as its documentation advises</li>
    </ul>
    <noscript><p><strong>This part needs JavaScript, to send the requests.</strong></p></noscript>
    <div class="trials">${all.map(trial)}</div>
  </section>`
}

function trial({ name, promise, story, button, squares, lines, missing }: Trial): Html {
  return html`
    <article class="card trial" data-trial="${name}" aria-labelledby="${name}-title">
      <h3 id="${name}-title">${promise}</h3>
      <p class="story">${story}</p>
      <div class="row">
        <button type="button" aria-describedby="${name}-title ${name}-state" disabled>${button}</button>
        <span class="faint small state" id="${name}-state">${missing}</span>
      </div>
      <p class="hidden" role="status"></p>
      <div class="sides">${['Sojourn', 'express-session'].map(
        (title) => html`
        <div class="side" data-side="/${title.toLowerCase()}">
          <h4>${title}</h4>
          ${squares !== undefined && html`<div class="squares${squares <= 10 && ' few'}" aria-hidden="true">${Array.from({ length: squares }, () => html`<i></i>`)}</div>`}
          ${lines && html`<dl class="results">${lines.map((line) => html`<dt>${line}</dt><dd>–</dd>`)}</dl>`}
          <p class="verdict"><b>–</b> <span></span></p>
        </div>`,
      )}
      </div>
    </article>`
}
