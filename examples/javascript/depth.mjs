// Prints the top of several books from one WebSocket, by price level (MBP) and by order (MBO), and reconnects by itself.
//
//   npm install
//   node depth.mjs ws://127.0.0.1:8080/ BTCUSD,ETHUSD
//   node depth.mjs ws://127.0.0.1:8080/ BTCUSD --frames 10       ends after 10 frames of market data
//
// A server that asks for a token is shown the one in MARKET_DEPTH_TOKEN.

import { parseArgs } from 'node:util'
import WebSocket from 'ws'

const { values, positionals } = parseArgs({ allowPositionals: true, options: { frames: { type: 'string' } } })
const [url = 'ws://127.0.0.1:8080/', symbols = 'BTCUSD'] = positionals
const maxFrames = Number(values.frames ?? Infinity)

const token = process.env.MARKET_DEPTH_TOKEN
const headers = token ? { Authorization: `Bearer ${token}` } : {}

// The client chooses the ids: every frame of a stream carries its own.
const streams = new Map()
for (const symbol of symbols.split(',')) {
  streams.set(`${symbol}-levels`, { symbol, data_type: 'MBP', max_levels: 10 })
  streams.set(`${symbol}-orders`, { symbol, data_type: 'MBO', max_levels: 5 })
}

const SILENCE_LIMIT_MS = 45_000 // the server sends a HeartBeat every 30 s
const COME_LATER = new Set([429, 500, 503]) // other errors would come again

let failures = 0
let frames = 0

function connect() {
  const socket = new WebSocket(url, { headers, handshakeTimeout: 5_000 })
  let reason = 'closed'
  let silence
  const listen = () => {
    clearTimeout(silence)
    silence = setTimeout(() => socket.terminate(), SILENCE_LIMIT_MS)
  }

  socket.on('open', () => {
    console.log(`connected to ${url}`)
    listen()
    for (const [stream_id, request] of streams) {
      socket.send(JSON.stringify({ type: 'Subscribe', stream_id, ...request }))
    }
  })
  socket.on('message', (text) => {
    listen()
    receive(JSON.parse(text), socket)
  })
  socket.on('error', (error) => (reason = error.code ?? error.message)) // 'close' comes after it
  socket.on('close', (code) => {
    clearTimeout(silence)
    if (frames >= maxFrames || streams.size === 0) return
    // From 0.5 s up to 30 s, at random: clients that lost the same server do not return in step.
    failures += 1
    const longest = Math.min(30_000, 500 * 2 ** failures)
    const pause = 500 + Math.random() * (longest - 500)
    console.log(`disconnected (${code}: ${reason}), again in ${(pause / 1000).toFixed(1)} s`)
    setTimeout(connect, pause)
  })
}

function receive(message, socket) {
  switch (message.type) {
    case 'MarketData':
      if (frames >= maxFrames) break // already closing
      failures = 0
      frames += 1
      console.log(topOfBook(message))
      if (frames >= maxFrames) socket.close()
      break
    case 'Error':
      console.error(`error ${message.code}: ${message.message}`)
      if (COME_LATER.has(message.code)) {
        socket.close()
      } else if (streams.delete(message.stream_id) && streams.size === 0) {
        process.exitCode = 1 // every stream was refused
        socket.close()
      }
      break
    case 'HeartBeat':
      console.log(`heartbeat ${message.timestamp}`)
      break
    case 'Subscribed':
      console.log(`subscribed to ${message.stream_id}`)
  }
}

// Each frame is a full snapshot, best first: there is nothing to keep from the one before.
function topOfBook({ symbol, sequence, data }) {
  const [bid, ask] = [best(data.bids, data.format), best(data.asks, data.format)]
  return `${symbol} ${data.format} #${sequence}  ${bid}  |  ${ask}`
}

function best(side, format) {
  if (side.length === 0) return 'empty'
  const { price } = side[0]
  if (format === 'MBP') return `${side[0].quantity} at ${price} (${side[0].order_count} orders)`
  const queue = side.filter((order) => order.price === price).map((order) => order.quantity)
  return `${queue.slice(0, 5).join(' + ')}${queue.length > 5 ? ' + …' : ''} at ${price}`
}

connect()
