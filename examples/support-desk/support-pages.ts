// The pages of the support desk.
import { type ActivityReport, isErrorActivity } from 'sojourn/activity'
import { button, type Html, html, input, page } from './html.js'

export function loginPage(problem?: string): string {
  return page(
    'Log in to the support desk',
    html`<form method="post" action="/support/login">
  ${input({ name: 'name', label: 'Name', autocomplete: 'username', problem })}
  ${input({ name: 'password', label: 'Password', type: 'password', autocomplete: 'current-password' })}
  <button>Log in</button>
</form>`,
  )
}

export function searchPage(id?: string, problem?: string): string {
  return page('Support desk', html`${searchForm(id, problem)}${button('/support/logout', 'Log out')}`)
}

function searchForm(id?: string, problem?: string): Html {
  return html`<form action="/support" role="search">
  ${input({ name: 'id', label: 'Session ID', value: id, problem })}
  <button>Look up</button>
</form>`
}

export function reportPage(logicalId: string, report: ActivityReport): string {
  const { activities, total, counts, startedAt, durationMs, errors, errorCount, end, userIds } = report
  const before = report.boundaries.find(({ to }) => to === logicalId)?.from
  const after = report.boundaries.find(({ from }) => from === logicalId)
  return page(
    'What happened',
    html`${searchForm(logicalId)}
<div class="columns">
<section aria-labelledby="summary">
  <h2 id="summary">Summary</h2>
  <dl>
    <dt>Began</dt><dd>${startedAt && time(startedAt)}</dd>
    <dt>Took</dt><dd id="duration">${duration(durationMs)}</dd>
    <dt>Ended</dt><dd>${end ? `${end.type}${after ? ` (${after.cause})` : ''}` : 'not yet'}</dd>
    <dt>User</dt><dd>${userIds.join(', ') || 'not logged in'}</dd>
    <dt>Before</dt><dd id="before">${before ? link(before) : 'nothing'}</dd>
    <dt>After</dt><dd id="after">${after ? link(after.to) : 'nothing yet'}</dd>
  </dl>
</section>
<section aria-labelledby="counts">
  <h2 id="counts">Counts</h2>
  <dl>${Object.entries(counts).map(([type, count]) => html`<dt>${type}</dt><dd>${count}</dd>`)}</dl>
</section>
</div>
<section aria-labelledby="failures">
  <h2 id="failures">Failures: ${errorCount}</h2>
  ${
    errorCount > 0 &&
    html`<ul>${errors.map(({ at, type, details }) => html`<li>${time(at)} <strong>${type}</strong> ${facts(details)}</li>`)}</ul>`
  }
</section>
<section aria-labelledby="timeline">
  <h2 id="timeline">Timeline</h2>
  ${total > activities.length && html`<p>The first ${activities.length} of ${total} activities.</p>`}
  <table role="table" aria-labelledby="timeline">
    <thead role="rowgroup"><tr role="row">${['After', 'Activity', 'Details', 'Request'].map(
      (name) => html`<th role="columnheader" scope="col">${name}</th>`,
    )}</tr></thead>
    <tbody role="rowgroup">${activities.map((activity) => {
      const { at, type, details, request } = activity
      const since = at.getTime() - (startedAt ?? at).getTime()
      return html`<tr role="row"${isErrorActivity(activity) && html` class="failure"`}>
      <td role="cell">${duration(since)}</td><th role="rowheader" scope="row">${type}</th><td role="cell">${facts(details)}</td><td role="cell">${
        request && `${request.method} ${request.path}`
      }</td></tr>`
    })}</tbody>
  </table>
</section>
${button('/support/logout', 'Log out')}`,
  )
}

function link(logicalId: string): Html {
  return html`<a href="/support?id=${logicalId}"><code>${logicalId}</code></a>`
}

function facts(details: Readonly<Record<string, unknown>> = {}): Html {
  return html`${Object.entries(details).map(([name, value]) => {
    return html`<span class="fact"><i>${name}</i> ${text(value)}</span> `
  })}`
}

/** For people: lists and errors in plain words, the rest as JSON. */
function text(value: unknown): string {
  if (typeof value === 'string') return value
  if (Array.isArray(value)) return value.map(text).join(', ')
  const { name, message } = (value ?? {}) as { name?: unknown; message?: unknown }
  if (typeof name === 'string' && typeof message === 'string') return `${name}: ${message}`
  return JSON.stringify(value)
}

function time(date: Date): Html {
  const iso = date.toISOString()
  return html`<time datetime="${iso}">${iso.slice(0, 19).replace('T', ' ')} UTC</time>`
}

/** Such as "3 min 20.5 s". */
function duration(ms: number): string {
  const [minutes, seconds] = [Math.floor(ms / 60_000), ((ms % 60_000) / 1_000).toFixed(1)]
  return minutes > 0 ? `${minutes} min ${seconds} s` : `${seconds} s`
}
