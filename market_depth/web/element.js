/**
 * An element of the page by its id.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {{ new (): T }} kind what it must be
 * @returns {T}
 */
export function element(id, kind) {
  const found = document.getElementById(id)
  if (!(found instanceof kind)) throw new Error(`the page has no ${kind.name} #${id}`)
  return found
}

/**
 * Change an element's text, if it is another: what did not change is not laid out again.
 * @param {Element} target
 * @param {string} text
 */
export function write(target, text) {
  if (target.textContent !== text) target.textContent = text
}

/**
 * A dot and a word for how something is.
 * @param {HTMLElement} target has a child for the word
 * @param {'good' | 'waiting' | 'bad'} state
 * @param {string} word
 */
export function writeState(target, state, word) {
  target.dataset.state = state
  if (target.firstElementChild) write(target.firstElementChild, word)
}
