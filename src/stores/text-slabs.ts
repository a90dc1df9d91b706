// Many small texts in few large buffers (slab allocation), outside of the JavaScript heap.

const SLAB_BYTES = 256 * 1024
const MIN_SLOT_BYTES = 32
/** Slots are numbered within this range, slabs above it. */
const SLOTS = SLAB_BYTES / MIN_SLOT_BYTES
/** Each slot begins with the length of its text in bytes, doubled, and 1 if the text takes two bytes a character. */
const HEADER_BYTES = 4

/** Keeps texts of any characters. What rests here costs no garbage collection. */
export class TextSlabs {
  /** By number, from 1. */
  readonly #slabs: (Slab | undefined)[] = [undefined]
  /** Numbers of slabs that are gone. */
  readonly #vacant: number[] = []
  /** The slabs that have room, by size of slot. */
  readonly #roomy = new Map<number, Set<Slab>>()

  /** Keeps a text. Returns where it is: an integer above 0 that fits 32 bits. */
  add(text: string): number {
    const isWide = WIDE.test(text)
    const length = isWide ? text.length * 2 : text.length
    const slab = this.#slabWithRoom(slotBytesFor(HEADER_BYTES + length))
    const slot = slab.take()
    if (slab.isFull) this.#roomyOf(slab).delete(slab)
    const at = slot * slab.slotBytes
    slab.bytes.writeUInt32LE(length * 2 + Number(isWide), at)
    slab.bytes.write(text, at + HEADER_BYTES, isWide ? 'utf16le' : 'latin1')
    return slab.number * SLOTS + slot
  }

  get(place: number): string {
    const slab = this.#slabOf(place)
    const at = (place % SLOTS) * slab.slotBytes
    const header = slab.bytes.readUInt32LE(at)
    const start = at + HEADER_BYTES
    return slab.bytes.toString(header % 2 === 1 ? 'utf16le' : 'latin1', start, start + (header >>> 1))
  }

  delete(place: number): void {
    const slab = this.#slabOf(place)
    const roomy = this.#roomyOf(slab)
    slab.giveBack(place % SLOTS)
    roomy.add(slab)
    // The last one stays, so that a text that comes and goes takes no new block each time.
    if (!slab.isEmpty || roomy.size === 1) return
    roomy.delete(slab)
    this.#slabs[slab.number] = undefined
    this.#vacant.push(slab.number)
  }

  #slabOf(place: number): Slab {
    return this.#slabs[Math.floor(place / SLOTS)] as Slab
  }

  #slabWithRoom(slotBytes: number): Slab {
    const roomy = this.#roomyOf({ slotBytes })
    const [present] = roomy
    if (present) return present
    const slab = new Slab(this.#vacant.pop() ?? this.#slabs.length, slotBytes)
    this.#slabs[slab.number] = slab
    roomy.add(slab)
    return slab
  }

  #roomyOf({ slotBytes }: Pick<Slab, 'slotBytes'>): Set<Slab> {
    let roomy = this.#roomy.get(slotBytes)
    if (!roomy) {
      roomy = new Set()
      this.#roomy.set(slotBytes, roomy)
    }
    return roomy
  }
}

/** One block of memory, cut into slots of one size. */
class Slab {
  readonly number: number
  readonly slotBytes: number
  readonly bytes: Buffer
  readonly #slots: number
  #used = 0
  /** Slots from here on have never been used. */
  #fresh = 0
  /** The first of those that were given back; each has the number of the next in the place of its length. */
  #free = NONE

  constructor(number: number, slotBytes: number) {
    this.number = number
    this.slotBytes = slotBytes
    this.#slots = Math.max(1, Math.floor(SLAB_BYTES / slotBytes))
    this.bytes = Buffer.allocUnsafeSlow(this.#slots * slotBytes)
  }

  get isFull(): boolean {
    return this.#used === this.#slots
  }

  get isEmpty(): boolean {
    return this.#used === 0
  }

  /** A slot that is not in use; there must be one. */
  take(): number {
    this.#used++
    if (this.#free === NONE) return this.#fresh++
    const slot = this.#free
    this.#free = this.bytes.readUInt32LE(slot * this.slotBytes)
    return slot
  }

  giveBack(slot: number): void {
    this.#used--
    this.bytes.writeUInt32LE(this.#free, slot * this.slotBytes)
    this.#free = slot
  }
}

/** The end of the free slots. */
const NONE = 0xffff_ffff

/** Eight sizes between a power of two and the next: at most an eighth of a slot stays empty. */
function slotBytesFor(bytes: number): number {
  if (bytes <= MIN_SLOT_BYTES) return MIN_SLOT_BYTES
  const step = 2 ** (28 - Math.clz32(bytes))
  return Math.ceil(bytes / step) * step
}

/** A character that Latin-1 has not. */
const WIDE = /[\u0100-\uffff]/
