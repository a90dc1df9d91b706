// The pages of who applies for a permit.
import { button, type Html, html, input, page } from './html.js'

export interface Permit {
  name: string
  plate: string
  proof?: { kind: string; documentNumber: string }
}

export const PROOFS: readonly string[] = ['Tenancy agreement', 'Council tax bill', 'Utility bill']

type Problems = Readonly<Partial<Record<string, string>>>

export function permitPage({ name, plate }: Partial<Permit> = {}, problems: Problems = {}): string {
  return page(
    'Apply for a permit',
    html`${steps(1)}
<form method="post" action="/">
  ${input({ name: 'name', label: 'Your name', value: name, autocomplete: 'name', problem: problems['name'] })}
  ${input({ name: 'plate', label: 'Number plate', value: plate, problem: problems['plate'] })}
  <button>Continue</button>
</form>`,
  )
}

export function proofPage({ proof }: Permit, problems: Problems = {}): string {
  return page(
    'Prove your address',
    html`${steps(2)}
<form method="post" action="/proof">
  <p>
    <label for="kind">Document</label>
    <select id="kind" name="kind">
      ${PROOFS.map((kind) => html`<option${kind === proof?.kind && html` selected`}>${kind}</option>`)}
    </select>
  </p>
  ${input({
    name: 'documentNumber',
    label: 'Number of the document',
    value: proof?.documentNumber,
    problem: problems['documentNumber'],
  })}
  <button>Continue</button> <a href="/">Back</a>
</form>`,
  )
}

/** With the session ID of a payment that has failed. */
export function paymentPage({ name, plate, proof }: Permit, failedId?: string): string {
  const failure =
    failedId &&
    html`<div class="failure" role="alert">
  <p><strong>The payment did not go through.</strong> You have not been charged, and what you entered is kept.</p>
  <p>Try again. If it fails again, give support this session ID:</p>
  <p><code id="session-id">${failedId}</code></p>
</div>`
  return page(
    failedId ? 'Something went wrong' : 'Check and pay',
    html`${steps(3)}
${failure}
<dl>
  <dt>Name</dt><dd>${name}</dd>
  <dt>Number plate</dt><dd>${plate}</dd>
  <dt>Proof of address</dt><dd>${proof?.kind}, ${proof?.documentNumber}</dd>
  <dt>Price</dt><dd>€ 40</dd>
</dl>
<div class="row">${button('/payment', failedId ? 'Try again' : 'Pay')} ${button('/restart', 'Start over')} <a href="/proof">Back</a></div>`,
  )
}

export function receiptPage({ plate, sessionId }: { plate: string; sessionId: string }): string {
  return page(
    'Your permit is valid',
    html`<p>The car with the plate <strong>${plate}</strong> may park for a year.</p>
<p>If you have a question about this application, give support this session ID:</p>
<p><code id="session-id">${sessionId}</code></p>
<p><a href="/">Apply for another permit</a></p>`,
  )
}

function steps(current: number): Html {
  const names = ['Vehicle', 'Proof', 'Payment']
  return html`<ol class="steps">${names.map(
    (name, index) => html`<li${index + 1 === current && html` aria-current="step"`}>${name}</li>`,
  )}</ol>`
}
