/** What keys do, and the page that says so. */

import { element } from './element.js'

/** @typedef {{ keys: string[], name: string, words: string, act(key: string): void }} Shortcut */

/**
 * Listen for keys everywhere but where they are typed into or choose something.
 * @param {Shortcut[]} shortcuts
 */
export function startKeyboard(shortcuts) {
  const dialog = element('help-dialog', HTMLDialogElement)
  const all = [{ keys: ['?'], name: '?', words: 'this page', act: () => dialog.showModal() }, ...shortcuts]
  const list = element('shortcuts', HTMLElement)
  for (const { name, words } of all) {
    const [row, term, meaning] = [document.createElement('div'), document.createElement('dt'), document.createElement('dd')]
    for (const part of name.split(' ')) {
      const key = document.createElement('kbd')
      key.textContent = part
      term.append(key)
    }
    meaning.textContent = words
    row.append(term, meaning)
    list.append(row)
  }
  element('help', HTMLButtonElement).addEventListener('click', () => dialog.showModal())
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return
    const { target } = event
    const isInput = target instanceof HTMLInputElement
    // A handle and a choice of two, once clicked on, take the arrow keys and no more.
    if (target instanceof HTMLSelectElement || (isInput && !['range', 'radio'].includes(target.type))) return
    if (event.key === ' ' && (target instanceof HTMLButtonElement || (isInput && target.type === 'radio'))) return
    const shortcut = all.find(({ keys }) => keys.includes(event.key))
    if (!shortcut) return
    event.preventDefault()
    shortcut.act(event.key)
  })
}
