/** Keeps the end in view while text grows, until the reader scrolls up or works in it; a button brings them back. */

const NEAR = 60; // pixels from the end that still count as being there

export class Scroll {
  #following = true;
  #waiting = false;
  #top = 0;

  constructor(box, content, button) {
    this.box = box;
    this.button = button;
    new ResizeObserver(() => this.#grown()).observe(content);
    new ResizeObserver(() => this.#grown()).observe(box);
    box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    button.addEventListener("click", () => this.toEnd());
    // Who opens a card or fills in a form is reading there.
    content.addEventListener("focusin", () => (this.#following = false));
    content.addEventListener("click", (event) => event.target.closest("summary") && (this.#following = false));
  }

  toEnd() {
    this.#following = true;
    this.#grown();
  }

  /** One jump per frame, however much has come. */
  #grown() {
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => {
      this.#waiting = false;
      if (this.#following) this.box.scrollTop = this.box.scrollHeight;
      this.#mark();
    });
  }

  #scrolled() {
    const { scrollTop } = this.box;
    if (this.#distance() < NEAR) this.#following = true;
    else if (scrollTop < this.#top) this.#following = false;
    this.#top = scrollTop;
    this.#mark();
  }

  #mark() {
    this.button.hidden = this.#following || this.#distance() < NEAR;
  }

  #distance() {
    return this.box.scrollHeight - this.box.clientHeight - this.box.scrollTop;
  }
}
