/** What the charts share: where the plot lies in its canvas, and how axes look. */

import { SLOT_MS, SLOTS } from './history.js'
import { axisStep, short } from './numbers.js'
import { colours } from './theme.js'

export const AXIS_FONT = '11px system-ui, sans-serif'

/** Charts over time have their edges here, so that one stands exactly above the other. */
export const LEFT_PX = 8
export const RIGHT_PX = 64
export const TIME_AXIS_PX = 20

const MINUTE_MS = 60_000
const NARROW_MINUTE_PX = 56 // no room for words at each

/**
 * How wide a slot of the history is, in a canvas of this width.
 * @param {number} width
 */
export function slotWidth(width) {
  return Math.max(1, width - LEFT_PX - RIGHT_PX) / SLOTS
}

/**
 * Lines and words for minutes, from now at the right edge back.
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height of the plot; the words stand below it
 */
export function drawTimeAxis(context, width, height) {
  const minuteWidth = (slotWidth(width) * MINUTE_MS) / SLOT_MS
  const right = width - RIGHT_PX
  context.font = AXIS_FONT
  context.textBaseline = 'middle'
  const step = minuteWidth < NARROW_MINUTE_PX ? 2 : 1
  for (let minutes = 0; minutes * MINUTE_MS <= SLOTS * SLOT_MS; minutes += step) {
    const x = Math.round(right - minutes * minuteWidth)
    context.fillStyle = colours.line
    context.fillRect(x, 0, 1, height + 4)
    context.fillStyle = colours.quiet
    context.textAlign = x < LEFT_PX + 12 ? 'left' : 'center'
    context.fillText(minutes === 0 ? 'now' : `−${minutes} min`, x, height + TIME_AXIS_PX / 2 + 2)
  }
}

/**
 * Lines and numbers for values, the numbers at the right edge.
 * @param {CanvasRenderingContext2D} context
 * @param {{ width: number, top: number, height: number, low: number, high: number, lines: number, text?: (value: number) => string }} axis
 */
export function drawValueAxis(context, { width, top, height, low, high, lines, text = short }) {
  const step = axisStep(high - low, lines)
  context.font = AXIS_FONT
  context.textAlign = 'left'
  context.textBaseline = 'middle'
  for (let i = Math.ceil(low / step); i * step <= high; i++) {
    const y = Math.round(top + height - ((i * step - low) / (high - low)) * height)
    if (y < top + 5 || y > top + height - 5) continue
    context.fillStyle = colours.line
    context.fillRect(LEFT_PX, y, width - LEFT_PX - RIGHT_PX, 1)
    context.fillStyle = colours.quiet
    context.fillText(text(i * step), width - RIGHT_PX + 6, y + 0.5)
  }
}

/**
 * A word in the middle of a plot that has nothing to show.
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 * @param {string} words
 */
export function drawWords(context, width, height, words) {
  context.font = '13px system-ui, sans-serif'
  context.textAlign = 'center'
  context.textBaseline = 'middle'
  context.fillStyle = colours.quiet
  context.fillText(words, width / 2, height / 2)
}
