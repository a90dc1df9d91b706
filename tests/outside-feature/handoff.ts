// Hand-off: a session shows a code, and a session on another device takes over its fields with it. A code works once, for five
// minutes, and only while the session that offered it goes on. A session has one code at most: the last that it offered.
import { randomBytes } from 'node:crypto'
import type { Session, SessionManager } from 'sojourn'
import { type Drawer, inside } from 'sojourn/inside'

const TTL_SECONDS = 300
/** What a code stands for: the fields of its session. */
const CODES = 'handoff-codes'
/** The code of a session, by its ID: found when nothing but that is known. */
const OFFERS = 'handoff-offers'

export class Handoff {
  readonly #manager: SessionManager
  readonly #stop: () => void
  readonly #underWay = new Set<Promise<void>>()

  constructor(manager: SessionManager) {
    this.#manager = manager
    this.#stop = manager.events.on('ended', ({ id, successor, goesOn }) => {
      const follow = goesOn && successor !== undefined ? this.#move(id, successor) : this.#forget(id)
      const work = follow.finally(() => this.#underWay.delete(work))
      this.#underWay.add(work)
    })
  }

  /** A code for another device, in the place of the one before. What the session holds now goes with it. */
  async offer(session: Session): Promise<string> {
    await session.save()
    const { notes } = this.#manager
    const { id } = session
    const code = randomBytes(16).toString('base64url')
    const texts = JSON.stringify([...inside(session).texts()])
    await notes.put(CODES, code, texts, { ttlSeconds: TTL_SECONDS })
    while (!(await notes.put(OFFERS, id, code, { ttlSeconds: TTL_SECONDS, ifAbsent: true }))) await this.#forget(id)
    try {
      // Last, and at once: it fails when the session has ended, and then nobody would take the code back.
      await codeOf(session).update(() => code)
    } catch (error) {
      await this.#forget(id)
      throw error
    }
    return code
  }

  /** Takes over what a code stands for. Of all who try it, one gets it. */
  async accept(session: Session, code: string): Promise<boolean> {
    const texts = await this.#manager.notes.take(CODES, code)
    if (texts === null) return false
    inside(session).restore(new Map(JSON.parse(texts) as [string, string][]))
    return true
  }

  /** The code that this session offers, when nobody has taken it yet. */
  async offered(session: Session): Promise<string | undefined> {
    const code = codeOf(session).get()
    return code !== undefined && (await this.#manager.notes.get(CODES, code)) !== null ? code : undefined
  }

  /** Waits until what sessions that have ended leave behind is gone. */
  async settled(): Promise<void> {
    await Promise.all(this.#underWay)
  }

  async close(): Promise<void> {
    this.#stop()
    await this.settled()
  }

  async #forget(id: string): Promise<void> {
    const code = await this.#manager.notes.take(OFFERS, id)
    if (code !== null) await this.#manager.notes.delete(CODES, code)
  }

  async #move(id: string, successor: string): Promise<void> {
    const { notes } = this.#manager
    const code = await notes.take(OFFERS, id)
    if (code === null) return
    const isFirst = await notes.put(OFFERS, successor, code, { ttlSeconds: TTL_SECONDS, ifAbsent: true })
    // The successor has offered another one meanwhile.
    if (!isFirst) await notes.delete(CODES, code)
  }
}

function codeOf(session: Session): Drawer<string> {
  return inside(session).drawer<string>('handoff.code')
}
