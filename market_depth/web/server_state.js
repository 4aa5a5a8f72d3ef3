/** What the server says of itself: `/api/health`, every few seconds while somebody looks at the page. */

import { element, write, writeState } from './element.js'
import { HttpError, ask } from './http.js'
import { NOTHING, duration } from './numbers.js'

const INTERVAL_MS = 3_000
const GOOD_STATES = new Set(['running', 'completed', 'waiting'])

/**
 * @typedef {{ file: string, state: string, records: number, error: string | null }} Recording
 * @typedef {{ name: string, source: string, state: string, symbols: string[], error: string | null, recording: Recording | null }} Feed
 * @typedef {{ ok: boolean, state: string, version: string, uptime_s: number, clients: number, streams: number, feeds: Feed[] }} Health
 */

/** Writes the panel of the server, and how the feed of the chosen symbol is. */
export class ServerState {
  #symbol = ''
  /** @type {Health | null} */
  #health = null
  #state = element('server-state', HTMLElement)
  #version = element('server-version', HTMLElement)
  #uptime = element('server-uptime', HTMLElement)
  #clients = element('server-clients', HTMLElement)
  #feeds = element('feeds', HTMLElement)
  #feedState = element('feed-state', HTMLElement)

  constructor() {
    setInterval(() => this.refresh(), INTERVAL_MS)
    document.addEventListener('visibilitychange', () => this.refresh())
  }

  /** @param {string} symbol */
  choose(symbol) {
    this.#symbol = symbol
    this.#writeFeedState()
  }

  async refresh() {
    if (document.hidden) return
    try {
      this.#health = await ask('/api/health')
    } catch (error) {
      if (!(error instanceof HttpError)) throw error
      this.#health = null
    }
    this.#write()
    this.#writeFeedState()
  }

  #write() {
    const health = this.#health
    write(this.#state, health ? (health.ok ? health.state : `${health.state}, not all well`) : 'no answer')
    write(this.#version, health?.version ?? NOTHING)
    write(this.#uptime, health ? duration(health.uptime_s * 1000) : NOTHING)
    write(this.#clients, health ? `${health.clients}, ${health.streams}` : NOTHING)
    if (health) this.#writeFeeds(health.feeds)
    // Without an answer the feeds keep their places, and nothing is claimed of them.
    else for (const row of this.#feeds.children) writeState(/** @type {HTMLElement} */ (row.firstElementChild), 'waiting', 'unknown')
  }

  /** @param {Feed[]} feeds */
  #writeFeeds(feeds) {
    while (this.#feeds.children.length > feeds.length) this.#feeds.lastElementChild?.remove()
    while (this.#feeds.children.length < feeds.length) this.#feeds.append(newFeedRow())
    feeds.forEach((feed, i) => {
      const [state, detail] = /** @type {HTMLElement[]} */ ([...this.#feeds.children[i].children])
      writeState(state, markOf(feed), `${feed.name}: ${feed.state}`)
      const symbols = `${feed.source}, ${feed.symbols.length} ${feed.symbols.length === 1 ? 'symbol' : 'symbols'}`
      write(detail, [symbols, feed.error, recordingText(feed.recording)].filter(Boolean).join('; '))
    })
  }

  #writeFeedState() {
    const feed = this.#health?.feeds.find(({ symbols }) => symbols.includes(this.#symbol))
    if (!this.#health) writeState(this.#feedState, 'waiting', 'feed unknown')
    else if (this.#health.state === 'warming') writeState(this.#feedState, 'waiting', 'feed warming up')
    else if (feed) writeState(this.#feedState, markOf(feed), `feed ${feed.state}`)
    else writeState(this.#feedState, 'bad', 'no feed')
  }
}

/** @param {Feed} feed */
function markOf(feed) {
  if (feed.error || feed.recording?.error || !GOOD_STATES.has(feed.state)) return 'bad'
  return feed.state === 'running' ? 'good' : 'waiting'
}

/** @param {Recording | null} recording */
function recordingText(recording) {
  if (!recording) return ''
  return recording.error ?? `${recording.state}: ${recording.records.toLocaleString('en')} records in ${recording.file}`
}

function newFeedRow() {
  const row = document.createElement('li')
  const state = document.createElement('span')
  const detail = document.createElement('span')
  state.className = 'state'
  state.append(document.createElement('span'))
  detail.className = 'quiet'
  row.append(state, detail)
  return row
}
