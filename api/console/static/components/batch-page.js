// One batch: its sentence, its progress while it runs, what can be done with it, and what happened to each person.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { Announcer } from "/console/static/components/announcer.js";
import { CancelDialog } from "/console/static/components/batch-cancel.js";
import { DeleteDialog, RenameDialog } from "/console/static/components/batch-edit.js";
import { PersonDialog } from "/console/static/components/batch-person.js";
import { batchSentence } from "/console/static/components/batch-sentence.js";
import { UndoDialog } from "/console/static/components/batch-undo.js";
import { Dialog, focusOn } from "/console/static/components/dialog.js";
import { Following, isSettled } from "/console/static/components/following.js";
import { ItemPages, ROWS } from "/console/static/components/item-pages.js";
import { itemResult, shownState } from "/console/static/components/item-result.js";
import { shownDate, shownMinutes } from "/console/static/dates.js";
import { counted, moment, text } from "/console/static/messages.js";
import { saveAs } from "/console/static/saving.js";
import { html, nothing } from "/console/static/vendored.js";

// While a batch runs, the table is read again at most this often. The sentence and the progress follow each event.
const TABLE_EVERY_MS = 2000;

// How often to look whether an external service has answered an undo. No event tells it.
const ANSWER_EVERY_MS = 5000;

// The batch is no longer what this page shows: gone, in another state, or edited.
const OUTDATED = [404, 409, 412];

const OUTCOME = "outcome";

// A receipt is ready a few seconds after its batch.
const RECEIPT_TRIES = 8;

// Begins the id of each row's button.
const ROW = "row-";

// Says which rows are shown, above a table with several pages.
const ROWS_SHOWN = "rows-shown";

export class BatchPage {
  /** The newest counts that are known. @type {any} */
  batch = null;

  /** What the last action did. @type {string[]} */
  #outcome = [];

  #isGone = false;
  #readAt = 0;

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #nextReading;

  /** Whether the batch's receipt is waited for. */
  #isUnsigned = false;

  /**
   * @param {import("/console/static/app.js").Context} context
   * @param {import("/console/static/components/people.js").NameOf} nameOf
   */
  constructor(context, nameOf) {
    this.context = context;
    this.nameOf = nameOf;
    this.timeZone = context.me.organization.time_zone;
    this.pages = new ItemPages(context.values.batch_id);
    this.dialog = new Dialog(context);
    this.announcer = new Announcer(context.redraw);
    this.reading = new Action(context);
    this.dismissing = new Action(context);
    this.receiving = new Action(context);
    this.following = new Following(context.values.batch_id, {
      changed: (batch) => this.#changed(batch), redraw: context.redraw, ended: context.ended, fail: context.fail,
    });
  }

  get mayChange() {
    return this.context.me.role !== "auditor";
  }

  get mayUndo() {
    return this.mayChange && this.context.me.features.revoke && isSettled(this.batch);
  }

  async start() {
    await this.#read(0);
    const retried = this.context.query.get("retried");
    if (retried !== null) {
      this.#outcome = [counted("correct.done", Number(retried), { retried })];
      // Said once: not again when the page is loaded again.
      history.replaceState(null, "", location.pathname);
      // The page is drawn when this is done.
      setTimeout(() => focusOn(OUTCOME));
    }
  }

  /** @param {any} item */
  nameOfItem(item) {
    return item.mentor_name ?? item.mentor_id;
  }

  /** Shows something in the page's dialog. @param {import("/console/static/components/dialog.js").Content} content */
  show(content) {
    this.dialog.open(content);
  }

  /** Says what an action has done, and moves the focus there. @param {string[]} sentences */
  say(sentences) {
    this.#outcome = sentences;
    this.context.redraw();
    focusOn(OUTCOME);
  }

  /** The batch was removed from view. */
  gone() {
    this.#isGone = true;
    this.context.redraw();
    focusOn(OUTCOME);
  }

  /** Sends a change, and shows the batch as it is afterwards, also if somebody else was faster. @template T @param {() => Promise<T>} work */
  async changing(work) {
    try {
      const result = await work();
      await this.#read(this.pages.number);
      return result;
    } catch (error) {
      if (error instanceof api.Problem && OUTDATED.includes(error.status)) {
        await this.#read(this.pages.number);
      }
      throw error;
    }
  }

  /** @param {number} number @param {api.Options} [options] */
  async #read(number, options = {}) {
    await this.pages.show(number, options);
    this.batch = this.pages.batch;
    this.#readAt = Date.now();
    if (!isSettled(this.batch)) {
      this.following.start();
    } else if (this.pages.items.some((item) => item.revocation_request === "unresolved")) {
      this.#readSoon(ANSWER_EVERY_MS);
    }
  }

  /** A new state, from the event stream. @param {any} batch */
  #changed(batch) {
    this.batch = { ...this.batch, ...batch };
    this.announcer.say(batchSentence(this.batch));
    this.context.redraw();
    this.#readSoon(isSettled(batch) ? 0 : Math.max(0, this.#readAt + TABLE_EVERY_MS - Date.now()));
  }

  /** @param {number} wait in milliseconds */
  #readSoon(wait) {
    clearTimeout(this.#nextReading);
    this.#nextReading = setTimeout(() => {
      if (this.reading.isBusy) {
        this.#readSoon(TABLE_EVERY_MS);
      } else {
        this.reading.run(() => this.#readAgain());
      }
    }, wait);
  }

  /** Reads the page again. People may move in the table, and the focus moves along. */
  async #readAgain() {
    await this.#read(this.pages.number, { unattended: true });
    const focused = document.activeElement?.id;
    this.context.redraw();
    if (focused !== undefined && focused.startsWith(ROW)) {
      focusOn(focused);
    }
  }

  draw() {
    if (this.#isGone) {
      return html`
        <section class="batch panel" id=${OUTCOME} tabindex="-1">
          <h1 class="ds-heading" data-size="md">${text("delete.done")}</h1>
          <p class="ds-paragraph"><a class="ds-link" href="/console/batches">${text("delete.next")}</a></p>
        </section>
      `;
    }
    return html`
      <article class="batch" data-color="neutral">
        ${this.#header()}
        ${this.#outcome.length === 0
          ? nothing
          : html`
              <div class="ds-alert" data-color="success" id=${OUTCOME} tabindex="-1">
                ${this.#outcome.map((sentence) => html`<p class="ds-paragraph">${sentence}</p>`)}
              </div>
            `}
        ${this.announcer.view()} ${this.reading.view()} ${this.#table()} ${this.dialog.view()}
      </article>
    `;
  }

  #header() {
    const { batch } = this;
    const values = { when: moment(batch.submitted_at, this.timeZone), who: this.nameOf(batch.coordinator_id) };
    const isOthers = batch.coordinator_id !== this.context.me.subject;
    return html`
      <header class="panel" data-status=${batch.status} data-attention=${batch.needs_attention}>
        <h1 class="ds-heading" data-size="lg">${batch.label ?? text("batch.no_label")}</h1>
        <p class="sentence">${batchSentence(batch)}</p>
        ${isSettled(batch) ? nothing : this.#progress()}
        <p class="meta">${isOthers ? text("batch.meta_for", values) : text("batch.meta", values)}</p>
        ${batch.cancelled_at ? html`<p class="meta">${this.#cancelled()}</p>` : nothing}
        ${this.#actions()} ${this.dismissing.view()}
        ${this.#isUnsigned ? html`<p class="meta">${text("receipt.waiting")}</p>` : nothing} ${this.receiving.view()}
      </header>
    `;
  }

  #progress() {
    const { batch } = this;
    return html`
      <progress aria-label=${text("batch.progress")} max=${batch.total_items} .value=${batch.total_items - batch.pending}></progress>
      ${batch.status === "cancelled" ? html`<p class="meta">${counted("batch.unresolved", batch.pending, batch)}</p>` : nothing}
      ${this.following.isLost ? html`<p class="lost">${text("batch.lost")}</p>` : nothing}
    `;
  }

  #cancelled() {
    const { batch } = this;
    const values = { who: this.nameOf(batch.cancelled_by), when: moment(batch.cancelled_at, this.timeZone), reason: batch.cancellation_reason };
    return batch.cancellation_reason ? text("batch.cancelled_because", values) : text("batch.cancelled_by", values);
  }

  #actions() {
    const { batch } = this;
    const isOver = isSettled(batch);
    const mayCancel = this.mayChange && batch.status === "processing";
    const mayCorrect = this.mayChange && isOver && batch.failed > 0 && batch.status !== "cancelled";
    return html`
      <p class="buttons main">
        ${mayCorrect
          ? html`<a class="ds-button" data-color="accent" href="/console/batches/${batch.batch_id}/correct">${text("correct.open", batch)}</a>`
          : nothing}
        ${mayCorrect && batch.needs_attention ? button(text("dismiss.do"), () => this.#dismiss(), this.dismissing.isBusy) : nothing}
        ${mayCancel ? button(text("cancel.open"), () => this.show(new CancelDialog(this))) : nothing}
        ${this.mayUndo && batch.completed > batch.revoked ? button(text("undo.open"), () => this.show(new UndoDialog(this))) : nothing}
        ${this.mayChange && isOver ? link(text("again.open"), `/console/new?again=${batch.batch_id}`) : nothing}
      </p>
      <p class="buttons minor">
        <a class="ds-button" data-variant="tertiary" download href=${api.resultsAddress(batch.batch_id)}>${text("download.open")}</a>
        ${isOver && batch.completed > 0 ? tertiary(text("receipt.download"), () => this.#receipt()) : nothing}
        ${tertiary(text("print.open"), () => window.print())}
        ${this.mayChange ? tertiary(text("rename.open"), () => this.show(new RenameDialog(this))) : nothing}
        ${this.mayChange && isOver ? tertiary(text("delete.open"), () => this.show(new DeleteDialog(this))) : nothing}
      </p>
    `;
  }

  /** Saves the evidence of what was registered. */
  #receipt() {
    const batchId = this.batch.batch_id;
    this.receiving.run(async () => {
      try {
        saveAs(await this.#signedReceipt(batchId), `receipt-${batchId}.json`);
      } finally {
        this.#isUnsigned = false;
      }
    });
  }

  /** The receipt, for which somebody who is very quick waits some seconds. @param {string} batchId */
  async #signedReceipt(batchId) {
    for (let left = RECEIPT_TRIES; ; left -= 1) {
      try {
        return await api.receipt(batchId);
      } catch (error) {
        if (!(error instanceof api.Problem) || error.code !== "receipt_not_ready" || left <= 1) {
          throw error;
        }
        this.#isUnsigned = true;
        this.announcer.say(text("receipt.waiting"));
        this.context.redraw();
        await new Promise((resolve) => setTimeout(resolve, error.retryAfter * 1000));
      }
    }
  }

  #dismiss() {
    const { batch_id: batchId } = this.batch;
    this.dismissing.send(batchId, async (key) => {
      await this.changing(() => api.dismiss(batchId, key));
      this.say([text("dismiss.done")]);
    });
  }

  #table() {
    return html`
      ${this.#hasPages ? html`<p class="meta" id=${ROWS_SHOWN} tabindex="-1">${this.#rowsShown()}</p>` : nothing}
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
        <th scope="row">
          <button
            type="button" class="who-was" id=${`${ROW}${item.position}`} aria-haspopup="dialog"
            @click=${() => this.show(new PersonDialog(this, item))}
          >
            ${this.nameOfItem(item)}
          </button>
        </th>
        <td>${itemResult(item, this.timeZone)}</td>
        <td>${item.activity_type_name ?? item.activity_type}</td>
        <td>${shownDate(item.activity_date)}</td>
        <td>${shownMinutes(item.duration_minutes, text("item.hour"))}</td>
      </tr>
    `;
  }

  get #hasPages() {
    return this.pages.number > 0 || this.pages.hasNext;
  }

  #rowsShown() {
    const { number, items, batch } = this.pages;
    const first = number * ROWS + 1;
    return text("batch.rows", { first, last: first + items.length - 1, total: batch.total_items });
  }

  #turning() {
    const { number, hasNext } = this.pages;
    if (!this.#hasPages) {
      return nothing;
    }
    const turn = (/** @type {number} */ to) => this.reading.runLast(async () => {
      await this.#read(to);
      this.context.redraw();
      focusOn(ROWS_SHOWN);
    });
    return html`
      <nav class="turning" data-repeatable aria-label=${text("batch.items")}>
        ${button(text("batch.previous"), () => turn(number - 1), number === 0)}
        <span>${this.#rowsShown()}</span>
        ${button(text("batch.next"), () => turn(number + 1), !hasNext)}
      </nav>
    `;
  }
}

/** @param {string} label @param {() => void} act @param {boolean} [isDisabled] */
function button(label, act, isDisabled = false) {
  return html`
    <button type="button" class="ds-button" data-variant="secondary" aria-disabled=${isDisabled} @click=${isDisabled ? nothing : act}>${label}</button>
  `;
}

/** @param {string} label @param {() => void} act */
function tertiary(label, act) {
  return html`<button type="button" class="ds-button" data-variant="tertiary" @click=${act}>${label}</button>`;
}

/** @param {string} label @param {string} address */
function link(label, address) {
  return html`<a class="ds-button" data-variant="secondary" href=${address}>${label}</a>`;
}
