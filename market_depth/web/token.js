/** The token that a server may ask for: typed in once, kept until the tab is closed. */

const KEY = 'market-depth token'

/** The token, or '' when none was typed in. */
export function token() {
  return sessionStorage.getItem(KEY) ?? ''
}

/**
 * The subprotocols that show the token: the one header that a browser lets a page give to a WebSocket. A subprotocol's name
 * may not have every character, hence base64url.
 */
export function subprotocols() {
  if (!token()) return []
  const name = btoa(token()).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
  return ['market-depth', `bearer.${name}`]
}

/** Asks the user for a token, in a dialog that goes away when one was given. */
export class TokenDialog {
  #dialog = /** @type {HTMLDialogElement} */ (document.getElementById('token-dialog'))
  #input = /** @type {HTMLInputElement} */ (document.getElementById('token'))
  #words = /** @type {HTMLElement} */ (document.getElementById('token-words'))

  /** @param {() => void} onToken called when there is one to try */
  constructor(onToken) {
    // A header takes no other characters, and a server no other token.
    this.#input.pattern = '[!-~]+'
    this.#dialog.addEventListener('cancel', (event) => event.preventDefault()) // there is nothing to see behind it
    this.#dialog.addEventListener('close', () => {
      sessionStorage.setItem(KEY, this.#input.value)
      this.#input.value = ''
      onToken()
    })
  }

  open() {
    this.#words.textContent = token()
      ? 'The one you gave is not valid.'
      : 'It is the server’s --token: whoever started it knows it.'
    if (!this.#dialog.open) this.#dialog.showModal()
  }
}
