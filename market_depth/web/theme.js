/** The page's colours, for what CSS cannot reach: canvases. They follow the system, or the switch. */

const KEY = 'market-depth theme'
const THEMES = ['system', 'light', 'dark']
const SIGNS = { system: '◐', light: '○', dark: '●' }
const NAMES = ['text', 'quiet', 'line', 'panel', 'bid', 'ask', 'accent']

/** Of the canvases, as CSS text; replaced as a whole when the theme changes. */
export let colours = { text: '', quiet: '', line: '', panel: '', bid: '', ask: '', accent: '' }

/**
 * Apply the theme that was chosen before, and let the button choose another.
 * @param {HTMLElement} button
 * @param {() => void} onChange called when `colours` has changed
 */
export function startTheme(button, onChange) {
  let theme = localStorage.getItem(KEY) ?? 'system'
  if (!THEMES.includes(theme)) theme = 'system'

  const apply = () => {
    document.documentElement.dataset.theme = theme
    button.textContent = SIGNS[/** @type {keyof typeof SIGNS} */ (theme)]
    button.setAttribute('aria-label', `Colours: ${theme === 'system' ? 'as the system' : theme}`)
    colours = readColours()
    onChange()
  }
  button.addEventListener('click', () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? 'system'
    localStorage.setItem(KEY, theme)
    apply()
  })
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', apply)
  apply()
}

/** What the custom properties stand for now: only an element that wears them can tell. */
function readColours() {
  const probe = document.createElement('i')
  probe.hidden = true
  document.body.append(probe)
  const found = NAMES.map((name) => {
    probe.style.color = `var(--${name})`
    return [name, getComputedStyle(probe).color]
  })
  probe.remove()
  return Object.fromEntries(found)
}

/**
 * Red, green and blue of a colour as the browser tells it.
 * @param {string} colour
 * @returns {[number, number, number]}
 */
export function channels(colour) {
  const [red = 0, green = 0, blue = 0] = (colour.match(/[\d.]+/g) ?? []).map(Number)
  return [red, green, blue]
}
