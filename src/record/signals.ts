// Signals: short texts that every process on the same data hears at once, or never. What is over everywhere is told by them.

/**
 * The signals of a store. Nothing is kept: who does not listen does not hear, and a connection that is lost loses what is sent
 * meanwhile. Who must not miss one asks the store besides.
 */
export interface SessionSignals {
  /**
   * Tells a text to all who listen to the channel, this process included, in no order that is kept. `channel` is 1 to 80
   * letters, digits, `-`, `_`, `.`.
   */
  send(channel: string, text: string): Promise<void>
  /**
   * Calls `listener` for each text that is sent to the channel, until the function that this resolves to is called. Resolves when
   * what is sent from then on is heard. A listener must not throw.
   */
  listen(channel: string, listener: (text: string) => void): Promise<() => Promise<void>>
}
