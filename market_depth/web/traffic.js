/** How well the connection does: age of the newest frame, round trip, frames and bytes a second. */

import { element, write } from './element.js'
import { NOTHING, duration, short } from './numbers.js'

const SAMPLE_MS = 500
const SAMPLES = 6 // rates are over the last three seconds

/** Writes the figures of one connection, twice a second. */
export class Traffic {
  #connection
  #times = new Float64Array(SAMPLES)
  #frames = new Float64Array(SAMPLES)
  #bytes = new Float64Array(SAMPLES)
  #taken = 0
  #age = element('frame-age', HTMLElement)
  #roundTrip = element('round-trip', HTMLElement)
  #frameRate = element('frame-rate', HTMLElement)
  #byteRate = element('byte-rate', HTMLElement)
  #streams = element('stream-count', HTMLElement)
  #reconnects = element('reconnects', HTMLElement)

  /** @param {import('./connection.js').Connection} connection */
  constructor(connection) {
    this.#connection = connection
    setInterval(() => this.#sample(), SAMPLE_MS)
  }

  #sample() {
    const connection = this.#connection
    const now = performance.now()
    const slot = this.#taken % SAMPLES
    // What stands in the place of the new sample is the oldest one.
    const oldest = this.#taken < SAMPLES ? 0 : slot
    const seconds = (now - this.#times[oldest]) / 1000
    const frames = (connection.frames - this.#frames[oldest]) / seconds
    const bytes = (connection.bytes - this.#bytes[oldest]) / seconds
    const isFirst = this.#taken === 0
    this.#times[slot] = now
    this.#frames[slot] = connection.frames
    this.#bytes[slot] = connection.bytes
    this.#taken += 1
    const age = now - connection.lastFrameAt
    write(this.#age, Number.isNaN(age) ? NOTHING : duration(Math.max(0, age)))
    write(this.#roundTrip, Number.isNaN(connection.roundTripMs) ? NOTHING : duration(connection.roundTripMs))
    write(this.#streams, String(connection.streamCount))
    write(this.#reconnects, String(connection.reconnects))
    if (isFirst) return
    write(this.#frameRate, frames.toFixed(frames < 10 ? 1 : 0))
    write(this.#byteRate, `${short(bytes / 1000)} kB/s`)
  }
}
