// Memory that is in use, with what is garbage collected before.
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

export function collectGarbage(): void {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
}

/** Bytes of the JavaScript heap. */
export function bytesOfHeap(): number {
  collectGarbage()
  return process.memoryUsage().heapUsed
}

/** Bytes outside of it, in buffers and typed arrays. */
export function bytesOfBuffers(): number {
  // What the first finds to be garbage is freed by the second.
  for (let times = 0; times < 2; times++) collectGarbage()
  return process.memoryUsage().arrayBuffers
}
