/**
 * Which instant lies how far in a recorded file, as far as that is known.
 *
 * The server tells a replay's position as an instant and as a share of the file, but takes an instant alone, and a file's
 * records are not spread evenly over time. So every position that is told is remembered, and between two of them the
 * way is taken to be even. Where nothing is known yet, the file's end is a place to look from.
 */

const MAX_POINTS = 512
const SAME_PERCENT = 0.02

/** Before everything and after everything that can be in a file. */
const BEFORE_MS = 0
const AFTER_MS = Date.UTC(2200, 0)

/** What is known of one file. */
export class FileTimes {
  /** @type {{ percent: number, ms: number }[]} by percent */
  #points = []

  /**
   * @param {number} percent
   * @param {number} ms since the epoch
   */
  learn(percent, ms) {
    const place = this.#points.findIndex((point) => point.percent >= percent - SAME_PERCENT)
    const near = this.#points[place]
    if (near && near.percent <= percent + SAME_PERCENT) {
      near.percent = percent
      near.ms = ms
      return
    }
    if (this.#points.length === MAX_POINTS) this.#points = this.#points.filter((_, i) => i % 2 === 0 || i === MAX_POINTS - 1)
    this.#points.push({ percent, ms })
    this.#points.sort((a, b) => a.percent - b.percent)
  }

  /**
   * Where to seek for this share of the file.
   * @param {number} percent 0 to 100
   * @returns {number} ms since the epoch
   */
  instantAt(percent) {
    if (percent <= 0) return BEFORE_MS
    if (percent >= 100) return AFTER_MS
    const above = this.#points.findIndex((point) => point.percent >= percent)
    if (above < 0) return AFTER_MS
    const [from, to] = [this.#points[above - 1], this.#points[above]]
    if (to.percent === percent) return to.ms
    if (!from) return BEFORE_MS
    return from.ms + ((to.ms - from.ms) * (percent - from.percent)) / (to.percent - from.percent)
  }
}
