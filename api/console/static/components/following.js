// Follows a batch while it runs: by an event stream, or by long polling where no events come through. Neither keeps the session alive.

import * as api from "/console/static/api.js";

// The first event comes at once. A proxy that collects the whole response would let nothing through.
const FIRST_EVENT_WITHIN_MS = 5000;
const POLL_S = 20;
const PAUSE_MS = 1000;

const FINISHED = ["completed", "partial", "failed", "cancelled"];

/** Whether nothing of the batch will change by itself. A cancelled one may still wait for decisions of an external service. @param {any} batch */
export const isSettled = (batch) => FINISHED.includes(batch.status) && batch.pending === 0;

export class Following {
  /** Whether the connection is lost at the moment. */
  isLost = false;

  #isOn = false;
  #streams = true;


  /**
   * @param {string} batchId
   * @param {{
   *   changed: (batch: any) => void, redraw: () => void, ended: (resume: () => void) => void, fail: (error: unknown) => void,
   * }} page what to do with a new state, and when it can't be followed any further
   */
  constructor(batchId, page) {
    this.batchId = batchId;
    this.page = page;
  }

  /** Follows until the batch is settled. Does nothing if it is being followed. */
  async start() {
    if (this.#isOn) {
      return;
    }
    this.#isOn = true;
    while (this.#isOn) {
      try {
        await (this.#streams ? this.#stream() : this.#poll());
      } catch (error) {
        this.#isOn = await this.#goesOn(error);
      }
    }
  }

  /** @param {any} batch */
  #heard(batch) {
    this.isLost = false;
    this.#isOn = !isSettled(batch);
    this.page.changed(batch);
  }

  /** One stream, to its end. The next one begins with the present state, so nothing is missed between them. */
  async #stream() {
    const address = await api.eventsAddress(this.batchId, { items: "failed" });
    await new Promise((resolve) => {
      const source = new EventSource(address);
      let hasHeard = false;
      const end = () => {
        clearTimeout(tooLate);
        source.close();
        this.#streams = hasHeard;
        resolve(undefined);
      };
      const tooLate = setTimeout(end, FIRST_EVENT_WITHIN_MS);
      source.addEventListener("batch", (event) => {
        clearTimeout(tooLate);
        hasHeard = true;
        this.#heard(JSON.parse(event.data));
        if (!this.#isOn) {
          end();
        }
      });
      source.addEventListener("error", end);
    });
    if (this.#isOn) {
      await this.#pause(PAUSE_MS);
    }
  }

  async #poll() {
    /** @type {string | null} */
    let tag = null;
    while (this.#isOn) {
      const { body, tag: next } = await api.batch(
        this.batchId, { items: "failed", item_limit: 1, wait: tag === null ? null : POLL_S }, { known: tag, unattended: true },
      );
      tag = next;
      if (body !== null) {
        this.#heard(body);
      }
    }
  }

  /** Whether to try again, after a pause. @param {unknown} error */
  async #goesOn(error) {
    if (!(error instanceof api.Problem)) {
      throw error;
    }
    if (error.needsLogin) {
      this.page.ended(() => this.start());
      return false;
    }
    if (!error.mayPass) {
      this.page.fail(error);
      return false;
    }
    this.isLost = true;
    this.page.redraw();
    await this.#pause(error.retryAfter * 1000);
    return true;
  }

  /** Waits, but not longer than until the network is back. @param {number} duration in milliseconds */
  #pause(duration) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, duration);
      window.addEventListener("online", () => {
        clearTimeout(timer);
        resolve(undefined);
      }, { once: true });
    });
  }
}
