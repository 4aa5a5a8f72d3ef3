/** One book as the newest frame has it, in arrays that are filled anew and never thrown away. */

/** @typedef {import('./connection.js').Frame} Frame */
/** @typedef {import('./connection.js').WireLevel} WireLevel */
/** @typedef {import('./connection.js').WireOrder} WireOrder */

export const MAX_LEVELS = 1000

/** One side: price levels, best first, and the single orders where the frame has them. */
export class Side {
  /** How many levels. */
  length = 0
  prices = new Float64Array(MAX_LEVELS)
  sizes = new Float64Array(MAX_LEVELS)
  /** Cumulative, from the best level on. */
  totals = new Float64Array(MAX_LEVELS)
  counts = new Int32Array(MAX_LEVELS)
  /** Orders of level `i` stand at `orderEnds[i - 1]` to `orderEnds[i]`, first in line first. */
  orderEnds = new Int32Array(MAX_LEVELS)
  orderSizes = new Float64Array(1024)
  orderAgesMs = new Float64Array(1024)

  /** @param {WireLevel[]} levels */
  readLevels(levels) {
    this.length = Math.min(levels.length, MAX_LEVELS)
    for (let i = 0; i < this.length; i++) {
      const level = levels[i]
      this.prices[i] = level.price
      this.sizes[i] = level.quantity
      this.totals[i] = level.total_quantity
      this.counts[i] = level.order_count
    }
  }

  /** @param {WireOrder[]} orders */
  readOrders(orders) {
    if (orders.length > this.orderSizes.length) {
      const capacity = 2 ** Math.ceil(Math.log2(orders.length))
      this.orderSizes = new Float64Array(capacity)
      this.orderAgesMs = new Float64Array(capacity)
    }
    let level = -1
    let total = 0
    for (let k = 0; k < orders.length; k++) {
      const order = orders[k]
      if (level < 0 || this.prices[level] !== order.price) {
        if (level + 1 === MAX_LEVELS) break
        level += 1
        this.prices[level] = order.price
        this.sizes[level] = 0
        this.counts[level] = 0
      }
      total += order.quantity
      this.sizes[level] = this.sizes[level] + order.quantity
      this.counts[level] = this.counts[level] + 1
      this.totals[level] = total
      this.orderEnds[level] = k + 1
      this.orderSizes[k] = order.quantity
      this.orderAgesMs[k] = order.age_ms
    }
    this.length = level + 1
  }
}

/** Both sides, and what the frame says of them. */
export class Book {
  bids = new Side()
  asks = new Side()
  /** NaN before the first frame. */
  sequence = NaN
  /** The market's time, as the frame has it. */
  timestamp = ''
  hasOrders = false

  /** @param {Frame} frame */
  read(frame) {
    const { data } = frame
    this.sequence = frame.sequence
    this.timestamp = frame.timestamp
    this.hasOrders = data.format === 'MBO'
    if (data.format === 'MBO') {
      this.bids.readOrders(data.bids)
      this.asks.readOrders(data.asks)
    } else {
      this.bids.readLevels(data.bids)
      this.asks.readLevels(data.asks)
    }
  }

  clear() {
    this.bids.length = 0
    this.asks.length = 0
    this.sequence = NaN
    this.timestamp = ''
  }

  get isKnown() {
    return !Number.isNaN(this.sequence)
  }

  /** NaN where the side is empty. */
  get bestBid() {
    return this.bids.length ? this.bids.prices[0] : NaN
  }

  get bestAsk() {
    return this.asks.length ? this.asks.prices[0] : NaN
  }
}
