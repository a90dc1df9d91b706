// The race of the demo without a browser, which would send six requests at a time: all at once, to both servers.
import { Client } from './http.js'

export interface RaceResult {
  readonly name: string
  /** Which fields are in the session afterwards. */
  readonly kept: readonly number[]
}

export const RACERS = 50

export async function runRace(url: string): Promise<RaceResult[]> {
  const sides = ['Sojourn', 'express-session'].map((name) => {
    return { name, client: new Client(`${url}/${name.toLowerCase()}`) }
  })
  await Promise.all(sides.map(({ client }) => client.post('/race')))
  const requests = Array.from({ length: RACERS }, (_, racer) => {
    return sides.map(({ client }) => client.post(`/race/${racer}`))
  })
  for (const { status } of await Promise.all(requests.flat())) {
    if (status !== 200) throw new Error(`A request of the race was answered ${status}.`)
  }
  return Promise.all(
    sides.map(async ({ name, client }) => {
      const { kept } = (await client.get('/race')).json<{ kept: number[] }>()
      return { name, kept }
    }),
  )
}
