import { MAX_LEVELS } from './book.js'

/** Which price levels of a side changed when. */
export class Changes {
  changedAt = new Float64Array(MAX_LEVELS)
  #prices = new Float64Array(MAX_LEVELS)
  #sizes = new Float64Array(MAX_LEVELS)
  #times = new Float64Array(MAX_LEVELS)
  #length = 0

  /**
   * Compare a side with what it was at the last call. Both go from the best price on, so one pass does.
   * @param {import('./book.js').Side} side
   * @param {number} direction 1 when prices rise from the best on, -1 when they fall
   * @param {number} now
   */
  follow(side, direction, now) {
    let before = 0
    const isFirst = this.#length === 0
    for (let i = 0; i < side.length; i++) {
      const price = side.prices[i]
      while (before < this.#length && direction * (this.#prices[before] - price) < 0) before += 1
      const isKnown = before < this.#length && this.#prices[before] === price
      // A level that comes into view at the far end is not news.
      const isNews = isKnown ? this.#sizes[before] !== side.sizes[i] : before < this.#length && !isFirst
      this.changedAt[i] = isNews ? now : isKnown ? this.#times[before] : -Infinity
    }
    this.#length = side.length
    this.#prices.set(side.prices.subarray(0, side.length))
    this.#sizes.set(side.sizes.subarray(0, side.length))
    this.#times.set(this.changedAt.subarray(0, side.length))
  }

  forget() {
    this.#length = 0
  }
}
