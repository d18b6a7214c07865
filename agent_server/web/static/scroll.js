/**
 * Keeps the end in view while text grows, but never moves the question out of it. It stops when the reader scrolls up or
 * works in it; a button goes to the end.
 */

const NEAR = 60; // pixels from the end that still count as being there
const MARGIN = 12; // pixels above a question
const SHARE = 1 / 3; // of the height that a long question keeps

export class Scroll {
  #following = true;
  #whole = false; // whether the reader wants the end rather than the question
  #waiting = false;
  #top = 0;

  /** `anchor()` gives the question that stays in view, or null. */
  constructor(box, content, button, anchor) {
    this.box = box;
    this.button = button;
    this.anchor = anchor;
    new ResizeObserver(() => this.#grown()).observe(content);
    new ResizeObserver(() => this.#grown()).observe(box);
    box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    button.addEventListener("click", () => this.toEnd(true));
    // Who opens a card or fills in a form is reading there.
    content.addEventListener("focusin", () => (this.#following = false));
    content.addEventListener("click", (event) => event.target.closest("summary") && (this.#following = false));
  }

  /** To the end, `whole` also where the question does not stay in view. */
  toEnd(whole = false) {
    this.#following = true;
    this.#whole = whole;
    this.#grown();
  }

  /** One jump per frame, however much has come. */
  #grown() {
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => {
      this.#waiting = false;
      if (this.#following) this.box.scrollTop = this.#target();
      this.#mark();
    });
  }

  #target() {
    return Math.min(this.box.scrollHeight, this.#whole ? Infinity : this.#stop());
  }

  /** Where the question would leave the view. */
  #stop() {
    const question = this.anchor();
    if (!question) return Infinity;
    const box = this.box.getBoundingClientRect();
    const { top, bottom } = question.getBoundingClientRect();
    return this.box.scrollTop - box.top + Math.max(top - MARGIN, bottom - box.height * SHARE);
  }

  #scrolled() {
    const { scrollTop } = this.box;
    const past = scrollTop > this.#stop() + 2;
    if (this.#distance() < NEAR) {
      this.#following = true;
      this.#whole ||= past;
    } else if (scrollTop < this.#top || (past && !this.#whole)) this.#following = false;
    this.#top = scrollTop;
    this.#mark();
  }

  #mark() {
    this.button.hidden = this.#distance() < NEAR;
  }

  #distance() {
    return this.box.scrollHeight - this.box.clientHeight - this.box.scrollTop;
  }
}
