// What would become of each item, which of them are sent, and the plan that holds the server to it.

import * as api from "/console/static/api.js";

// A plan is valid for 15 minutes. An older one than this is renewed before it is used.
const PLAN_MS = 10 * 60 * 1000;

/**
 * @typedef {object} Entry one item of a review
 * @property {import("/console/static/registering/draft.js").Item} item
 * @property {"ok" | "duplicate" | "cannot"} group
 * @property {any} error why it would fail, or null
 * @property {any[]} warnings
 * @property {boolean} included whether it is sent
 *
 * @typedef {object} Difference
 * @property {Entry} entry
 * @property {string} planned `success` or an error code
 * @property {string} now the same
 */

/** A review of some items. */
export class Review {
  /** @type {Entry[]} */
  entries = [];

  /** What has changed since the person saw the review. @type {Difference[]} */
  differences = [];

  /** Whether the server can't predict, so nothing is known. */
  isBlind = false;

  /** The items of the last request. @type {import("/console/static/registering/draft.js").Item[]} */
  sent = [];

  /** @type {{ token: string, of: string, madeAt: number } | null} */
  #plan = null;

  /**
   * @param {import("/console/static/registering/draft.js").Item[]} items
   * @param {{ label?: string, coordinator_id?: string }} shared what the submission has besides its items
   * @param {boolean} canPreview
   */
  constructor(items, shared, canPreview) {
    this.items = items;
    this.shared = shared;
    this.isBlind = !canPreview;
  }

  get included() {
    return this.entries.filter((entry) => entry.included);
  }

  /** Asks what would become of each item. */
  async load() {
    const submission = this.#submission(this.items, () => false);
    const predicted = await this.#predicted(submission);
    this.entries = this.items.map((item, position) => entryOf(item, predicted?.[position]));
  }

  /**
   * Submits the included items, unless something has changed since the person saw the review. Then the changes are in `differences`, and the result is null.
   *
   * @param {(submission: string) => string} keyOf the Idempotency-Key for a submission
   * @returns {Promise<any>} the batch
   */
  async submit(keyOf) {
    const entries = this.included;
    const overriding = new Set(entries.filter((entry) => entry.group === "duplicate").map((entry) => entry.item));
    const submission = this.#submission(entries.map((entry) => entry.item), (item) => overriding.has(item));
    this.differences = [];
    if (!this.isBlind && !this.#holds(submission)) {
      const predicted = await this.#predicted(submission);
      if (predicted !== null && this.#differ(entries, predicted)) {
        return null;
      }
    }
    const plan = this.#plan === null ? {} : { plan: this.#plan.token };
    try {
      return await api.submit({ ...submission, ...plan }, keyOf(JSON.stringify(submission)));
    } catch (error) {
      if (!(error instanceof api.Problem) || error.code !== "plan_changed") {
        throw error;
      }
      const predicted = await this.#predicted(submission);
      if (predicted === null || !this.#differ(entries, predicted)) {
        throw error; // it has changed back meanwhile, so the person can try again
      }
      return null;
    }
  }

  /** @param {import("/console/static/registering/draft.js").Item[]} items @param {(item: any) => boolean} overrides */
  #submission(items, overrides) {
    this.sent = items;
    return { ...this.shared, items: items.map((item) => (overrides(item) ? { ...item, override_duplicates: true } : item)) };
  }

  /** @param {unknown} submission */
  #holds(submission) {
    return this.#plan !== null && this.#plan.of === JSON.stringify(submission) && Date.now() - this.#plan.madeAt < PLAN_MS;
  }

  /**
   * The predictions, and keeps their plan; null where the server can't predict. A response without one for each item says nothing about any,
   * so it is a failure.
   *
   * @param {{ items: unknown[] }} submission @returns {Promise<any[] | null>}
   */
  async #predicted(submission) {
    if (this.isBlind) {
      return null;
    }
    try {
      const preview = await api.preview(submission);
      if (preview.items?.length !== submission.items.length) {
        throw new api.Problem("internal_error", 502);
      }
      this.#plan = { token: preview.plan, of: JSON.stringify(submission), madeAt: Date.now() };
      return preview.items;
    } catch (error) {
      if (error instanceof api.Problem && error.status === 501) {
        this.isBlind = true;
        this.#plan = null;
        return null;
      }
      throw error;
    }
  }

  /** Compares what the person saw with what is predicted now, and takes over the latter. @param {Entry[]} entries @param {any[]} predicted */
  #differ(entries, predicted) {
    for (const [position, entry] of entries.entries()) {
      // An included duplicate overrides the other activity, so it was expected to succeed.
      const planned = entry.group === "cannot" ? entry.error.code : "success";
      const now = predicted[position].error?.code ?? "success";
      if (planned !== now) {
        this.differences.push({ entry, planned, now });
        Object.assign(entry, entryOf(entry.item, predicted[position]));
      }
    }
    return this.differences.length > 0;
  }
}

/** @param {import("/console/static/registering/draft.js").Item} item @param {any} predicted @returns {Entry} */
function entryOf(item, predicted) {
  const error = predicted?.error ?? null;
  const group = error === null ? "ok" : error.code === "duplicate_activity" ? "duplicate" : "cannot";
  return { item, group, error, warnings: predicted?.warnings ?? [], included: error === null };
}
