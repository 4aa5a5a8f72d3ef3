/** Numbers as text, as short as they can be read at a glance. */

export const NOTHING = '–'

/**
 * A price or quantity with an instrument's decimals, and with more where the value has more: nothing is rounded away.
 * @param {number} value
 * @param {number} precision decimals
 */
export function exact(value, precision) {
  const text = value.toFixed(precision)
  return Number(text) === value ? text : String(value)
}

/**
 * A number for an axis or a figure that need not be exact: `1.2M`, `34.5k`, `0.015`.
 * @param {number} value
 */
export function short(value) {
  const size = Math.abs(value)
  if (size >= 999_950) return `${trimmed(value / 1e6, 2)}M`
  if (size >= 9_995) return `${trimmed(value / 1e3, 1)}k`
  if (size >= 99.95) return value.toFixed(0)
  if (size >= 9.995) return trimmed(value, 1)
  return size === 0 ? '0' : trimmed(value, size >= 0.995 ? 2 : 4)
}

/**
 * @param {number} value
 * @param {number} decimals
 */
function trimmed(value, decimals) {
  return String(Number(value.toFixed(decimals)))
}

/**
 * How long, in the unit that fits.
 * @param {number} ms
 */
export function duration(ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`
  if (ms < 1000) return `${ms.toFixed(0)} ms`
  const s = ms / 1000
  if (s < 10) return `${s.toFixed(1)} s`
  if (s < 60) return `${s.toFixed(0)} s`
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`
}

/**
 * A step for an axis: 1, 2 or 5 times a power of ten, so that about `count` steps make up `range`.
 * @param {number} range greater than 0
 * @param {number} count
 */
export function axisStep(range, count) {
  const rough = range / count
  const power = 10 ** Math.floor(Math.log10(rough))
  const factor = rough / power
  return power * (factor <= 1 ? 1 : factor <= 2 ? 2 : factor <= 5 ? 5 : 10)
}
