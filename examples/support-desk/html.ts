// What every page is made of. Values are escaped where they go into a template, unless `html` made them.

/** Markup, as opposed to text that has to be escaped. */
export class Html {
  constructor(readonly text: string) {}
}

type Value = string | number | false | undefined | Html | readonly Value[]

/** A template. Lists are joined; `undefined` and `false` are nothing. */
export function html(template: TemplateStringsArray, ...values: readonly Value[]): Html {
  return new Html(String.raw({ raw: template }, ...values.map(markup)))
}

function markup(value: Value): string {
  if (value === undefined || value === false) return ''
  if (value instanceof Html) return value.text
  if (typeof value === 'object') return value.map(markup).join('')
  return String(value).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
}

/** A whole page. */
export function page(title: string, main: Html): string {
  return html`<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>${title} – Parking permits</title>
  <link rel="icon" href="/icon.svg">
  <link rel="stylesheet" href="/style.css">
</head>
<body>
<header><a class="brand" href="/">Parking permits</a> <nav aria-label="Pages"><a href="/support">Support desk</a></nav></header>
<main>
<h1>${title}</h1>
${main}
</main>
</body>
</html>
`.text
}

/** A field of a form, with its label, and what is wrong with it. */
export function input(field: {
  name: string
  label: string
  value?: string | undefined
  type?: string
  autocomplete?: string
  problem?: string | undefined
}): Html {
  const { name, label, value = '', type = 'text', autocomplete = 'off', problem } = field
  return html`<p>
  <label for="${name}">${label}</label>
  <input id="${name}" name="${name}" type="${type}" value="${value}" maxlength="100" autocomplete="${autocomplete}"${
    problem && html` aria-invalid="true" aria-describedby="${name}-problem"`
  }>
  ${problem && html`<strong class="problem" id="${name}-problem">${problem}</strong>`}
</p>`
}

/** A form of one button. What changes something is a POST: links, prefetching and crawlers only send GET. */
export function button(action: string, label: string): Html {
  return html`<form method="post" action="${action}"><button>${label}</button></form>`
}
