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
<section aria-labelledby="failures">
  <h2 id="failures">Failures: ${errorCount}</h2>
  ${
    errorCount > 0 &&
    html`<ul>${errors.map(({ at, type, details }) => html`<li>${time(at)} <strong>${type}</strong> ${facts(details)}</li>`)}</ul>`
  }
</section>
<section aria-labelledby="counts">
  <h2 id="counts">Counts</h2>
  <dl>${Object.entries(counts).map(([type, count]) => html`<dt>${type}</dt><dd>${count}</dd>`)}</dl>
</section>
<section aria-labelledby="timeline">
  <h2 id="timeline">Timeline</h2>
  ${total > activities.length && html`<p>The first ${activities.length} of ${total} activities.</p>`}
  <div class="scroll"><table aria-labelledby="timeline">
    <thead><tr><th scope="col">After</th><th scope="col">Activity</th><th scope="col">Details</th><th scope="col">Request</th></tr></thead>
    <tbody>${activities.map((activity) => {
      const { at, type, details, request } = activity
      const since = at.getTime() - (startedAt ?? at).getTime()
      return html`<tr${isErrorActivity(activity) && html` class="failure"`}>
      <td>${duration(since)}</td><th scope="row">${type}</th><td>${facts(details)}</td><td>${
        request && `${request.method} ${request.path}`
      }</td></tr>`
    })}</tbody>
  </table></div>
</section>
${button('/support/logout', 'Log out')}`,
  )
}

function link(logicalId: string): Html {
  return html`<a href="/support?id=${logicalId}"><code>${logicalId}</code></a>`
}

function facts(details: Readonly<Record<string, unknown>> = {}): Html {
  return html`${Object.entries(details).map(([name, value]) => {
    const text = typeof value === 'string' ? value : JSON.stringify(value)
    return html`<span class="fact"><i>${name}</i> ${text}</span> `
  })}`
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
