// The example of sessions that are bound to a device, driven as by a proxy that ends TLS.
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { DeviceBrowser, HTTPS } from '../support/device.js'
import { type Answer, Client, send } from '../support/http.js'
import { type Program, startProgram } from '../support/processes.js'

let program: Program
beforeAll(async () => {
  program = await startProgram('examples/device-bound/server.ts', [], { PORT: '0' })
  // It is a compiler and a program, and a machine may do much else at the same time.
}, 120_000)
afterAll(() => program?.stop())

test('a login is bound to the device, pays from there, and is of no use elsewhere', async () => {
  const browser = new DeviceBrowser(new Client(program.url))
  const post = (path: string, fields: Record<string, string> = {}, client = browser.client): Promise<Answer> =>
    send(`${program.url}${path}`, {
      method: 'POST',
      payload: new URLSearchParams(fields).toString(),
      headers: {
        ...HTTPS,
        cookie: client.cookieHeader,
        'content-type': 'application/x-www-form-urlencoded',
        'sec-fetch-site': 'same-origin',
      },
    })
  expect((await browser.get('/')).body).toContain('Log in')
  const offer = await post('/login', { name: 'alice', password: 'correct horse' })
  expect(offer.status).toBe(303)
  browser.client.keep(offer.setCookies)
  expect((await browser.get('/')).body).toContain('This session is <b>unbound</b>')
  expect((await post('/transfer')).status).toBe(401)
  expect((await browser.register(offer)).status).toBe(200)
  const page = (await browser.get('/')).body
  expect(page).toContain('This session is <b>bound</b>')
  expect(page).toContain('bound to its device (this one)')
  expect((await post('/transfer')).body).toBe('Paid, from the device that has logged in.')
  browser.loseCookie()
  expect((await post('/transfer')).status).toBe(401)
  expect((await browser.get('/')).body).toContain('This session is <b>bound</b>')
  expect((await post('/logout')).status).toBe(303)
  expect(await browser.refresh()).toBe('forgets')
})
