/** The server's HTTP routes, asked with the token that was typed in. */

import { token } from './token.js'

const TIMEOUT_MS = 35_000 // the server gives a replay 30 s to do what it is told

/** The server's answer is an error; `status` is 0 when there was no answer at all. */
export class HttpError extends Error {
  /**
   * @param {number} status
   * @param {string} detail
   */
  constructor(status, detail) {
    super(detail)
    this.status = status
  }
}

/**
 * What a route answers, read from JSON.
 * @param {string} path
 * @param {object} [content] sent as JSON, by POST
 * @returns {Promise<any>} rejected with an HttpError
 */
export async function ask(path, content) {
  /** @type {Record<string, string>} */
  const headers = {}
  if (token()) headers.Authorization = `Bearer ${token()}`
  if (content) headers['Content-Type'] = 'application/json'
  const signal = AbortSignal.timeout(TIMEOUT_MS)
  let response
  try {
    response = await fetch(path, {
      headers,
      signal,
      cache: 'no-store',
      ...(content && { method: 'POST', body: JSON.stringify(content) }),
    })
  } catch {
    throw new HttpError(0, 'The server does not answer.') // why not, a browser keeps to itself
  }
  const answer = await response.json().catch(() => ({ detail: response.statusText }))
  // Health is 503 when a part is down, and tells all the same.
  if (!response.ok && answer.detail !== undefined) throw new HttpError(response.status, answer.detail)
  return answer
}
