/** The heatmap: time to the right, price upwards, and the more rests at a price the stronger its colour. */

import { HISTORY_LEVELS, SLOTS } from './history.js'
import { short } from './numbers.js'
import { Surface } from './painter.js'
import { LEFT_PX, RIGHT_PX, TIME_AXIS_PX, drawTimeAxis, drawValueAxis, drawWords, slotWidth } from './plot.js'
import { channels, colours } from './theme.js'

/** @typedef {import('./history.js').DepthHistory} DepthHistory */

const STRENGTHS = 256
const SAMPLE_STEP = 7
/** Every so manieth size tells how large sizes are: enough for a quantile. */

const FULL_QUANTILE = 0.98
/** From this size on the colour is full: one giant order must not make all others pale. */

const RANGE_ROUNDING = 0.25
/** The prices shown grow and move in steps of so much of the range: an axis that moves with each tick cannot be read. */

/** Draws one history. */
export class Heatmap {
  #history
  #painter
  #surface
  #legend
  #image = new ImageData(1, 1)
  #raster = document.createElement('canvas')
  /** Colours of the bids, then of the asks, by strength; alpha, blue, green, red. */
  #palette = new Uint32Array(2 * STRENGTHS)
  #samples = new Float32Array(0)
  #drawnSlot = -1
  #low = NaN
  #high = NaN
  tickSize = 0.01
  pricePrecision = 2

  /**
   * @param {HTMLElement} box
   * @param {HTMLElement} legend
   * @param {DepthHistory} history
   * @param {import('./painter.js').Painter} painter
   */
  constructor(box, legend, history, painter) {
    const canvas = box.querySelector('canvas')
    if (!canvas) throw new Error('a heatmap needs its canvas')
    this.#history = history
    this.#painter = painter
    this.#legend = legend
    this.#surface = new Surface(canvas, () => this.redraw())
  }

  /** There may be a new column: draw it, twice a second at most. */
  update() {
    if (this.#history.newest !== this.#drawnSlot) this.redraw()
  }

  /** The history is of another market now. */
  forget() {
    this.#low = this.#high = NaN
    this.redraw()
  }

  restyle() {
    for (const [half, name] of /** @type {const} */ ([[0, 'bid'], [1, 'ask']])) {
      const [red, green, blue] = channels(colours[name])
      for (let i = 0; i < STRENGTHS; i++) {
        const alpha = i === 0 ? 0 : Math.round(18 + (237 * i) / (STRENGTHS - 1))
        this.#palette[half * STRENGTHS + i] = ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0
      }
    }
    this.redraw()
  }

  redraw() {
    this.#painter.want(this)
  }

  /** What a screen reader is told in place of the picture. */
  describe() {
    this.#chooseRange()
    const text = Number.isNaN(this.#low)
      ? 'Heatmap: nothing yet'
      : `Heatmap of resting sizes from ${this.#price(this.#low)} to ${this.#price(this.#high)} over the last five minutes`
    this.#surface.canvas.setAttribute('aria-label', text)
  }

  draw() {
    if (!this.#surface.begin()) return false
    const { context, width } = this.#surface
    const height = this.#surface.height - TIME_AXIS_PX
    this.#drawnSlot = this.#history.newest
    this.#chooseRange()
    if (Number.isNaN(this.#low)) {
      drawWords(context, width, height, 'Nothing yet')
      return false
    }
    drawTimeAxis(context, width, height)
    drawValueAxis(context, { width, top: 0, height, low: this.#low, high: this.#high, lines: 6, text: (value) => this.#price(value) })
    const full = this.#fullSize()
    this.#rasterise(height, full)
    context.imageSmoothingEnabled = false
    context.drawImage(this.#raster, LEFT_PX, 0, width - LEFT_PX - RIGHT_PX, height)
    this.#drawBest(context, width, height)
    this.#legend.textContent = `full colour from ${short(full)}`
    return false
  }

  /** @param {number} value */
  #price(value) {
    return value.toFixed(this.pricePrecision)
  }

  /** Prices to show: those that are there now, and the best of all that is remembered. */
  #chooseRange() {
    const { bidCounts, askCounts, prices, length } = this.#history
    let [low, high] = [Infinity, -Infinity]
    for (let age = 0; age < length; age++) {
      const slot = this.#history.at(age)
      const start = 2 * slot * HISTORY_LEVELS
      for (const [first, count] of [[start, bidCounts[slot]], [start + HISTORY_LEVELS, askCounts[slot]]]) {
        if (count === 0) continue
        const last = age === 0 ? first + count - 1 : first
        low = Math.min(low, prices[first], prices[last])
        high = Math.max(high, prices[first], prices[last])
      }
    }
    if (low > high) {
      this.#low = this.#high = NaN
      return
    }
    low -= this.tickSize
    high += this.tickSize
    const shown = this.#high - this.#low
    const isInside = low >= this.#low && high <= this.#high
    if (isInside && high - low > 0.5 * shown) return
    const step = Math.max(this.tickSize, (high - low) * RANGE_ROUNDING)
    this.#low = Math.floor(low / step) * step
    this.#high = Math.ceil(high / step) * step
  }

  /** The size from which on the colour is full. */
  #fullSize() {
    const { bidCounts, askCounts, sizes, length } = this.#history
    const most = Math.ceil((length * 2 * HISTORY_LEVELS) / SAMPLE_STEP) + 1
    if (this.#samples.length < most) this.#samples = new Float32Array(most)
    let found = 0
    let skip = 0
    for (let age = 0; age < length; age++) {
      const slot = this.#history.at(age)
      const start = 2 * slot * HISTORY_LEVELS
      for (const [first, count] of [[start, bidCounts[slot]], [start + HISTORY_LEVELS, askCounts[slot]]]) {
        let i = skip
        for (; i < count; i += SAMPLE_STEP) this.#samples[found++] = sizes[first + i]
        skip = i - count
      }
    }
    const sorted = this.#samples.subarray(0, found).sort()
    return found ? sorted[Math.floor((found - 1) * FULL_QUANTILE)] : 1
  }

  /**
   * Fill the image: a column for each slot, a row for each pixel of the screen.
   * @param {number} height
   * @param {number} full
   */
  #rasterise(height, full) {
    const rows = Math.max(1, Math.round(height * devicePixelRatio))
    const columns = Math.max(1, Math.round(this.#surface.width - LEFT_PX - RIGHT_PX))
    if (this.#image.width !== columns || this.#image.height !== rows) {
      this.#image = new ImageData(columns, rows)
      this.#raster.width = columns
      this.#raster.height = rows
    }
    const pixels = new Uint32Array(this.#image.data.buffer)
    pixels.fill(0)
    const { bidCounts, askCounts, prices, sizes, length } = this.#history
    const width = columns / SLOTS
    const scale = rows / (this.#high - this.#low)
    const levelRows = Math.max(1, this.tickSize * scale)
    for (let age = 0; age < length; age++) {
      const right = Math.round(columns - age * width)
      const left = Math.max(0, Math.round(columns - (age + 1) * width))
      if (left >= right) continue
      const slot = this.#history.at(age)
      for (let half = 0; half < 2; half++) {
        const first = (2 * slot + half) * HISTORY_LEVELS
        const count = half === 0 ? bidCounts[slot] : askCounts[slot]
        for (let i = first; i < first + count; i++) {
          const strength = Math.min(STRENGTHS - 1, Math.round(Math.sqrt(sizes[i] / full) * (STRENGTHS - 1)))
          const colour = this.#palette[half * STRENGTHS + strength]
          const middle = (this.#high - prices[i]) * scale
          const top = Math.max(0, Math.round(middle - levelRows / 2))
          const bottom = Math.min(rows, Math.max(top + 1, Math.round(middle + levelRows / 2)))
          for (let row = top; row < bottom; row++) pixels.fill(colour, row * columns + left, row * columns + right)
        }
      }
    }
    this.#raster.getContext('2d')?.putImageData(this.#image, 0, 0)
  }

  /**
   * The best bid and ask as lines over the colours.
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   * @param {number} height
   */
  #drawBest(context, width, height) {
    const { bidCounts, askCounts, prices, length } = this.#history
    const step = slotWidth(width)
    context.lineWidth = 1.25
    context.strokeStyle = colours.text
    for (const half of [0, 1]) {
      let isDrawing = false
      context.beginPath()
      for (let age = 0; age < length; age++) {
        const slot = this.#history.at(age)
        if ((half === 0 ? bidCounts : askCounts)[slot] === 0) {
          isDrawing = false
          continue
        }
        const x = width - RIGHT_PX - age * step
        const y = ((this.#high - prices[(2 * slot + half) * HISTORY_LEVELS]) / (this.#high - this.#low)) * height
        if (isDrawing) context.lineTo(x, y)
        else context.moveTo(x, y)
        context.lineTo(x - step, y)
        isDrawing = true
      }
      context.stroke()
    }
  }
}
