/**
 * The last five minutes of a market in rings of fixed size: one slot for each half second, which holds what was last known
 * in it. Time is when a frame came, so that a replay that stands still or goes back has a past, too.
 */

export const SLOT_MS = 500
export const SLOTS = 600

const LONGEST_PAUSE = 10
/** So many slots without a frame still show the one before: frames may come every few seconds. More are a gap. */

/** Which slots there are. What they hold is the business of those that extend it. */
class Ring {
  /** The newest slot's number; -1 before the first. */
  newest = -1
  #filled = 0

  /** How many slots there are to look at, the newest included. */
  get length() {
    return this.#filled
  }

  /**
   * Where in the arrays the slot stands that is `age` slots older than the newest.
   * @param {number} age 0 to `length` - 1
   */
  at(age) {
    return (this.newest - age + SLOTS) % SLOTS
  }

  /**
   * Go on to the slot of a moment. Returns: where it stands.
   * @param {number} now ms
   */
  advance(now) {
    const slot = Math.floor(now / SLOT_MS)
    if (this.newest < 0) {
      this.newest = slot
      this.#filled = 1
      this.empty(slot % SLOTS)
    }
    const skipped = slot - this.newest
    const repeats = skipped <= LONGEST_PAUSE
    if (skipped > SLOTS) this.newest = slot - SLOTS
    while (this.newest < slot) {
      const from = this.newest % SLOTS
      this.newest += 1
      if (repeats) this.copy(from, this.newest % SLOTS)
      else this.empty(this.newest % SLOTS)
    }
    this.#filled = Math.min(SLOTS, this.#filled + skipped)
    return slot % SLOTS
  }

  forget() {
    this.newest = -1
    this.#filled = 0
  }

  /** @param {number} _slot */
  empty(_slot) {
    throw new Error('a ring knows how to empty a slot')
  }

  /**
   * @param {number} _from
   * @param {number} _to
   */
  copy(_from, _to) {
    throw new Error('a ring knows how to copy a slot')
  }
}

/** The best prices and sizes over time; NaN where there were none. */
export class TopHistory extends Ring {
  bids = new Float64Array(SLOTS)
  asks = new Float64Array(SLOTS)
  bidSizes = new Float64Array(SLOTS)
  askSizes = new Float64Array(SLOTS)
  #columns = [this.bids, this.asks, this.bidSizes, this.askSizes]

  /**
   * @param {number} now
   * @param {import('./book.js').Book} book
   */
  record(now, { bids, asks }) {
    const slot = this.advance(now)
    this.bids[slot] = bids.length ? bids.prices[0] : NaN
    this.asks[slot] = asks.length ? asks.prices[0] : NaN
    this.bidSizes[slot] = bids.length ? bids.sizes[0] : NaN
    this.askSizes[slot] = asks.length ? asks.sizes[0] : NaN
  }

  /**
   * @override
   * @param {number} slot
   */
  empty(slot) {
    for (const column of this.#columns) column[slot] = NaN
  }

  /**
   * @override
   * @param {number} from
   * @param {number} to
   */
  copy(from, to) {
    for (const column of this.#columns) column[to] = column[from]
  }
}

export const HISTORY_LEVELS = 100
/** Levels a side that are kept: those nearer to the best are what a heatmap is looked at for. */

/** The price levels over time. */
export class DepthHistory extends Ring {
  /** How many levels of each side a slot has. */
  bidCounts = new Uint16Array(SLOTS)
  askCounts = new Uint16Array(SLOTS)
  /** Of a slot: `HISTORY_LEVELS` of the bids, then as many of the asks. */
  prices = new Float64Array(SLOTS * 2 * HISTORY_LEVELS)
  sizes = new Float32Array(SLOTS * 2 * HISTORY_LEVELS)

  /**
   * @param {number} now
   * @param {import('./book.js').Book} book
   */
  record(now, { bids, asks }) {
    const slot = this.advance(now)
    this.bidCounts[slot] = this.#write(2 * slot, bids)
    this.askCounts[slot] = this.#write(2 * slot + 1, asks)
  }

  /**
   * @param {number} half
   * @param {import('./book.js').Side} side
   */
  #write(half, side) {
    const count = Math.min(side.length, HISTORY_LEVELS)
    const start = half * HISTORY_LEVELS
    for (let i = 0; i < count; i++) {
      this.prices[start + i] = side.prices[i]
      this.sizes[start + i] = side.sizes[i]
    }
    return count
  }

  /**
   * @override
   * @param {number} slot
   */
  empty(slot) {
    this.bidCounts[slot] = 0
    this.askCounts[slot] = 0
  }

  /**
   * @override
   * @param {number} from
   * @param {number} to
   */
  copy(from, to) {
    const width = 2 * HISTORY_LEVELS
    this.bidCounts[to] = this.bidCounts[from]
    this.askCounts[to] = this.askCounts[from]
    this.prices.copyWithin(to * width, from * width, (from + 1) * width)
    this.sizes.copyWithin(to * width, from * width, (from + 1) * width)
  }
}
