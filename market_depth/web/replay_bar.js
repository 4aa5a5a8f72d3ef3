/**
 * The replay bar: play, pause, step, speed, and a handle to drag through the file. It is there only while the chosen symbol
 * comes from a file that is replayed.
 *
 * The server knows what the replay does; the bar asks it twice a second, and shows every answer.
 */

import { element, write, writeState } from './element.js'
import { FileTimes } from './file_times.js'
import { HttpError, ask } from './http.js'
import { short } from './numbers.js'

const PATH = '/api/control/replay'
const POLL_MS = 500
const SPEEDS = [0.1, 0.5, 1, 2, 5, 10, 50, 100, 1000]
const SEEKS = 6
/** So often at most is a place in the file looked for: each try halves the way at least. */

const NEAR_PERCENT = 0.5

/**
 * @typedef {{
 *   file: string, state: 'IDLE' | 'RUNNING' | 'PAUSED' | 'DONE' | 'FAILED', position: string, position_ns: number,
 *   speed: number | 'max' | null, rate: number | null, percent: number, records: number, error: string | null,
 * }} Status
 */

const STATES = /** @type {const} */ ({
  IDLE: ['waiting', 'stopped'],
  RUNNING: ['good', 'playing'],
  PAUSED: ['waiting', 'paused'],
  DONE: ['waiting', 'at the end'],
  FAILED: ['bad', 'failed'],
})

/** Controls the replay of one symbol at a time. */
export class ReplayBar {
  #symbol = ''
  /** @type {Status | null} */
  #status = null
  /** @type {Map<string, FileTimes>} */
  #times = new Map()
  /** The percent that the user drags to, until the replay is there. */
  #wanted = NaN
  #isSeeking = false
  #poll = 0
  #bar = element('replay', HTMLElement)
  #play = element('replay-play', HTMLButtonElement)
  #step = element('replay-step', HTMLButtonElement)
  #events = element('replay-events', HTMLSelectElement)
  #speed = element('replay-speed', HTMLSelectElement)
  #position = element('replay-position', HTMLInputElement)
  #percent = element('replay-percent', HTMLElement)
  #time = element('replay-time', HTMLTimeElement)
  #state = element('replay-state', HTMLElement)
  #note = element('replay-note', HTMLElement)

  constructor() {
    this.#speed.append(...SPEEDS.map((speed) => new Option(`${speed}×`, String(speed))), new Option('max', 'max'))
    this.#play.addEventListener('click', () => this.playOrPause())
    this.#step.addEventListener('click', () => this.step())
    this.#speed.addEventListener('change', () => this.#tell('speed', this.#pace()))
    this.#position.addEventListener('input', () => this.#drag())
    setInterval(() => this.#look(), POLL_MS)
  }

  get isShown() {
    return !this.#bar.hidden
  }

  /** @param {import('./markets.js').Instrument} instrument */
  show(instrument) {
    this.#symbol = instrument.symbol
    this.#status = null
    this.#bar.hidden = instrument.source !== 'replay'
    write(this.#note, '')
    this.#look()
  }

  playOrPause() {
    switch (this.#status?.state) {
      case undefined:
        return
      case 'RUNNING':
        return this.#tell('pause')
      case 'PAUSED':
        return this.#tell('resume')
      default:
        return this.#tell('start', this.#pace())
    }
  }

  step() {
    return this.#tell('step', { events: Number(this.#events.value) })
  }

  /** @param {1 | -1} direction */
  changeSpeed(direction) {
    if (!this.#status) return
    if (this.#status.rate !== null) {
      this.#tell('speed', { rate: this.#status.rate * (direction > 0 ? 2 : 0.5) })
      return
    }
    const speeds = [...this.#speed.options].filter((option) => !option.value.startsWith('rate '))
    const next = speeds[speeds.indexOf(this.#speed.selectedOptions[0]) + direction]
    if (!next) return
    this.#speed.value = next.value
    this.#tell('speed', this.#pace())
  }

  #pace() {
    const { value } = this.#speed
    return value.startsWith('rate ') ? { rate: Number(value.slice(5)) } : { speed: value === 'max' ? 'max' : Number(value) }
  }

  async #look() {
    if (this.#bar.hidden || document.hidden) return
    const poll = ++this.#poll
    try {
      const status = await ask(`${PATH}/status?symbol=${encodeURIComponent(this.#symbol)}`)
      if (poll === this.#poll) this.#write(status)
    } catch (error) {
      this.#explain(error)
    }
  }

  /**
   * @param {string} control
   * @param {object} [content]
   */
  async #tell(control, content = {}) {
    if (!this.#status) return
    this.#poll += 1 // an answer that is on its way is old
    try {
      this.#write(await ask(`${PATH}/${control}`, { file: this.#status.file, ...content }))
      write(this.#note, '')
    } catch (error) {
      this.#explain(error)
    }
  }

  /** @param {unknown} error */
  #explain(error) {
    if (!(error instanceof HttpError)) throw error
    write(this.#note, error.message)
  }

  /** Go where the handle is. While one seek is under way the handle moves on; then the newest place counts. */
  async #drag() {
    this.#wanted = Number(this.#position.value)
    write(this.#percent, `${this.#wanted.toFixed(1)} %`)
    if (this.#isSeeking || !this.#status) return
    const wasPaused = this.#status.state === 'PAUSED'
    this.#isSeeking = true
    this.#bar.ariaBusy = 'true'
    while (!Number.isNaN(this.#wanted)) await this.#seek(this.#wanted)
    // A replay that was at its end on the way plays again.
    if (wasPaused && this.#status.state === 'RUNNING') await this.#tell('pause')
    this.#bar.ariaBusy = 'false'
    this.#isSeeking = false
  }

  /** @param {number} percent */
  async #seek(percent) {
    for (let i = 0; i < SEEKS && percent === this.#wanted && this.#status; i++) {
      const to = new Date(this.#timesOf(this.#status.file).instantAt(percent)).toISOString()
      const before = this.#status
      await this.#tell('seek', { to })
      if (this.#status === before) break // refused: the note says why
      if (Math.abs(this.#status.percent - percent) <= NEAR_PERCENT) break
    }
    if (percent !== this.#wanted) return
    this.#wanted = NaN
    if (this.#status) this.#write(this.#status)
  }

  /** @param {string} file */
  #timesOf(file) {
    let times = this.#times.get(file)
    if (!times) this.#times.set(file, (times = new FileTimes()))
    return times
  }

  /** @param {Status} status */
  #write(status) {
    this.#status = status
    this.#timesOf(status.file).learn(status.percent, status.position_ns / 1e6)
    const [mark, word] = STATES[status.state]
    writeState(this.#state, mark, word)
    write(this.#play, status.state === 'RUNNING' ? 'Pause' : 'Play')
    const isPlaying = status.state === 'RUNNING' || status.state === 'PAUSED'
    this.#step.disabled = !isPlaying
    this.#position.disabled = status.state === 'IDLE'
    write(this.#time, `${status.position.slice(0, 10)} ${status.position.slice(11, 23)}`)
    this.#time.dateTime = status.position
    if (Number.isNaN(this.#wanted)) {
      this.#position.value = String(status.percent)
      write(this.#percent, `${status.percent.toFixed(1)} %`)
    }
    this.#position.setAttribute('aria-valuetext', `${status.percent.toFixed(1)} percent, ${status.position}`)
    if (status.error) write(this.#note, status.error)
    if (document.activeElement !== this.#speed) this.#writeSpeed(status)
  }

  /** @param {Status} status */
  #writeSpeed({ speed, rate }) {
    const value = rate === null ? String(speed) : `rate ${rate}`
    if (![...this.#speed.options].some((option) => option.value === value)) {
      const option = new Option(rate === null ? `${speed}×` : `${short(rate)} records/s`, value)
      // Among the speeds, so that the next one is the next faster; rates stand at the end.
      const faster = [...this.#speed.options].find((other) => other.value === 'max' || Number(other.value) > Number(speed))
      this.#speed.insertBefore(option, rate === null ? (faster ?? null) : null)
    }
    this.#speed.value = value
  }
}
