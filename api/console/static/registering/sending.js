// The Idempotency-Key of the submission that is under way. It is random, and outlives a reload, so that one list never becomes two batches.

import { newKey } from "/console/static/api.js";

const KEPT = "submission";

/** @typedef {{ key: string, after: string | null }} Kept the key, and the newest batch before the submission */

/** The submission that was under way when the page was left, or null. @returns {Kept | null} */
export function unfinished() {
  const kept = sessionStorage.getItem(KEPT);
  return kept === null ? null : JSON.parse(kept);
}

/** The submission has arrived, or is not wanted any more. */
export function finish() {
  sessionStorage.removeItem(KEPT);
}

/** The keys of a page's submissions: the same content has the same key. */
export class Keys {
  /** @type {string | null} */
  #submission = null;

  #key = unfinished()?.key ?? newKey();

  /** The newest batch before the submission. @type {string | null} */
  after = null;

  /** @param {string} submission */
  of(submission) {
    if (this.#submission !== null && this.#submission !== submission) {
      this.renew();
    }
    this.#submission = submission;
    sessionStorage.setItem(KEPT, JSON.stringify({ key: this.#key, after: this.after }));
    return this.#key;
  }

  /** Another key from now on: the last one belongs to another submission. */
  renew() {
    this.#key = newKey();
  }
}
