// Many small texts in few large buffers (slab allocation), outside of the JavaScript heap.

/** The blocks of a size get larger, each twice as large as the one before, up to this. */
const MAX_SLAB_BYTES = 256 * 1024
const MIN_SLAB_BYTES = 4 * 1024
const MIN_SLOT_BYTES = 32
/** A place is the number of the slab times this, and the number of the slot. */
const SLOTS = MAX_SLAB_BYTES / MIN_SLOT_BYTES
/** Each slot begins with the length of its text in bytes, doubled, and 1 if the text takes two bytes a character. */
const HEADER_BYTES = 4

/** Keeps texts of any characters. What rests here costs no garbage collection. */
export class TextSlabs {
  /** By number, from 1. */
  readonly #slabs: (Slab | undefined)[] = [undefined]
  /** Numbers of slabs that are gone. */
  readonly #vacant: number[] = []
  /** By bytes of a slot. */
  readonly #sizes = new Map<number, SlotSize>()

  /** Keeps a text. Returns where it is: an integer from 1, below 2^31 for some 60 GB of texts. */
  add(text: string): number {
    const isWide = WIDE.test(text)
    const length = isWide ? text.length * 2 : text.length
    const slab = this.#slabWithRoom(this.#sizeFor(HEADER_BYTES + length))
    const { size } = slab
    const slot = slab.take()
    if (slab.isFull) size.roomy.delete(slab)
    const at = slot * size.slotBytes
    slab.bytes.writeUInt32LE(length * 2 + Number(isWide), at)
    slab.bytes.write(text, at + HEADER_BYTES, isWide ? 'utf16le' : 'latin1')
    return slab.number * SLOTS + slot
  }

  get(place: number): string {
    const { bytes, size } = this.#slabOf(place)
    const at = (place % SLOTS) * size.slotBytes
    const header = bytes.readUInt32LE(at)
    const start = at + HEADER_BYTES
    return bytes.toString(header % 2 === 1 ? 'utf16le' : 'latin1', start, start + (header >>> 1))
  }

  delete(place: number): void {
    const slab = this.#slabOf(place)
    const { size } = slab
    slab.giveBack(place % SLOTS)
    size.roomy.add(slab)
    // The last one stays, so that a text that comes and goes takes no new block each time.
    if (!slab.isEmpty || (size.roomy.size === 1 && slab.bytes.length <= MAX_SLAB_BYTES)) return
    size.roomy.delete(slab)
    size.slabs--
    this.#slabs[slab.number] = undefined
    this.#vacant.push(slab.number)
  }

  /** Moves a text out of a block that is half empty, so that the block can be given back. Returns where it is then. */
  tidy(place: number): number {
    const slab = this.#slabOf(place)
    const [other] = slab.size.roomy
    if (!slab.isSparse || other === undefined || other === slab) return place
    const text = this.get(place)
    this.delete(place)
    return this.add(text)
  }

  #slabOf(place: number): Slab {
    return this.#slabs[Math.floor(place / SLOTS)] as Slab
  }

  /** Eight sizes between a power of two and the next: at most an eighth of a slot stays empty. */
  #sizeFor(bytes: number): SlotSize {
    const step = 2 ** Math.max(2, 28 - Math.clz32(bytes))
    const slotBytes = Math.max(MIN_SLOT_BYTES, Math.ceil(bytes / step) * step)
    const present = this.#sizes.get(slotBytes)
    if (present) return present
    const size = { slotBytes, slabs: 0, roomy: new Set<Slab>() }
    this.#sizes.set(slotBytes, size)
    return size
  }

  #slabWithRoom(size: SlotSize): Slab {
    const [present] = size.roomy
    if (present) return present
    const slab = new Slab(this.#vacant.pop() ?? this.#slabs.length, size)
    this.#slabs[slab.number] = slab
    size.slabs++
    size.roomy.add(slab)
    return slab
  }
}

/** The slabs whose slots have one size. */
interface SlotSize {
  readonly slotBytes: number
  /** How many there are. */
  slabs: number
  /** Those that have room. The first is filled before the others. */
  readonly roomy: Set<Slab>
}

/** One block of memory, cut into slots of one size. */
class Slab {
  readonly number: number
  readonly size: SlotSize
  readonly bytes: Buffer
  readonly #slots: number
  #used = 0
  /** Slots from here on have never been used. */
  #fresh = 0
  /** The first of those that were given back; each has the number of the next in the place of its length. */
  #free = NO_SLOT

  constructor(number: number, size: SlotSize) {
    this.number = number
    this.size = size
    const bytes = Math.min(MAX_SLAB_BYTES, MIN_SLAB_BYTES * 2 ** size.slabs)
    this.#slots = Math.max(1, Math.floor(bytes / size.slotBytes))
    this.bytes = Buffer.allocUnsafeSlow(this.#slots * size.slotBytes)
  }

  get isFull(): boolean {
    return this.#used === this.#slots
  }

  get isEmpty(): boolean {
    return this.#used === 0
  }

  get isSparse(): boolean {
    return this.#used <= this.#slots / 2
  }

  /** A slot that is not in use; there must be one. */
  take(): number {
    this.#used++
    if (this.#free === NO_SLOT) return this.#fresh++
    const slot = this.#free
    this.#free = this.bytes.readUInt32LE(slot * this.size.slotBytes)
    return slot
  }

  /** What was in the slot does not stay in memory: it may have been a secret. */
  giveBack(slot: number): void {
    const at = slot * this.size.slotBytes
    this.#used--
    this.bytes.fill(0, at, at + this.size.slotBytes)
    this.bytes.writeUInt32LE(this.#free, at)
    this.#free = slot
  }
}

/** The end of the free slots. */
const NO_SLOT = 0xffff_ffff

/** A character that Latin-1 has not. */
const WIDE = /[\u0100-\uffff]/
