// The signals of the memory store: heard by all who hold the store.
import { EventEmitter } from 'node:events'
import type { SessionSignals } from '../../record/signals.js'

/** Signals inside of one process. They arrive in a turn of their own, as they would over a network. */
export function memorySignals(): SessionSignals {
  const emitter = new EventEmitter().setMaxListeners(0)
  return {
    async send(channel, text) {
      queueMicrotask(() => emitter.emit(`to ${channel}`, text))
    },
    async listen(channel, listener) {
      emitter.on(`to ${channel}`, listener)
      return async () => void emitter.off(`to ${channel}`, listener)
    },
  }
}
