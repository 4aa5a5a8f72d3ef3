/**
 * The ladder: asks above, bids below, the spread between them. Bars show sizes, or the orders of a level as they stand in
 * line. What changed lights up for a moment.
 *
 * Lights have a canvas of their own below the other: they move, while the text is drawn once for each frame that came.
 */

import { Changes } from './changes.js'
import { exact } from './numbers.js'
import { Surface } from './painter.js'
import { colours } from './theme.js'

/** @typedef {import('./book.js').Book} Book */
/** @typedef {import('./book.js').Side} Side */

const LOWEST_ROW_PX = 14
const USUAL_ROW_PX = 18
const HIGHEST_ROW_PX = 20
const SPREAD_ROW_PX = 28
const TITLE_PX = 20
const FLASH_MS = 350
const FLASH_ALPHA = 0.3
const FONT = '12px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace'
const TITLE_FONT = '11px system-ui, sans-serif'
const COLUMN_GAP = 14

/** Orders are drawn the more solid the longer they have been in line. Ages in ms below which each strength holds. */
export const AGE_STEPS = [
  { below: 1_000, alpha: 0.22, name: 'under 1 s' },
  { below: 10_000, alpha: 0.38, name: '10 s' },
  { below: 60_000, alpha: 0.56, name: '1 min' },
  { below: Infinity, alpha: 0.8, name: 'older' },
]

/** Draws one book. */
export class Ladder {
  #book
  #painter
  #surface
  #lights
  #strip
  #box
  #scroll
  #levels = 0
  #rowPx = USUAL_ROW_PX
  #bidChanges = new Changes()
  #askChanges = new Changes()
  #isOld = true
  #columns = { price: 0, size: 0, orders: 0, total: 0, bar: 0, hasTotal: true }
  #isCalm = matchMedia('(prefers-reduced-motion: reduce)')
  precisions = { price: 2, quantity: 4 }

  /**
   * @param {HTMLElement} box holds the canvases, and lies in an element that may scroll
   * @param {Book} book
   * @param {import('./painter.js').Painter} painter
   */
  constructor(box, book, painter) {
    const [lights, canvas] = box.querySelectorAll('canvas')
    if (!lights?.parentElement || !canvas || !box.parentElement) throw new Error('a ladder needs its canvases')
    this.#book = book
    this.#painter = painter
    this.#box = box
    this.#scroll = box.parentElement
    this.#strip = lights.parentElement
    this.#lights = new Surface(lights, () => this.redraw())
    this.#surface = new Surface(canvas, () => this.redraw())
    new ResizeObserver(() => this.#fit()).observe(this.#scroll)
    // The titles stay at the upper edge of what is seen.
    this.#scroll.addEventListener('scroll', () => this.redraw(), { passive: true })
  }

  /**
   * Show another book, or the same to another depth.
   * @param {number} levels so many rows a side
   */
  show(levels) {
    this.#levels = levels
    this.#bidChanges.forget()
    this.#askChanges.forget()
    this.#fit()
    this.redraw()
  }

  /**
   * The book has changed.
   * @param {number} now
   */
  update(now) {
    this.#bidChanges.follow(this.#book.bids, -1, now)
    this.#askChanges.follow(this.#book.asks, 1, now)
    this.redraw()
  }

  redraw() {
    this.#isOld = true
    this.#painter.want(this)
  }

  /** @param {number} now */
  draw(now) {
    if (this.#isOld) {
      this.#isOld = false
      this.#drawBook()
    }
    return !this.#isCalm.matches && this.#drawLights(now)
  }

  /** Make rows as high as there is room for, if it is limited; where it still is too little, begin in the middle. */
  #fit() {
    const isLimited = getComputedStyle(this.#scroll).overflowY !== 'visible'
    const room = (this.#scroll.clientHeight - TITLE_PX - SPREAD_ROW_PX) / (2 * this.#levels)
    this.#rowPx = isLimited ? Math.floor(Math.min(HIGHEST_ROW_PX, Math.max(LOWEST_ROW_PX, room))) : USUAL_ROW_PX
    this.#box.style.height = `${TITLE_PX + 2 * this.#levels * this.#rowPx + SPREAD_ROW_PX}px`
    this.#scroll.scrollTop = (this.#box.offsetHeight - this.#scroll.clientHeight) / 2
  }

  get #spreadTop() {
    return TITLE_PX + this.#levels * this.#rowPx
  }

  /**
   * The upper edge of a level's row.
   * @param {boolean} isAsk
   * @param {number} i
   */
  #rowTop(isAsk, i) {
    return isAsk ? this.#spreadTop - (i + 1) * this.#rowPx : this.#spreadTop + SPREAD_ROW_PX + i * this.#rowPx
  }

  #drawBook() {
    if (!this.#surface.begin()) return
    const { context, width } = this.#surface
    const { bids, asks } = this.#book
    context.font = FONT
    this.#layOut(context, width)
    context.textBaseline = 'middle'
    context.textAlign = 'right'
    this.#drawSideText(context, asks, true)
    this.#drawSideText(context, bids, false)
    this.#drawSpread(context, width)
    this.#drawBars(context, width)

    this.#drawTitles(context, width)
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   */
  #drawTitles(context, width) {
    const columns = this.#columns
    const top = this.#scroll.scrollTop
    const middle = top + TITLE_PX / 2
    context.fillStyle = colours.panel
    context.fillRect(0, top, width, TITLE_PX)
    context.font = TITLE_FONT
    context.fillStyle = colours.quiet
    context.fillText('Price', columns.price, middle)
    context.fillText('Size', columns.size, middle)
    context.fillText('Orders', columns.orders, middle)
    if (columns.hasTotal) context.fillText('Total', columns.total, middle)
    context.textAlign = 'left'
    if (this.#book.hasOrders) context.fillText('First in line → last', columns.bar, middle)
  }

  /**
   * Where the columns end: as wide as their widest number.
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   */
  #layOut(context, width) {
    const { bids, asks } = this.#book
    const { price, quantity } = this.precisions
    const character = context.measureText('0').width
    const largest = Math.max(largestOf(bids), largestOf(asks))
    const prices = Math.max(6, ...[bids, asks].flatMap((side) => endsOf(side).map((value) => exact(value, price).length)))
    const sizes = Math.max(largest.toFixed(quantity).length, 6)
    const deepest = Math.max(totalOf(bids), totalOf(asks))
    const totals = deepest.toFixed(quantity).length
    const columns = this.#columns
    columns.price = 10 + prices * character
    columns.size = columns.price + COLUMN_GAP + sizes * character
    columns.orders = columns.size + COLUMN_GAP + Math.max(5 * character, 34)
    columns.total = columns.orders + COLUMN_GAP + Math.max(totals, 6) * character
    columns.hasTotal = width - columns.total > 80
    this.#strip.style.left = `${columns.price + 8}px`
    this.#strip.style.width = `${columns.size - columns.price}px`
    columns.bar = (columns.hasTotal ? columns.total : columns.orders) + COLUMN_GAP
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Side} side
   * @param {boolean} isAsk
   */
  #drawSideText(context, side, isAsk) {
    const columns = this.#columns
    const { price, quantity } = this.precisions
    const rows = Math.min(side.length, this.#levels)
    for (let i = 0; i < rows; i++) {
      const y = this.#rowTop(isAsk, i) + this.#rowPx / 2 + 0.5
      context.fillStyle = isAsk ? colours.ask : colours.bid
      context.fillText(exact(side.prices[i], price), columns.price, y)
      context.fillStyle = colours.text
      // A sum of orders made here is only as exact as a double: the wire's own numbers are multiples of the lot size.
      context.fillText(side.sizes[i].toFixed(quantity), columns.size, y)
      context.fillStyle = colours.quiet
      context.fillText(String(side.counts[i]), columns.orders, y)
      if (columns.hasTotal) context.fillText(side.totals[i].toFixed(quantity), columns.total, y)
    }
    if (rows === 0 && this.#book.bids.length + this.#book.asks.length > 0) {
      context.textAlign = 'left'
      context.fillStyle = colours.quiet
      context.fillText(isAsk ? 'no asks' : 'no bids', 10, this.#rowTop(isAsk, 0) + this.#rowPx / 2)
      context.textAlign = 'right'
    }
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   */
  #drawSpread(context, width) {
    const top = this.#spreadTop
    context.fillStyle = colours.line
    context.fillRect(0, top, width, 1)
    context.fillRect(0, top + SPREAD_ROW_PX - 1, width, 1)
    const { bestBid, bestAsk } = this.#book
    if (Number.isNaN(bestBid) || Number.isNaN(bestAsk)) return
    const y = top + SPREAD_ROW_PX / 2
    context.fillStyle = colours.text
    context.fillText(((bestBid + bestAsk) / 2).toFixed(this.precisions.price + 1), this.#columns.price + 7, y)
    context.fillStyle = colours.quiet
    context.fillText(`spread ${(bestAsk - bestBid).toFixed(this.precisions.price)}`, width - 10, y)
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   */
  #drawBars(context, width) {
    const { bids, asks } = this.#book
    const scale = Math.max(0, width - this.#columns.bar - 8) / Math.max(largestOf(bids), largestOf(asks))
    if (!Number.isFinite(scale)) return
    this.#drawSideBars(context, asks, true, scale)
    this.#drawSideBars(context, bids, false, scale)
    context.globalAlpha = 1
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Side} side
   * @param {boolean} isAsk
   * @param {number} scale pixels for one unit of size
   */
  #drawSideBars(context, side, isAsk, scale) {
    const left = this.#columns.bar
    const rows = Math.min(side.length, this.#levels)
    context.fillStyle = isAsk ? colours.ask : colours.bid
    for (let i = 0; i < rows; i++) {
      const top = this.#rowTop(isAsk, i)
      if (this.#book.hasOrders) {
        this.#drawQueue(context, side, i, left, top, scale)
      } else {
        context.globalAlpha = i === 0 ? 0.75 : 0.5
        context.fillRect(left, top + 3, Math.max(1, side.sizes[i] * scale), this.#rowPx - 6)
      }
    }
  }

  /**
   * The orders of a level from the first in line on.
   * @param {CanvasRenderingContext2D} context
   * @param {Side} side
   * @param {number} i
   * @param {number} left
   * @param {number} top
   * @param {number} scale
   */
  #drawQueue(context, side, i, left, top, scale) {
    const first = i === 0 ? 0 : side.orderEnds[i - 1]
    const end = side.orderEnds[i]
    let x = left
    for (let k = first; k < end; k++) {
      const size = side.orderSizes[k] * scale
      const age = side.orderAgesMs[k]
      context.globalAlpha = AGE_STEPS.find(({ below }) => age < below)?.alpha ?? 1
      // A gap between two orders, where there is room for one.
      context.fillRect(x, top + 3, Math.max(0.5, size - (size > 3 ? 1 : 0)), this.#rowPx - 6)
      x += size
    }
  }

  /**
   * Behind the sizes that have changed. Returns: whether one is still going out.
   * @param {number} now
   */
  #drawLights(now) {
    if (!this.#lights.begin()) return false
    const isMovingAbove = this.#drawSideLights(this.#book.asks, this.#askChanges, true, now)
    const isMovingBelow = this.#drawSideLights(this.#book.bids, this.#bidChanges, false, now)
    return isMovingAbove || isMovingBelow
  }

  /**
   * @param {Side} side
   * @param {Changes} changes
   * @param {boolean} isAsk
   * @param {number} now
   */
  #drawSideLights(side, changes, isAsk, now) {
    const { context, width } = this.#lights
    const rows = Math.min(side.length, this.#levels)
    let isMoving = false
    context.fillStyle = isAsk ? colours.ask : colours.bid
    for (let i = 0; i < rows; i++) {
      const light = 1 - (now - changes.changedAt[i]) / FLASH_MS
      if (light <= 0) continue
      isMoving = true
      context.globalAlpha = FLASH_ALPHA * Math.min(1, light)
      context.fillRect(0, this.#rowTop(isAsk, i) + 1, width, this.#rowPx - 2)
    }
    return isMoving
  }
}

/**
 * What a screen reader is told of a level's row.
 * @param {Side} side
 * @param {number} i
 * @param {{ price: number, quantity: number }} precisions
 */
export function rowTexts(side, i, precisions) {
  return [
    exact(side.prices[i], precisions.price),
    side.sizes[i].toFixed(precisions.quantity),
    side.totals[i].toFixed(precisions.quantity),
    String(side.counts[i]),
  ]
}

/** The strengths of the queue's colours in words and samples, for below the ladder. */
export function queueLegend() {
  return AGE_STEPS.map(({ alpha, name }) => {
    const sample = document.createElement('span')
    sample.className = 'sample'
    sample.style.opacity = String(alpha)
    return [sample, document.createTextNode(` ${name} `)]
  }).flat()
}

/**
 * The prices of a side that can have the most digits.
 * @param {Side} side
 */
function endsOf({ prices, length }) {
  return length ? [prices[0], prices[length - 1]] : []
}

/** @param {Side} side */
function totalOf(side) {
  return side.length ? side.totals[side.length - 1] : 0
}

/** @param {Side} side */
function largestOf(side) {
  let largest = 0
  for (let i = 0; i < side.length; i++) largest = Math.max(largest, side.sizes[i])
  return largest
}
