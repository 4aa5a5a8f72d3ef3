/** The depth chart: how much rests up to a price, away from the mid on both sides. */

import { axisStep, short } from './numbers.js'
import { Surface } from './painter.js'
import { AXIS_FONT, drawWords } from './plot.js'
import { colours } from './theme.js'

/** @typedef {import('./book.js').Side} Side */

const AXIS_PX = 20
const SIDE_PX = 8
const LABEL_PX = 14
const HEADROOM = 1.12

/** Draws one book. */
export class DepthChart {
  #book
  #painter
  #surface
  pricePrecision = 2

  /**
   * @param {HTMLElement} box
   * @param {import('./book.js').Book} book
   * @param {import('./painter.js').Painter} painter
   */
  constructor(box, book, painter) {
    const canvas = box.querySelector('canvas')
    if (!canvas) throw new Error('a depth chart needs its canvas')
    this.#book = book
    this.#painter = painter
    this.#surface = new Surface(canvas, () => this.redraw())
  }

  redraw() {
    this.#painter.want(this)
  }

  /** What a screen reader is told in place of the picture. */
  describe() {
    const { bids, asks } = this.#book
    const text = this.#book.isKnown
      ? `Depth chart: ${short(totalOf(bids))} bid in ${bids.length} levels, ${short(totalOf(asks))} asked in ${asks.length} levels`
      : 'Depth chart: no book yet'
    this.#surface.canvas.setAttribute('aria-label', text)
  }

  draw() {
    if (!this.#surface.begin()) return false
    const { context, width } = this.#surface
    const height = this.#surface.height - AXIS_PX
    const { bids, asks } = this.#book
    if (bids.length + asks.length === 0) {
      drawWords(context, width, height, this.#book.isKnown ? 'The book is empty' : 'No book yet')
      return false
    }
    const { middle, reach } = this.#prices()
    const high = Math.max(totalOf(bids), totalOf(asks)) * HEADROOM
    const x = (/** @type {number} */ price) => width / 2 + ((price - middle) / reach) * (width / 2 - SIDE_PX)
    const y = (/** @type {number} */ total) => height - (total / high) * height
    this.#drawAxes(context, width, height, middle, reach, high, x, y)
    drawSteps(context, bids, colours.bid, x, y, x(middle - reach))
    drawSteps(context, asks, colours.ask, x, y, x(middle + reach))
    return false
  }

  /** The price in the middle, and how far the chart goes to both sides of it: as far as the farther side. */
  #prices() {
    const { bids, asks } = this.#book
    const farBid = bids.prices[Math.max(0, bids.length - 1)]
    const farAsk = asks.prices[Math.max(0, asks.length - 1)]
    const middle = bids.length && asks.length ? (bids.prices[0] + asks.prices[0]) / 2 : bids.length ? bids.prices[0] : asks.prices[0]
    const reach = Math.max(bids.length ? middle - farBid : 0, asks.length ? farAsk - middle : 0)
    return { middle, reach: reach || 10 ** -this.pricePrecision }
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   * @param {number} height
   * @param {number} middle
   * @param {number} reach
   * @param {number} high
   * @param {(price: number) => number} x
   * @param {(total: number) => number} y
   */
  #drawAxes(context, width, height, middle, reach, high, x, y) {
    context.font = AXIS_FONT
    context.textBaseline = 'bottom'
    context.textAlign = 'left'
    const step = axisStep(high, 4)
    for (let total = step; total < high; total += step) {
      context.fillStyle = colours.line
      context.fillRect(0, Math.round(y(total)), width, 1)
      if (y(total) < LABEL_PX) continue
      context.fillStyle = colours.quiet
      context.fillText(short(total), 2, Math.round(y(total)) - 1)
    }
    context.fillStyle = colours.line
    context.fillRect(0, height, width, 1)
    context.fillRect(Math.round(x(middle)), 0, 1, height)
    context.fillStyle = colours.quiet
    context.textBaseline = 'middle'
    const baseline = height + AXIS_PX / 2 + 2
    context.fillText((middle - reach).toFixed(this.pricePrecision), 2, baseline)
    context.textAlign = 'right'
    context.fillText((middle + reach).toFixed(this.pricePrecision), width - 2, baseline)
    context.textAlign = 'center'
    context.fillStyle = colours.text
    context.fillText(middle.toFixed(this.pricePrecision + 1), x(middle), baseline)
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Side} side
 * @param {string} colour
 * @param {(price: number) => number} x
 * @param {(total: number) => number} y
 * @param {number} edge where the chart ends
 */
function drawSteps(context, side, colour, x, y, edge) {
  if (side.length === 0) return
  context.beginPath()
  context.moveTo(x(side.prices[0]), y(0))
  for (let i = 0; i < side.length; i++) {
    if (i > 0) context.lineTo(x(side.prices[i]), y(side.totals[i - 1]))
    context.lineTo(x(side.prices[i]), y(side.totals[i]))
  }
  context.lineTo(edge, y(side.totals[side.length - 1]))
  context.strokeStyle = colour
  context.lineWidth = 1.5
  context.stroke()
  context.lineTo(edge, y(0))
  context.closePath()
  context.globalAlpha = 0.16
  context.fillStyle = colour
  context.fill()
  context.globalAlpha = 1
}

/** @param {Side} side */
function totalOf(side) {
  return side.length ? side.totals[side.length - 1] : 0
}
