/** The top of the chosen book in figures, and what a screen reader is told of the book. */

import { element, write } from './element.js'
import { rowTexts } from './ladder.js'
import { NOTHING, exact, short } from './numbers.js'

/** @typedef {import('./book.js').Side} Side */

const RATE_SPAN_MS = 3_000
const TABLE_INTERVAL_MS = 1_000
const SPOKEN_INTERVAL_MS = 15_000
/** A voice needs some seconds for two prices; more often would be noise. */

const TABLE_LEVELS = 10

/** Writes about one book. */
export class TopOfBook {
  #book
  #painter
  #bid = element('best-bid', HTMLElement)
  #ask = element('best-ask', HTMLElement)
  #spread = element('spread', HTMLElement)
  #mid = element('mid', HTMLElement)
  #imbalance = element('imbalance', HTMLElement)
  #rate = element('change-rate', HTMLElement)
  #table = element('ladder-table', HTMLTableSectionElement)
  #spoken = element('spoken', HTMLElement)
  #symbol = ''
  #rateFrom = { time: NaN, sequence: NaN }
  #tableWrittenAt = -Infinity
  #spokenAt = -Infinity
  precisions = { price: 2, quantity: 4 }
  tickSize = 0.01

  /**
   * @param {import('./book.js').Book} book
   * @param {import('./painter.js').Painter} painter
   */
  constructor(book, painter) {
    this.#book = book
    this.#painter = painter
  }

  /** @param {string} symbol */
  show(symbol) {
    this.#symbol = symbol
    this.#rateFrom = { time: NaN, sequence: NaN }
    this.#tableWrittenAt = this.#spokenAt = -Infinity
    write(this.#rate, NOTHING)
    this.#painter.want(this)
  }

  /** The book has changed. */
  update() {
    this.#painter.want(this)
  }

  /** @param {number} now */
  draw(now) {
    const { bids, asks, bestBid, bestAsk, sequence } = this.#book
    const spread = bestAsk - bestBid
    write(this.#bid, this.#best(bids))
    write(this.#ask, this.#best(asks))
    write(this.#spread, Number.isNaN(spread) ? NOTHING : `${spread.toFixed(this.precisions.price)} (${short(spread / this.tickSize)} t)`)
    write(this.#mid, Number.isNaN(spread) ? NOTHING : ((bestBid + bestAsk) / 2).toFixed(this.precisions.price + 1))
    write(this.#imbalance, Number.isNaN(spread) ? NOTHING : `${((100 * bids.sizes[0]) / (bids.sizes[0] + asks.sizes[0])).toFixed(0)} %`)
    document.title = Number.isNaN(spread) ? `${this.#symbol} · market-depth` : `${this.#bidPrice()} | ${this.#askPrice()} ${this.#symbol}`
    this.#writeRate(now, sequence)
    if (now - this.#tableWrittenAt >= TABLE_INTERVAL_MS) {
      this.#tableWrittenAt = this.#book.isKnown ? now : -Infinity
      this.#writeTable()
    }
    if (this.#book.isKnown && now - this.#spokenAt >= SPOKEN_INTERVAL_MS) {
      this.#spokenAt = now
      this.speak()
    }
    return false
  }

  /** Tell the best prices to who cannot see them. */
  speak() {
    const bid = this.#book.bids.length ? `best bid ${this.#bidPrice()}` : 'no bids'
    const ask = this.#book.asks.length ? `best ask ${this.#askPrice()}` : 'no asks'
    write(this.#spoken, `${this.#symbol}: ${bid}, ${ask}`)
  }

  #bidPrice() {
    return exact(this.#book.bestBid, this.precisions.price)
  }

  #askPrice() {
    return exact(this.#book.bestAsk, this.precisions.price)
  }

  /** @param {Side} side */
  #best(side) {
    if (!side.length) return NOTHING
    return `${exact(side.prices[0], this.precisions.price)} × ${side.sizes[0].toFixed(this.precisions.quantity)}`
  }

  /**
   * @param {number} now
   * @param {number} sequence
   */
  #writeRate(now, sequence) {
    const from = this.#rateFrom
    if (Number.isNaN(from.sequence) || sequence < from.sequence) {
      this.#rateFrom = { time: now, sequence }
    } else if (now - from.time >= RATE_SPAN_MS) {
      write(this.#rate, short((sequence - from.sequence) / ((now - from.time) / 1000)))
      this.#rateFrom = { time: now, sequence }
    }
  }

  #writeTable() {
    const { bids, asks } = this.#book
    const rows = [
      ...Array.from({ length: Math.min(TABLE_LEVELS, asks.length) }, (_, i) => ({ name: 'Ask', side: asks, i })).reverse(),
      ...Array.from({ length: Math.min(TABLE_LEVELS, bids.length) }, (_, i) => ({ name: 'Bid', side: bids, i })),
    ]
    while (this.#table.rows.length > rows.length) this.#table.deleteRow(-1)
    while (this.#table.rows.length < rows.length) {
      const row = this.#table.insertRow()
      for (let i = 0; i < 5; i++) row.insertCell()
    }
    rows.forEach(({ name, side, i }, at) => {
      const { cells } = /** @type {HTMLTableRowElement} */ (this.#table.rows[at])
      ;[name, ...rowTexts(side, i, this.precisions)].forEach((text, column) => {
        write(/** @type {HTMLTableCellElement} */ (cells[column]), text)
      })
    })
  }
}
