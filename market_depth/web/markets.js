/** The markets in a row: each with its mid and how far that has moved. What was chosen always has a place there. */

import { Book } from './book.js'
import { write } from './element.js'
import { TopHistory } from './history.js'
import { NOTHING } from './numbers.js'

/**
 * @typedef {{
 *   symbol: string, venue: string, source: string, tick_size: string, lot_size: string,
 *   price_precision: number, quantity_precision: number, mbo: boolean,
 * }} Instrument as `/api/symbols` has it
 */

export const MAX_TILES = 12
/** A server may have thousands of symbols: so many are watched beside the one that is looked at. */

/** One market: its best prices now and over time. */
class Tile {
  book = new Book()
  history = new TopHistory()
  button = document.createElement('button')
  #name = document.createElement('span')
  #mid = document.createElement('strong')
  #change = document.createElement('span')
  #painter

  /**
   * @param {Instrument} instrument
   * @param {import('./painter.js').Painter} painter
   * @param {() => void} onChoose
   */
  constructor(instrument, painter, onChoose) {
    this.instrument = instrument
    this.#painter = painter
    this.button.type = 'button'
    this.#name.textContent = instrument.symbol
    this.#change.className = 'quiet'
    this.button.append(this.#name, this.#mid, this.#change)
    this.button.addEventListener('click', onChoose)
    painter.want(this)
  }

  /** @param {import('./connection.js').Frame} frame */
  onFrame(frame) {
    this.book.read(frame)
    this.history.record(performance.now(), this.book)
    this.#painter.want(this)
  }

  /** @param {string} message */
  onError(message) {
    this.button.title = message
  }

  draw() {
    const mid = (this.book.bestBid + this.book.bestAsk) / 2
    const { history } = this
    const oldest = history.at(history.length - 1)
    const change = history.length ? (mid / ((history.bids[oldest] + history.asks[oldest]) / 2) - 1) * 100 : NaN
    write(this.#mid, Number.isNaN(mid) ? NOTHING : mid.toFixed(this.instrument.price_precision + 1))
    write(this.#change, signed(change))
    return false
  }
}

/** @param {number} percent */
function signed(percent) {
  if (!Number.isFinite(percent)) return NOTHING
  const text = Math.abs(percent).toFixed(2)
  return `${Number(text) === 0 ? '' : percent < 0 ? '−' : '+'}${text} %`
}

/** The row. */
export class Markets {
  #row
  #connection
  #painter
  #onChoose
  /** @type {Map<string, { tile: Tile, end: () => void }>} */
  #tiles = new Map()

  /**
   * @param {HTMLElement} row
   * @param {import('./connection.js').Connection} connection
   * @param {import('./painter.js').Painter} painter
   * @param {(symbol: string) => void} onChoose
   */
  constructor(row, connection, painter, onChoose) {
    this.#row = row
    this.#connection = connection
    this.#painter = painter
    this.#onChoose = onChoose
  }

  /** The symbols in the row, in its order. */
  get symbols() {
    return [...this.#tiles.keys()]
  }

  /**
   * Show these markets, the chosen one among them. Those that are shown already keep what they know.
   * @param {Instrument[]} instruments
   * @param {string} chosen
   */
  show(instruments, chosen) {
    const wanted = instruments.slice(0, MAX_TILES)
    const missing = instruments.find(({ symbol }) => symbol === chosen)
    if (missing && !wanted.includes(missing)) wanted[MAX_TILES - 1] = missing
    for (const [symbol, { tile, end }] of this.#tiles) {
      if (wanted.some((instrument) => instrument.symbol === symbol)) continue
      end()
      tile.button.remove()
      this.#tiles.delete(symbol)
    }
    for (const instrument of wanted) if (!this.#tiles.has(instrument.symbol)) this.#add(instrument)
    for (const [symbol, { tile }] of this.#tiles) tile.button.setAttribute('aria-pressed', String(symbol === chosen))
  }

  /**
   * What is remembered of a market that is shown.
   * @param {string} symbol
   */
  historyOf(symbol) {
    return this.#tiles.get(symbol)?.tile.history
  }

  /** @param {Instrument} instrument */
  #add(instrument) {
    const { symbol } = instrument
    const tile = new Tile(instrument, this.#painter, () => this.#onChoose(symbol))
    const end = this.#connection.subscribe({ symbol, data_type: 'MBP', max_levels: 1 }, tile)
    this.#tiles.set(symbol, { tile, end })
    this.#row.append(tile.button)
  }
}
