// Says changes to screen readers, at most one in five seconds.

import { html } from "/console/static/vendored.js";

const EVERY_MS = 5000;

export class Announcer {
  #said = "";
  #next = "";
  #saidAt = 0;

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {() => void} redraw */
  constructor(redraw) {
    this.redraw = redraw;
  }

  /** Says it now, or as soon as the last message is old enough. Only the newest is said. @param {string} sentence */
  say(sentence) {
    this.#next = sentence;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#saidAt = Date.now();
      this.#said = this.#next;
      this.redraw();
    }, Math.max(0, this.#saidAt + EVERY_MS - Date.now()));
  }

  view() {
    return html`<p class="ds-sr-only" role="status">${this.#said}</p>`;
  }
}
