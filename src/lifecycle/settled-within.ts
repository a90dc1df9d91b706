// To wait for something, but not for ever.
import type { Soon } from '../soon.js'

/** What a task answers, or `null` when it fails or takes longer. */
export async function settledWithin<T>(ms: number, task: () => Soon<T>): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(resolve, ms, null)
  })
  try {
    return await Promise.race([task(), late])
  } catch {
    return null
  } finally {
    clearTimeout(timer)
  }
}
