/** The page put together: what is chosen, and who is told of it. */

import { Book } from './book.js'
import { Connection } from './connection.js'
import { DepthChart } from './depth_chart.js'
import { element, write, writeState } from './element.js'
import { Heatmap } from './heatmap.js'
import { DepthHistory } from './history.js'
import { ask } from './http.js'
import { startKeyboard } from './keyboard.js'
import { Ladder, queueLegend } from './ladder.js'
import { Markets } from './markets.js'
import { Painter } from './painter.js'
import { ReplayBar } from './replay_bar.js'
import { Series } from './series.js'
import { ServerState } from './server_state.js'
import { startTheme } from './theme.js'
import { TokenDialog } from './token.js'
import { TopOfBook } from './top_of_book.js'
import { Traffic } from './traffic.js'

/** @typedef {import('./markets.js').Instrument} Instrument */

const TICK_MS = 500
const STALE_MS = 3_000
const DESCRIBE_MS = 5_000

const symbolChoice = element('symbol', HTMLSelectElement)
const levelsChoice = element('levels', HTMLSelectElement)
const typeChoices = /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll('[name=data-type]'))
const note = element('ladder-note', HTMLElement)
const legend = element('ladder-legend', HTMLElement)
const connectionState = element('connection-state', HTMLElement)

const painter = new Painter()
const book = new Book()
const depthHistory = new DepthHistory()
const top = new TopOfBook(book, painter)
const ladder = new Ladder(element('ladder-plot', HTMLElement), book, painter)
const depthChart = new DepthChart(element('depth-plot', HTMLElement), book, painter)
const heatmap = new Heatmap(element('heatmap-plot', HTMLElement), element('heatmap-legend', HTMLElement), depthHistory, painter)
const series = new Series(element('series-plot', HTMLElement), painter)
const replayBar = new ReplayBar()
const serverState = new ServerState()
const tokenDialog = new TokenDialog(() => connection.connect())
const connection = new Connection(`ws${location.origin.slice('http'.length)}/`, loadInstruments, showConnection)
const markets = new Markets(element('markets', HTMLElement), connection, painter, (symbol) => choose({ symbol }))
new Traffic(connection)

/** @type {Instrument[]} */
let instruments = []
const chosen = readAddress()
let streamError = ''
/** When the newest frame of the chosen stream came. */
let frameAt = NaN
let describedAt = -Infinity
let endStream = () => {}

// What is chosen: it stands in the page's address, so that a reload or a friend sees the same.

function readAddress() {
  const asked = new URLSearchParams(location.search)
  const levels = asked.get('levels') ?? ''
  const isOffered = [...levelsChoice.options].some(({ value }) => value === levels)
  return {
    symbol: asked.get('symbol') ?? '',
    dataType: /** @type {'MBP' | 'MBO'} */ (asked.get('data_type') === 'MBO' ? 'MBO' : 'MBP'),
    levels: isOffered ? Number(levels) : matchMedia('(max-width: 44rem)').matches ? 10 : 20,
  }
}

/** @param {Partial<typeof chosen>} choice */
function choose(choice) {
  Object.assign(chosen, choice)
  const instrument = instruments.find(({ symbol }) => symbol === chosen.symbol)
  if (instrument && !instrument.mbo) chosen.dataType = 'MBP'
  const address = new URLSearchParams({ symbol: chosen.symbol, data_type: chosen.dataType, levels: String(chosen.levels) })
  history.replaceState(null, '', `?${address}`)
  showChoice(instrument)
  subscribe(instrument)
}

/** @param {Instrument | undefined} instrument */
function showChoice(instrument) {
  symbolChoice.value = chosen.symbol
  levelsChoice.value = String(chosen.levels)
  for (const input of typeChoices) {
    input.checked = input.value === chosen.dataType
    input.disabled = input.value === 'MBO' && !instrument?.mbo
  }
  legend.replaceChildren(...(chosen.dataType === 'MBO' ? ['Time in line: ', ...queueLegend()] : []))
}

/** @param {Instrument | undefined} instrument */
function subscribe(instrument) {
  endStream()
  endStream = () => {}
  streamError = ''
  frameAt = NaN
  describedAt = -Infinity
  book.clear()
  depthHistory.forget()
  if (instrument) {
    setSteps(instrument)
    markets.show(instruments, instrument.symbol)
    const topHistory = markets.historyOf(instrument.symbol)
    if (topHistory) series.show(topHistory)
    replayBar.show(instrument)
    serverState.choose(instrument.symbol)
    top.show(instrument.symbol)
    const request = { symbol: instrument.symbol, data_type: chosen.dataType, max_levels: chosen.levels }
    endStream = connection.subscribe(request, { onFrame, onError })
  }
  ladder.show(chosen.levels)
  heatmap.forget()
  depthChart.redraw()
  showNote()
}

/** @param {Instrument} instrument */
function setSteps({ tick_size, price_precision, quantity_precision }) {
  const precisions = { price: price_precision, quantity: quantity_precision }
  ladder.precisions = top.precisions = precisions
  top.tickSize = heatmap.tickSize = series.tickSize = Number(tick_size)
  depthChart.pricePrecision = heatmap.pricePrecision = series.pricePrecision = price_precision
}

/** @param {import('./connection.js').Frame} frame */
function onFrame(frame) {
  const now = performance.now()
  const isNews = frame.sequence !== book.sequence
  const isFirst = Number.isNaN(frameAt)
  frameAt = now
  if (isNews) {
    book.read(frame)
    ladder.update(now)
    depthChart.redraw()
  }
  depthHistory.record(now, book)
  heatmap.update()
  series.update()
  top.update()
  if (isFirst) tick()
}

/** @param {string} message */
function onError(message) {
  streamError = message
  showNote()
}

// The server's instruments: asked before each connection, since the server may be another than before.

async function loadInstruments() {
  /** @type {Instrument[]} */
  const found = await ask('/api/symbols')
  const isSame = JSON.stringify(found) === JSON.stringify(instruments)
  instruments = found
  if (isSame) return
  symbolChoice.replaceChildren(...found.map(({ symbol }) => new Option(symbol)))
  symbolChoice.disabled = found.length === 0
  markets.show(found, chosen.symbol)
  const isServed = found.some(({ symbol }) => symbol === chosen.symbol)
  choose({ symbol: isServed ? chosen.symbol : (found[0]?.symbol ?? '') })
}

// What is said about the connection and the book

function showConnection() {
  const { state } = connection
  const words = { connecting: 'connecting', live: 'live', waiting: 'disconnected', locked: 'token needed' }
  writeState(connectionState, state === 'live' ? 'good' : state === 'connecting' ? 'waiting' : 'bad', words[state])
  if (state === 'locked') tokenDialog.open()
  if (state === 'live' || state === 'waiting') serverState.refresh()
  tick()
}

function showNote() {
  const { state, reason } = connection
  let text = ''
  if (streamError) text = streamError
  else if (state === 'waiting') text = `${reason} ${nextTry()}`
  else if (state === 'live' && instruments.length === 0) text = 'This server has no instruments.'
  else if (state === 'live' && !book.isKnown) text = 'No book yet: the server is warming up, or the feed has not begun.'
  else if (state === 'live' && book.bids.length + book.asks.length === 0) text = 'The book is empty.'
  else if (state === 'connecting' && !book.isKnown) text = 'Connecting …'
  write(note, text)
}

function nextTry() {
  const seconds = Math.max(0, Math.ceil((connection.retryAt - performance.now()) / 1000))
  return `Next try in ${seconds} s.`
}

function tick() {
  const isStale = connection.state !== 'live' || !(performance.now() - frameAt < STALE_MS)
  document.body.classList.toggle('stale', isStale)
  showNote()
  if (performance.now() - describedAt >= DESCRIBE_MS) describe()
}

function describe() {
  describedAt = book.isKnown ? performance.now() : -Infinity
  heatmap.describe()
  series.describe()
  depthChart.describe()
}

// What the user does

/** @param {number} by */
function chooseNeighbour(by) {
  const at = instruments.findIndex(({ symbol }) => symbol === chosen.symbol)
  const neighbour = instruments[at + by]
  if (neighbour) choose({ symbol: neighbour.symbol })
}

/** @param {number} by */
function chooseLevels(by) {
  const option = levelsChoice.options[levelsChoice.selectedIndex + by]
  if (option) choose({ levels: Number(option.value) })
}

symbolChoice.addEventListener('change', () => choose({ symbol: symbolChoice.value }))
levelsChoice.addEventListener('change', () => choose({ levels: Number(levelsChoice.value) }))
for (const input of typeChoices) {
  input.addEventListener('change', () => choose({ dataType: /** @type {'MBP' | 'MBO'} */ (input.value) }))
}

startKeyboard([
  { keys: ['/', 's'], name: '/', words: 'choose a symbol', act: () => symbolChoice.focus() },
  { keys: ['k', 'ArrowUp'], name: 'k', words: 'symbol before', act: () => chooseNeighbour(-1) },
  { keys: ['j', 'ArrowDown'], name: 'j', words: 'symbol after', act: () => chooseNeighbour(1) },
  { keys: [...'123456789'], name: '1 … 9', words: 'a market of the row', act: (key) => choose({ symbol: markets.symbols[Number(key) - 1] ?? chosen.symbol }) },
  { keys: ['o'], name: 'o', words: 'by price, or by order', act: () => choose({ dataType: chosen.dataType === 'MBP' ? 'MBO' : 'MBP' }) },
  { keys: ['+', '='], name: '+', words: 'more levels', act: () => chooseLevels(1) },
  { keys: ['-'], name: '−', words: 'fewer levels', act: () => chooseLevels(-1) },
  { keys: ['b'], name: 'b', words: 'say the best prices', act: () => top.speak() },
  { keys: ['t'], name: 't', words: 'light, dark, or as the system', act: () => element('theme', HTMLButtonElement).click() },
  { keys: [' '], name: 'space', words: 'replay: play or pause', act: () => replayBar.playOrPause() },
  { keys: ['.'], name: '.', words: 'replay: step', act: () => replayBar.step() },
  { keys: [']'], name: ']', words: 'replay: faster', act: () => replayBar.changeSpeed(1) },
  { keys: ['['], name: '[', words: 'replay: slower', act: () => replayBar.changeSpeed(-1) },
])
startTheme(element('theme', HTMLButtonElement), () => {
  heatmap.restyle()
  for (const picture of [ladder, depthChart, series]) picture.redraw()
})
showChoice(undefined)
ladder.show(chosen.levels)
setInterval(tick, TICK_MS)
connection.connect()
