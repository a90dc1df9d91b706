// A form of three steps. Every change can be undone and redone, and whoever closes the browser in the middle takes it up again where
// it was.
//
//   npx tsx examples/order-form/server.ts
import { randomBytes } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import express, { type ErrorRequestHandler, type Request } from 'express'
import { isSessionError, SessionManager } from 'sojourn'
import { csrf, csrfField } from 'sojourn/csrf'
import { flash, takeFlash } from 'sojourn/flash'
import { recovery } from 'sojourn/recovery'
import { sessionState } from 'sojourn/state'
import { z } from 'zod'

declare module 'sojourn/flash' {
  interface FlashValues {
    notice: string
  }
}

const line = z.string().trim().max(80).optional()

const options = {
  categories: {
    // Gone when the order is placed.
    order: { schema: z.object({ name: line, street: line, city: line, tea: line }), until: 'workflow' },
  },
} as const

type Field = 'name' | 'street' | 'city' | 'tea'

const STEPS: readonly { title: string; fields: readonly (readonly [name: Field, label: string])[] }[] = [
  { title: 'Who are you?', fields: [['name', 'Name']] },
  {
    title: 'Where do you live?',
    fields: [
      ['street', 'Street'],
      ['city', 'City'],
    ],
  },
  { title: 'Which tea?', fields: [['tea', 'Tea']] },
]

// A random secret makes every cookie void at the next start. In production set one that stays.
const sessions = new SessionManager({ secret: process.env['SESSION_SECRET'] ?? randomBytes(32).toString('base64') })
const recoveries = recovery(sessions, { window: '60m' })

const app = express()
app.use(sessions.middleware())
app.use(express.urlencoded({ extended: false }))
app.use(csrf())
// The browser gets a token with each step that is opened, for what was entered until then.
app.use(recoveries.automatic({ routes: [/^\/step\/\d$/] }))

app.get('/', async (req, res) => {
  const notice = await takeFlash(req.session, 'notice')
  const isUnderWay = stateOf(req).version > 0
  const mayResume = !isUnderWay && recoveries.hasToken(req)
  res.type('html').send(
    page(
      'Order tea',
      `${notice === undefined ? '' : `<p role="status">${escaped(notice)}</p>`}
       ${mayResume ? button(req, '/resume', 'Go on where you were') : ''}
       <p><a href="/step/1">${isUnderWay ? 'Go on' : 'Begin'}</a></p>`,
    ),
  )
})

app.post('/resume', async (req, res) => {
  const recovered = await recoveries.recover(undefined, req)
  if (recovered.status === 'recovered') {
    res.redirect(303, String(recovered.from.info['page']))
    return
  }
  flash(req.session, 'notice', 'There is nothing left to go on with.')
  res.redirect(303, '/')
})

app.get('/step/:number', (req, res, next) => {
  const step = STEPS[Number(req.params.number) - 1]
  if (step === undefined) {
    next()
    return
  }
  res.type('html').send(page(step.title, stepForm(req, step)))
})

app.post('/step/:number', async (req, res, next) => {
  const number = Number(req.params.number)
  const step = STEPS[number - 1]
  if (step === undefined) {
    next()
    return
  }
  const body = req.body as Record<string, string | undefined>
  await stateOf(req).update('order', (order) => {
    for (const [name] of step.fields) order[name] = String(body[name] ?? '')
  })
  res.redirect(303, number < STEPS.length ? `/step/${number + 1}` : '/check')
})

app.get('/check', (req, res) => {
  const order = stateOf(req).get('order')
  const lines = STEPS.flatMap(({ fields }) => fields).map(
    ([name, label]) => `<dt>${label}</dt><dd>${escaped(order[name] ?? '')}</dd>`,
  )
  res
    .type('html')
    .send(page('Is this right?', `${historyButtons(req)}<dl>${lines.join('')}</dl>${button(req, '/order', 'Order')}`))
})

for (const way of ['undo', 'redo'] as const) {
  app.post(`/${way}`, async (req, res) => {
    await stateOf(req)[way]()
    res.redirect(303, back(req))
  })
}

app.post('/order', async (req, res) => {
  await req.session.completeWorkflow()
  flash(req.session, 'notice', 'Thank you. Your tea is on its way.')
  res.redirect(303, '/')
})

app.use(((error, _req, res, next) => {
  if (isSessionError(error, 'CSRF_REFUSED', 'VALIDATION_FAILED')) res.status(400).send('That cannot be taken.')
  else next(error)
}) satisfies ErrorRequestHandler)

const server = app.listen(Number(process.env['PORT'] ?? 3000), '127.0.0.1', (error) => {
  if (error) stop(error)
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
})
process.once('SIGTERM', () => server.close())

/** Nobody can use a server that does not listen. */
function stop(error: NodeJS.ErrnoException): never {
  console.error(error.code === 'EADDRINUSE' ? 'The port is taken. Choose another one: PORT=3001' : error)
  process.exit(1)
}

function stateOf(req: Request) {
  return sessionState(req.session, options)
}

/** Where a button was pressed: a page of ours. */
function back(req: Request): string {
  const { from } = req.body as { from?: string }
  return from !== undefined && /^\/(step\/\d|check)$/.test(from) ? from : '/'
}

function stepForm(req: Request, { fields }: (typeof STEPS)[number]): string {
  const order = stateOf(req).get('order')
  const inputs = fields.map(
    ([name, label]) => `<label>${label} <input name="${name}" value="${escaped(order[name] ?? '')}"></label>`,
  )
  return `${historyButtons(req)}
    <form method="post" action="${req.path}">${csrfField(req)}${inputs.join('')}<button>Next</button></form>`
}

function historyButtons(req: Request): string {
  const state = stateOf(req)
  const from = `<input type="hidden" name="from" value="${req.path}">`
  return button(req, '/undo', 'Undo', state.canUndo, from) + button(req, '/redo', 'Redo', state.canRedo, from)
}

function button(req: Request, action: string, label: string, isEnabled = true, more = ''): string {
  return `<form method="post" action="${action}">${csrfField(req)}${more}
    <button${isEnabled ? '' : ' disabled'}>${label}</button></form>`
}

function page(title: string, body: string): string {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>${body}</html>`
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`)
}
