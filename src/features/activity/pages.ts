// All that a query means, a page in memory at a time.
import type { Activity } from '../../events/activity-hook.js'
import type { ActivityArchive, ActivityPage, ActivityQuery } from './sinks/sink.js'

const PAGE_SIZE = 1_000

/** All activities that a query means, oldest first, a page in memory at a time. */
export async function* activitiesOf(
  archive: ActivityArchive,
  query: ActivityQuery,
): AsyncGenerator<Activity, void, undefined> {
  for await (const page of pagesOf(archive, query)) yield* page
}

/** The same by the page. */
export async function* pagesOf(
  archive: ActivityArchive,
  query: ActivityQuery,
): AsyncGenerator<readonly Activity[], void, undefined> {
  let after: string | undefined
  do {
    const page: ActivityPage = await archive.page({ ...query, limit: PAGE_SIZE, after, order: 'oldest-first' })
    yield page.activities
    after = page.next
  } while (after !== undefined)
}
