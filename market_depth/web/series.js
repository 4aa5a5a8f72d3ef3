/** The top of the book over time: best prices with the mid between them, the spread, and the best sizes, one above the other. */

import { short } from './numbers.js'
import { Surface } from './painter.js'
import { AXIS_FONT, LEFT_PX, RIGHT_PX, TIME_AXIS_PX, drawTimeAxis, drawValueAxis, drawWords, slotWidth } from './plot.js'
import { colours } from './theme.js'

/** @typedef {import('./history.js').TopHistory} TopHistory */
/** @typedef {(slot: number) => number} Reading what a line shows of a slot; NaN for a gap */

const GAP_PX = 10
const TITLE_PX = 16
const SHARES = [0.42, 0.25, 0.33] // of the height

/** Draws one history. */
export class Series {
  #painter
  #surface
  /** @type {TopHistory | null} */
  #history = null
  #drawnSlot = -1
  tickSize = 0.01
  pricePrecision = 2

  /**
   * @param {HTMLElement} box
   * @param {import('./painter.js').Painter} painter
   */
  constructor(box, painter) {
    const canvas = box.querySelector('canvas')
    if (!canvas) throw new Error('charts need their canvas')
    this.#painter = painter
    this.#surface = new Surface(canvas, () => this.redraw())
  }

  /** @param {TopHistory} history */
  show(history) {
    this.#history = history
    this.redraw()
  }

  /** There may be a new slot: draw it, twice a second at most. */
  update() {
    if (this.#history?.newest !== this.#drawnSlot) this.redraw()
  }

  redraw() {
    this.#painter.want(this)
  }

  /** What a screen reader is told in place of the picture. */
  describe() {
    const history = this.#history
    const label = this.#surface.canvas
    if (!history || !hasValues(history)) {
      label.setAttribute('aria-label', 'Charts of mid, spread and best sizes: nothing yet')
      return
    }
    const mid = extent(history, [(slot) => (history.bids[slot] + history.asks[slot]) / 2])
    const spread = extent(history, [(slot) => history.asks[slot] - history.bids[slot]])
    label.setAttribute(
      'aria-label',
      `Over the last five minutes: mid from ${mid.low.toFixed(this.pricePrecision + 1)} to ${mid.high.toFixed(this.pricePrecision + 1)}, ` +
        `spread from ${spread.low.toFixed(this.pricePrecision)} to ${spread.high.toFixed(this.pricePrecision)}`,
    )
  }

  draw() {
    if (!this.#surface.begin()) return false
    const { context, width } = this.#surface
    const height = this.#surface.height - TIME_AXIS_PX
    const history = this.#history
    if (history) this.#drawnSlot = history.newest
    if (!history || !hasValues(history)) {
      drawWords(context, width, height, 'Nothing yet')
      return false
    }
    drawTimeAxis(context, width, height)
    const room = height - 2 * GAP_PX
    const [prices = 0, spreads = 0, sizes = 0] = SHARES.map((share) => share * room)
    this.#drawPrices(context, history, width, 0, prices)
    this.#drawSpreads(context, history, width, prices + GAP_PX, spreads)
    this.#drawSizes(context, history, width, prices + spreads + 2 * GAP_PX, sizes)
    return false
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {TopHistory} history
   * @param {number} width
   * @param {number} top
   * @param {number} height
   */
  #drawPrices(context, history, width, top, height) {
    const bid = (/** @type {number} */ slot) => history.bids[slot]
    const ask = (/** @type {number} */ slot) => history.asks[slot]
    const { low, high } = extent(history, [bid, ask])
    const pane = { width, top, height, low: low - this.tickSize, high: high + this.tickSize }
    this.#frame(context, pane, 'Mid, best bid, best ask', 3, (value) => value.toFixed(this.pricePrecision))
    line(context, history, pane, bid, colours.bid, 1)
    line(context, history, pane, ask, colours.ask, 1)
    line(context, history, pane, (slot) => (history.bids[slot] + history.asks[slot]) / 2, colours.text, 1.25)
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {TopHistory} history
   * @param {number} width
   * @param {number} top
   * @param {number} height
   */
  #drawSpreads(context, history, width, top, height) {
    const spread = (/** @type {number} */ slot) => history.asks[slot] - history.bids[slot]
    const { low, high } = extent(history, [spread])
    const pane = { width, top, height, low: Math.min(0, low), high: Math.max(high, this.tickSize) * 1.1 }
    this.#frame(context, pane, 'Spread', 2, (value) => value.toFixed(this.pricePrecision))
    line(context, history, pane, spread, colours.accent, 1.25)
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {TopHistory} history
   * @param {number} width
   * @param {number} top
   * @param {number} height
   */
  #drawSizes(context, history, width, top, height) {
    const bid = (/** @type {number} */ slot) => history.bidSizes[slot]
    const ask = (/** @type {number} */ slot) => history.askSizes[slot]
    const { high } = extent(history, [bid, ask])
    const pane = { width, top, height, low: 0, high: high * 1.1 || 1 }
    this.#frame(context, pane, 'Size at the best', 2, short)
    line(context, history, pane, bid, colours.bid, 1.25)
    line(context, history, pane, ask, colours.ask, 1.25)
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Pane} pane
   * @param {string} title
   * @param {number} lines
   * @param {(value: number) => string} text
   */
  #frame(context, pane, title, lines, text) {
    if (Number.isFinite(pane.low + pane.high)) drawValueAxis(context, { ...pane, lines, text })
    context.fillStyle = colours.line
    context.fillRect(LEFT_PX, Math.round(pane.top + pane.height), pane.width - LEFT_PX - RIGHT_PX, 1)
    context.font = AXIS_FONT
    context.textAlign = 'left'
    context.textBaseline = 'middle'
    context.fillStyle = colours.panel // no line goes through the words
    context.fillRect(LEFT_PX + 1, pane.top + 1, context.measureText(title).width + 6, TITLE_PX)
    context.fillStyle = colours.quiet
    context.fillText(title, LEFT_PX + 4, pane.top + 1 + TITLE_PX / 2)
  }
}

/** @param {TopHistory} history */
function hasValues(history) {
  const { high } = extent(history, [(slot) => history.bids[slot], (slot) => history.asks[slot]])
  return high > -Infinity
}

/** @typedef {{ width: number, top: number, height: number, low: number, high: number }} Pane */

/**
 * The smallest and the largest of what some lines show.
 * @param {TopHistory} history
 * @param {Reading[]} readings
 */
function extent(history, readings) {
  let [low, high] = [Infinity, -Infinity]
  for (let age = 0; age < history.length; age++) {
    const slot = history.at(age)
    for (const read of readings) {
      const value = read(slot)
      if (value < low) low = value
      if (value > high) high = value
    }
  }
  return { low, high }
}

/**
 * A line in steps: a value holds until the next one comes.
 * @param {CanvasRenderingContext2D} context
 * @param {TopHistory} history
 * @param {Pane} pane
 * @param {Reading} read
 * @param {string} colour
 * @param {number} lineWidth
 */
function line(context, history, { width, top, height, low, high }, read, colour, lineWidth) {
  const step = slotWidth(width)
  let isDrawing = false
  context.strokeStyle = colour
  context.lineWidth = lineWidth
  context.lineJoin = 'round'
  context.beginPath()
  for (let age = 0; age < history.length; age++) {
    const value = read(history.at(age))
    if (Number.isNaN(value)) {
      isDrawing = false
      continue
    }
    const x = width - RIGHT_PX - age * step
    const y = top + height - ((value - low) / (high - low)) * height
    if (isDrawing) context.lineTo(x, y)
    else context.moveTo(x, y)
    context.lineTo(x - step, y)
    isDrawing = true
  }
  context.stroke()
}
