// Detaching twice does no harm.

/** The task, but only the first time. */
export function once(task: () => void): () => void {
  let isDone = false
  return () => {
    if (isDone) return
    isDone = true
    task()
  }
}
