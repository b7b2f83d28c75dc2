// The items of a batch in pages of 100, failures first. 10,000 items are never loaded at once.

import * as api from "/console/static/api.js";

export const ROWS = 100;

// The order in which a person wants to read them, and the count of each.
const ORDER = ["failed", "pending", "success", "cancelled"];
/** @type {Record<string, string>} */
const COUNTS = { failed: "failed", pending: "pending", success: "completed", cancelled: "cancelled" };

/** Where a page begins: in which state, and behind which item of it. @typedef {{ state: number, cursor: string | null }} Place */

export class ItemPages {
  /** @type {any[]} */
  items = [];

  /** The batch as it was when the page was read. @type {any} */
  batch = null;

  /** @type {string | null} */
  tag = null;

  /** The number of the page that is shown, from 0. */
  number = 0;

  /** @type {Place[]} */
  #places = [{ state: 0, cursor: null }];

  /** @param {string} batchId */
  constructor(batchId) {
    this.batchId = batchId;
  }

  get hasNext() {
    return this.#places.length > this.number + 1;
  }

  /** Reads a page that is known: the first, one that was shown before, or the one after it. @param {number} number @param {api.Options} [options] */
  async show(number, options = {}) {
    const place = this.#places[Math.min(number, this.#places.length - 1)];
    const isFirst = place.state === 0 && place.cursor === null;
    const found = (isFirst ? await this.#whole(options) : null) ?? (await this.#from(place, options));
    this.number = this.#places.indexOf(place);
    this.batch = found.batch;
    this.tag = found.tag;
    this.items = found.items;
    this.#places.length = this.number + 1;
    if (found.next !== null) {
      this.#places.push(found.next);
    }
  }

  /** The whole batch from one snapshot if it fits on a page, otherwise null. @param {api.Options} options */
  async #whole(options) {
    const { body, tag } = await this.#read({}, options);
    if (body.next_item_cursor !== null) {
      return null;
    }
    const items = [...body.items].sort((one, other) => ORDER.indexOf(one.status) - ORDER.indexOf(other.status));
    return { batch: body, tag, items, next: null };
  }

  /** @param {Place} place @param {api.Options} options */
  async #from({ state, cursor }, options) {
    /** @type {Map<string, any>} */
    const items = new Map();
    let batch = this.batch;
    let tag = this.tag;
    while (state < ORDER.length && items.size < ROWS) {
      const query = { items: ORDER[state], item_cursor: cursor, item_limit: ROWS - items.size };
      const { body, tag: read } = await this.#read(query, options);
      batch = body;
      tag = read;
      // An item that has changed its state between two requests is shown once.
      body.items.forEach((/** @type {any} */ item) => items.set(item.item_id, item));
      cursor = body.next_item_cursor;
      while (cursor === null && state < ORDER.length) {
        state += 1;
        if (batch[COUNTS[ORDER[state]]] > 0) {
          break;
        }
      }
    }
    return { batch, tag, items: [...items.values()], next: state < ORDER.length ? { state, cursor } : null };
  }

  /** @param {Record<string, unknown>} query @param {api.Options} options */
  #read(query, options) {
    return api.batch(this.batchId, { names: true, item_limit: ROWS, ...query }, options);
  }
}
