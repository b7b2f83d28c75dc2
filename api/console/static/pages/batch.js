// One batch: its sentence, its progress while it runs, and what happened to each person.

import { Announcer } from "/console/static/components/announcer.js";
import { batchSentence } from "/console/static/components/batch-sentence.js";
import { Following, isSettled } from "/console/static/components/following.js";
import { ItemPages, ROWS } from "/console/static/components/item-pages.js";
import { itemResult, shownState } from "/console/static/components/item-result.js";
import { shownDate, shownMinutes } from "/console/static/dates.js";
import { moment, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

// While a batch runs, the table is read again at most this often. The sentence and the progress follow each event.
const TABLE_EVERY_MS = 2000;

/** @param {import("/console/static/app.js").Context} context */
export async function page(context) {
  const batchPage = new BatchPage(context);
  await batchPage.start();
  return () => batchPage.draw();
}

class BatchPage {
  /** The newest counts that are known. @type {any} */
  batch = null;

  #readAt = 0;

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #reading;

  /** @param {import("/console/static/app.js").Context} context */
  constructor(context) {
    this.context = context;
    this.timeZone = context.me.organization.time_zone;
    this.pages = new ItemPages(context.values.batch_id);
    this.announcer = new Announcer(context.redraw);
    this.following = new Following(context.values.batch_id, {
      changed: (batch) => this.#changed(batch), redraw: context.redraw, ended: context.ended, fail: context.fail,
    });
  }

  async start() {
    await this.#read(0);
    if (!isSettled(this.batch)) {
      this.following.start();
    }
  }

  /** @param {number} number @param {import("/console/static/api.js").Options} [options] */
  async #read(number, options = {}) {
    await this.pages.show(number, options);
    this.batch = this.pages.batch;
    this.#readAt = Date.now();
  }

  /** @param {any} batch */
  #changed(batch) {
    this.batch = { ...this.batch, ...batch };
    this.announcer.say(batchSentence(this.batch));
    this.context.redraw();
    const wait = isSettled(batch) ? 0 : Math.max(0, this.#readAt + TABLE_EVERY_MS - Date.now());
    clearTimeout(this.#reading);
    this.#reading = setTimeout(() => this.#readAgain(), wait);
  }

  async #readAgain() {
    await this.#read(this.pages.number, { unattended: true });
    this.context.redraw();
  }

  draw() {
    const { batch } = this;
    return html`
      <article class="batch" data-color="neutral">
        <header>
          <h1 class="ds-heading" data-size="lg">${batch.label ?? text("batch.no_label")}</h1>
          <p class="sentence" data-status=${batch.status} data-attention=${batch.needs_attention}>${batchSentence(batch)}</p>
          ${isSettled(batch) ? nothing : this.#progress()}
          <p class="meta">${text("batch.meta", { when: moment(batch.submitted_at, this.timeZone) })}</p>
        </header>
        ${this.announcer.view()} ${this.#table()}
      </article>
    `;
  }

  #progress() {
    const { batch } = this;
    return html`
      <progress aria-label=${text("batch.progress")} max=${batch.total_items} .value=${batch.total_items - batch.pending}></progress>
      ${this.following.isLost ? html`<p class="lost">${text("batch.lost")}</p>` : nothing}
    `;
  }

  #table() {
    return html`
      <table class="ds-table people">
        <caption class="ds-sr-only">${text("batch.items")}</caption>
        <thead>
          <tr>
            <th scope="col">${text("item.mentor")}</th>
            <th scope="col">${text("item.result")}</th>
            <th scope="col">${text("item.type")}</th>
            <th scope="col">${text("item.date")}</th>
            <th scope="col">${text("item.minutes")}</th>
          </tr>
        </thead>
        <tbody>
          ${this.pages.items.map((item) => this.#row(item))}
        </tbody>
      </table>
      ${this.#turning()}
    `;
  }

  /** @param {any} item */
  #row(item) {
    return html`
      <tr data-state=${shownState(item)}>
        <th scope="row">${item.mentor_name ?? item.mentor_id}</th>
        <td>${itemResult(item, this.timeZone)}</td>
        <td>${item.activity_type_name ?? item.activity_type}</td>
        <td>${shownDate(item.activity_date)}</td>
        <td>${shownMinutes(item.duration_minutes, text("item.hour"))}</td>
      </tr>
    `;
  }

  #turning() {
    const { number, items, batch, hasNext } = this.pages;
    if (number === 0 && !hasNext) {
      return nothing;
    }
    const first = number * ROWS + 1;
    const values = { first, last: first + items.length - 1, total: batch.total_items };
    return html`
      <nav class="turning" aria-label=${text("batch.items")}>
        <button type="button" class="ds-button" data-variant="secondary" ?disabled=${number === 0} @click=${() => this.#turn(number - 1)}>
          ${text("batch.previous")}
        </button>
        <span>${text("batch.rows", values)}</span>
        <button type="button" class="ds-button" data-variant="secondary" ?disabled=${!hasNext} @click=${() => this.#turn(number + 1)}>
          ${text("batch.next")}
        </button>
      </nav>
    `;
  }

  /** @param {number} number */
  async #turn(number) {
    await this.#read(number);
    this.context.redraw();
  }
}
