// The library ws, a send for each message and client, as a program: MESSAGES_FILE INTERVAL_MS.
'use strict';

const { readFileSync } = require('node:fs');
const { WebSocket, WebSocketServer } = require('ws');

const [file, intervalMs] = process.argv.slice(2);
const around = readFileSync(file, 'utf8').trimEnd().split('\n').map((line) => line.split(/(?<="timestamp":")[^"]*(.*)/s));

// The time with microseconds, such as 2026-11-20T16:41:03.123456Z; a Date has milliseconds alone.
function timestamp() {
  const microseconds = Math.round((performance.timeOrigin + performance.now()) * 1000);
  const text = new Date(Math.floor(microseconds / 1000)).toISOString();
  return `${text.slice(0, -1)}${String(microseconds % 1000).padStart(3, '0')}Z`;
}

function sendRound(clients) {
  const stamp = timestamp();
  for (const [before, after] of around) {
    const message = Buffer.from(`${before}${stamp}${after}`);
    for (const client of clients) {
      if (client.readyState === WebSocket.OPEN) client.send(message, { binary: false });
    }
  }
}

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, backlog: 4096, perMessageDeflate: false });
server.on('connection', (client) => client.on('error', () => client.terminate()));
server.on('listening', () => {
  console.log(`Serving on ws://127.0.0.1:${server.address().port}/`);
  setInterval(sendRound, Number(intervalMs), server.clients);
});
process.stdin.on('end', () => process.exit()).resume();
