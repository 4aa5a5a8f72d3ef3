/**
 * The WebSocket to the server: it comes back by itself, and its streams with it.
 *
 *     connecting ──► live ──► waiting ──► connecting …
 *         │  └──────────────────▲
 *         └──► locked: the server asks for a token; `connect` tries again
 */

import { HttpError } from './http.js'
import { subprotocols } from './token.js'

const SHORTEST_WAIT_MS = 500
const LONGEST_WAIT_MS = 30_000
const PING_INTERVAL_MS = 5_000
const SILENCE_LIMIT_MS = 45_000 // the server says something every 30 s at least
const ROUND_TRIPS = 5
const COME_LATER = new Set([429, 500, 503]) // other errors would come again

const NOT_OPENED = 'The server answers, but opens no WebSocket. A page that was opened by a name needs serve --allow-origin.'

/** @param {string} reason as the server gives it */
function closedText(reason) {
  return `The connection was closed${reason && `: ${reason}`}.`
}

/**
 * @typedef {'connecting' | 'live' | 'waiting' | 'locked'} State
 * @typedef {{ price: number, quantity: number, order_count: number, total_quantity: number }} WireLevel
 * @typedef {{ order_id: string, price: number, quantity: number, side: string, timestamp: string, age_ms: number }} WireOrder
 * @typedef {{ format: 'MBP', bids: WireLevel[], asks: WireLevel[] } | { format: 'MBO', bids: WireOrder[], asks: WireOrder[] }} WireBook
 * @typedef {{ type: 'MarketData', stream_id: string, symbol: string, sequence: number, timestamp: string, data: WireBook }} Frame
 * @typedef {{ symbol: string, data_type: 'MBP' | 'MBO', max_levels: number }} Request
 * @typedef {{ onFrame(frame: Frame): void, onError(message: string): void }} Listener
 * @typedef {{ id: string, request: Request, listener: Listener }} Stream
 */

/** One connection with its streams. `state` and what stands beside it may be read at any time. */
export class Connection {
  /** @type {State} */
  state = 'connecting'
  /** Why it is not live; '' if there is nothing to say. */
  reason = ''
  /** When it is tried again, on the clock of `performance.now`. */
  retryAt = 0
  reconnects = 0
  /** What came since the page was opened. */
  frames = 0
  bytes = 0
  /** When the newest frame came; NaN before the first. */
  lastFrameAt = NaN

  /** @type {WebSocket | null} */
  #socket = null
  /** @type {Map<string, Stream>} */
  #streams = new Map()
  #streamsMade = 0
  #failures = 0
  #attempt = 0
  #lastHeardAt = 0
  #isGreeted = false
  #pingedAt = NaN
  /** @type {number[]} */
  #roundTrips = []
  #retryTimer = 0
  #url
  #prepare
  #onState

  /**
   * @param {string} url
   * @param {() => Promise<void>} prepare what has to succeed before each try; an HttpError 401 locks the connection
   * @param {() => void} onState called when `state` or `reason` has changed
   */
  constructor(url, prepare, onState) {
    this.#url = url
    this.#prepare = prepare
    this.#onState = onState
    setInterval(() => this.#ping(), PING_INTERVAL_MS)
  }

  get streamCount() {
    return this.#streams.size
  }

  /** Median of the last round trips, ms; NaN before the first. */
  get roundTripMs() {
    const sorted = [...this.#roundTrips].sort((a, b) => a - b)
    return sorted[sorted.length >> 1] ?? NaN
  }

  /** Connect now, whatever was planned. */
  async connect() {
    clearTimeout(this.#retryTimer)
    const attempt = ++this.#attempt
    this.#socket?.close()
    this.#socket = null
    this.#become('connecting')
    try {
      await this.#prepare()
    } catch (error) {
      if (!(error instanceof HttpError)) throw error
      if (attempt !== this.#attempt) return
      if (error.status === 401) this.#become('locked')
      else this.#wait(error.message)
      return
    }
    if (attempt === this.#attempt) this.#open()
  }

  /**
   * Begin a stream, now or as soon as there is a connection.
   * @param {Request} request
   * @param {Listener} listener
   * @returns {() => void} ends it
   */
  subscribe(request, listener) {
    const stream = { id: `page-${++this.#streamsMade}`, request, listener }
    this.#streams.set(stream.id, stream)
    if (this.state === 'live') this.#sendSubscribe(stream)
    return () => {
      if (!this.#streams.delete(stream.id)) return
      if (this.state === 'live') this.#send({ type: 'Unsubscribe', stream_id: stream.id })
    }
  }

  #open() {
    const socket = new WebSocket(this.#url, subprotocols())
    let wasOpen = false
    this.#socket = socket
    socket.onopen = () => {
      if (socket !== this.#socket) return
      wasOpen = true
      this.#lastHeardAt = performance.now()
      this.#pingedAt = NaN
      this.#isGreeted = false
      this.#become('live')
      for (const stream of this.#streams.values()) this.#sendSubscribe(stream)
    }
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#receive(data)
    }
    socket.onclose = ({ reason }) => {
      if (socket !== this.#socket) return
      this.#socket = null
      if (wasOpen) this.reconnects += 1
      this.#wait(wasOpen ? closedText(reason) : NOT_OPENED)
    }
  }

  /** @param {string} data */
  #receive(data) {
    const now = performance.now()
    const message = JSON.parse(data)
    this.#lastHeardAt = now
    this.bytes += data.length // it is ASCII but for names
    switch (message.type) {
      case 'MarketData':
        this.#failures = 0
        this.frames += 1
        this.lastFrameAt = now
        this.#streams.get(message.stream_id)?.listener.onFrame(message)
        break
      case 'HeartBeat':
        if (!this.#isGreeted) {
          // The first one answers nothing; the next one will be the answer to this.
          this.#isGreeted = true
          this.#pingedAt = now
          this.#send({ type: 'Hello', client: 'web page' })
        } else if (!Number.isNaN(this.#pingedAt)) {
          if (this.#roundTrips.push(now - this.#pingedAt) > ROUND_TRIPS) this.#roundTrips.shift()
          this.#pingedAt = NaN
        }
        break
      case 'Error':
        this.#streams.get(message.stream_id)?.listener.onError(message.message)
        if (COME_LATER.has(message.code)) this.#socket?.close()
    }
  }

  #ping() {
    if (this.state !== 'live' || !this.#isGreeted) return
    if (performance.now() - this.#lastHeardAt > SILENCE_LIMIT_MS) {
      this.#socket?.close()
      return
    }
    this.#pingedAt = performance.now()
    this.#send({ type: 'Ping', timestamp: new Date().toISOString() })
  }

  // From 0.5 s up to 30 s, at random: pages that lost the same server do not return in step.
  /** @param {string} reason */
  #wait(reason) {
    this.#failures += 1
    const longest = Math.min(LONGEST_WAIT_MS, SHORTEST_WAIT_MS * 2 ** this.#failures)
    const wait = SHORTEST_WAIT_MS + Math.random() * (longest - SHORTEST_WAIT_MS)
    this.retryAt = performance.now() + wait
    this.#retryTimer = setTimeout(() => this.connect(), wait)
    this.#become('waiting', reason)
  }

  /** @param {Stream} stream */
  #sendSubscribe(stream) {
    this.#send({ type: 'Subscribe', stream_id: stream.id, ...stream.request })
  }

  /** @param {object} message */
  #send(message) {
    this.#socket?.send(JSON.stringify(message))
  }

  /**
   * @param {State} state
   * @param {string} [reason]
   */
  #become(state, reason = '') {
    this.state = state
    this.reason = reason
    this.#onState()
  }
}
