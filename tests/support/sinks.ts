// A sink that does as a test tells it.
import type { Activity, ActivitySink } from 'sojourn/activity'

/** Keeps what it gets. `behave` is called with each batch first: it may throw, or return a promise to wait for. */
export class TestSink implements ActivitySink {
  readonly name: string
  readonly kept: Activity[] = []
  /** The batches that it was asked to write, those that failed included. */
  readonly batches: (readonly Activity[])[] = []
  closed = 0
  behave: (batch: readonly Activity[]) => unknown = () => undefined

  constructor(name = 'test') {
    this.name = name
  }

  get types(): string[] {
    return this.kept.map(({ type }) => type)
  }

  async write(activities: readonly Activity[]): Promise<void> {
    this.batches.push(activities)
    await this.behave(activities)
    this.kept.push(...activities)
  }

  close(): void {
    this.closed++
  }

  /** From now on it never answers. Returns what lets it go on. */
  hang(): () => void {
    let go = (): void => {}
    const gate = new Promise<void>((resolve) => {
      go = resolve
    })
    this.behave = () => gate
    return () => {
      this.behave = () => undefined
      go()
    }
  }
}
