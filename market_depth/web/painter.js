/**
 * What moves on the page is drawn here: once for each frame of the screen, and only what has changed.
 *
 * @typedef {{ draw(now: number): boolean }} Drawable
 *   Draws itself as of `now` (ms, the clock of `performance.now`). Returns: whether it has to be drawn again, as it moves.
 */

/** Calls what wants to be drawn, together, when the screen is ready. */
export class Painter {
  /** @type {Set<Drawable>} */
  #wanted = new Set()
  /** @type {Set<Drawable>} */
  #drawing = new Set()
  #frame = 0

  /**
   * Have something drawn with the next frame; asked for twice, it is drawn once.
   * @param {Drawable} drawable
   */
  want(drawable) {
    this.#wanted.add(drawable)
    if (this.#frame === 0) this.#frame = requestAnimationFrame(this.#draw)
  }

  /** @param {number} now */
  #draw = (now) => {
    this.#frame = 0
    const due = this.#wanted
    this.#wanted = this.#drawing // two sets take turns: the loop leaves nothing for the collector
    this.#drawing = due
    for (const drawable of due) if (drawable.draw(now)) this.want(drawable)
    due.clear()
  }
}

/** A canvas that fills its parent, in the screen's own pixels. */
export class Surface {
  #ratio = 0

  /**
   * @param {HTMLCanvasElement} canvas its parent has a size of its own
   * @param {() => void} onResize called when it must be drawn anew
   */
  constructor(canvas, onResize) {
    const context = canvas.getContext('2d')
    if (context === null || canvas.parentElement === null) throw new Error('a canvas in a box is needed')
    this.canvas = canvas
    this.context = context
    this.width = 0
    this.height = 0
    new ResizeObserver(([entry]) => {
      if (entry === undefined) return
      this.width = entry.contentRect.width
      this.height = entry.contentRect.height
      onResize()
    }).observe(canvas.parentElement)
  }

  /**
   * Empty it, and make it as large as its parent is now. Units are CSS pixels from here on.
   * Returns: whether there is room to draw in.
   */
  begin() {
    const ratio = devicePixelRatio
    const [width, height] = [Math.round(this.width * ratio), Math.round(this.height * ratio)]
    if (this.canvas.width !== width || this.canvas.height !== height || this.#ratio !== ratio) {
      this.canvas.width = width
      this.canvas.height = height
      this.#ratio = ratio
    } else {
      this.context.setTransform(1, 0, 0, 1, 0, 0)
      this.context.clearRect(0, 0, width, height)
    }
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0)
    return width > 0 && height > 0
  }
}
