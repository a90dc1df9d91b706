// Many small store calls of one operation, some of them under way at once.

/** Store calls of one operation that are under way at once. */
const PARALLEL = 50

/** Runs `task` for every item, so many at once. Runs all of them, and rejects with the first failure then. */
export async function inParallel<T>(items: readonly T[], task: (item: T) => Promise<void>): Promise<void> {
  let next = 0
  const failures: unknown[] = []
  const work = async (): Promise<void> => {
    while (next < items.length) {
      const item = items[next++] as T
      try {
        await task(item)
      } catch (error) {
        failures.push(error)
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(PARALLEL, items.length) }, work))
  if (failures.length > 0) throw failures[0]
}
