// Corrects failed items: a form for each person, with the message beside the field that has to change.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { CorrectedRow } from "/console/static/components/corrected-row.js";
import { focusOn, submitOnCtrlEnter } from "/console/static/components/dialog.js";
import { ROWS } from "/console/static/components/item-pages.js";
import { namesOfPeople } from "/console/static/components/people.js";
import { counted, mistakeText, text } from "/console/static/messages.js";
import { byName, Names } from "/console/static/people.js";
import { html, nothing } from "/console/static/vendored.js";

const SOMEBODY_WAS_FASTER = 409;
const MISTAKES = 422;
const NAMED = 5;

/** @param {import("/console/static/app.js").Context} context */
export async function page(context) {
  const correctPage = new CorrectPage(context);
  await correctPage.start();
  return () => correctPage.draw();
}

class CorrectPage {
  /** @type {any} */
  #batch = null;

  /** Every row that was read, with what was typed, by the item's id. @type {Map<string, CorrectedRow>} */
  #rows = new Map();

  /** The rows of each page that was read. @type {CorrectedRow[][]} */
  #pages = [];

  #number = 0;

  /** @type {string | null} */
  #next = null;

  /** What is wrong with the form as a whole. */
  #summary = "";

  /** @param {import("/console/static/app.js").Context} context */
  constructor(context) {
    this.context = context;
    this.retrying = new Action(context);
    this.reading = new Action(context);
  }

  async start() {
    await this.#readPage();
    // A coordinator's own scope needs no id.
    const scope = this.context.me.role === "coordinator" ? {} : { coordinator_id: this.#batch.coordinator_id };
    const [mentors, types, nameOf] = await Promise.all([api.mentors(scope), api.activityTypes(), namesOfPeople(this.context.me)]);
    mentors.sort(byName);
    this.choices = { mentors, names: new Names(mentors), types: types.sort(byName) };
    this.nameOf = nameOf;
  }

  /** Reads the next page of failed items. */
  async #readPage() {
    const query = { names: true, items: "failed", item_limit: ROWS, item_cursor: this.#next };
    const { body } = await api.batch(this.context.values.batch_id, query);
    this.#batch = body;
    this.#next = body.next_item_cursor;
    const rows = body.items.map((/** @type {any} */ item) => new CorrectedRow(item, this.context));
    rows.forEach((/** @type {CorrectedRow} */ row) => this.#rows.set(row.item.item_id, row));
    this.#pages.push(rows);
  }

  get #chosen() {
    return [...this.#rows.values()].filter((row) => row.isIncluded);
  }

  draw() {
    const rows = this.#pages[this.#number];
    const mayCorrect = this.context.me.role !== "auditor";
    return html`
      <form
        class="correct" data-color="neutral" novalidate
        @submit=${(/** @type {Event} */ event) => this.#submit(event)} @keydown=${submitOnCtrlEnter} @input=${() => this.#typed()}
      >
        <header>
          <p><a class="ds-link" href="/console/batches/${this.#batch.batch_id}">${this.#batch.label ?? text("batch.no_label")}</a></p>
          <h1 class="ds-heading" data-size="lg" id="heading" tabindex="-1">${text("correct.heading")}</h1>
          ${rows.length === 0 ? html`<p class="ds-paragraph">${text("correct.empty")}</p>` : nothing}
        </header>
        ${mayCorrect ? rows.map((row) => row.view(/** @type {any} */ (this))) : nothing}
        ${this.#turning()}
        ${mayCorrect && rows.length > 0 ? this.#footer() : nothing}
      </form>
    `;
  }

  #footer() {
    const chosen = this.#chosen;
    const left = [...this.#rows.values()].filter((row) => row.isOpen && !row.isIncluded).length;
    const names = chosen.slice(0, NAMED).map((row) => row.name).join(", ") + (chosen.length > NAMED ? "…" : "");
    return html`
      <footer class="panel">
        <p class="ds-paragraph">${chosen.length === 0 ? text("correct.touches_nobody") : text("correct.touches", { names })}</p>
        ${left === 0 ? nothing : html`<p class="meta">${counted("correct.leaves", left, { left })}</p>`}
        <div id="summary" tabindex="-1">
          ${this.#summary === ""
            ? nothing
            : html`<div class="ds-alert" data-color="danger" role="alert"><p class="ds-paragraph">${this.#summary}</p></div>`}
        </div>
        ${this.retrying.view()}
        <p class="buttons">
          <button class="ds-button" data-color="accent" aria-disabled=${chosen.length === 0 || this.retrying.isBusy}>
            ${chosen.length === 0 ? text("correct.do_none") : counted("correct.do", chosen.length, { count: chosen.length })}
          </button>
          <a class="ds-button" data-variant="secondary" href="/console/batches/${this.#batch.batch_id}">${text("correct.back")}</a>
        </p>
      </footer>
    `;
  }

  #turning() {
    const hasNext = this.#number + 1 < this.#pages.length || this.#next !== null;
    if (this.#number === 0 && !hasNext) {
      return nothing;
    }
    const first = this.#number * ROWS + 1;
    const values = { first, last: first + this.#pages[this.#number].length - 1, total: this.#batch.failed };
    return html`
      ${this.reading.view()}
      <nav class="turning" data-repeatable aria-label=${text("batch.items")}>
        <button type="button" class="ds-button" data-variant="secondary" ?disabled=${this.#number === 0} @click=${() => this.#turn(-1)}>
          ${text("batch.previous")}
        </button>
        <span>${text("batch.rows", values)}</span>
        <button type="button" class="ds-button" data-variant="secondary" ?disabled=${!hasNext} @click=${() => this.#turn(1)}>
          ${text("batch.next")}
        </button>
      </nav>
    `;
  }

  /** @param {1 | -1} by */
  #turn(by) {
    this.reading.run(async () => {
      if (this.#number + by === this.#pages.length) {
        await this.#readPage();
      }
      this.#number += by;
      this.context.redraw();
      window.scrollTo(0, 0);
      focusOn("heading");
    });
  }

  /** What was typed before is not sent later. */
  #typed() {
    this.retrying.clear();
    this.context.redraw();
  }

  /** @param {Event} event */
  #submit(event) {
    event.preventDefault();
    const chosen = this.#chosen;
    if (chosen.length === 0) {
      return;
    }
    this.#rows.forEach((row) => row.forgetMistakes());
    const wrong = chosen.filter((row) => !row.check());
    this.#summary = "";
    if (wrong.length > 0) {
      this.#refuse(wrong);
      return;
    }
    const corrected = chosen.filter((row) => row.isChanged);
    const unchanged = chosen.filter((row) => !row.isChanged);
    const request = {
      ...(corrected.length === 0 ? {} : { corrections: corrected.map((row) => row.correction()) }),
      ...(unchanged.length === 0 ? {} : { item_ids: unchanged.map((row) => row.item.item_id) }),
    };
    this.retrying.send(request, async (key) => {
      try {
        const { retried } = await api.retry(this.#batch.batch_id, request, key);
        location.assign(`/console/batches/${this.#batch.batch_id}?retried=${retried}`);
      } catch (error) {
        if (error instanceof api.Problem && error.status === MISTAKES && this.#place(error.values.errors ?? [], corrected)) {
          return;
        }
        if (error instanceof api.Problem && error.status === SOMEBODY_WAS_FASTER && await this.#lookAgain(chosen)) {
          return;
        }
        throw error;
      }
    });
  }

  /** Shows the first field with a mistake. @param {CorrectedRow[]} wrong */
  #refuse(wrong) {
    this.#summary = text("correct.mistakes", { names: wrong.map((row) => row.name).join(", ") });
    this.#number = this.#pages.findIndex((rows) => rows.includes(wrong[0]));
    this.context.redraw();
    focusOn(wrong[0].firstMistake());
  }

  /** Puts the API's mistakes at their fields. Returns whether each has a field. @param {any[]} errors @param {CorrectedRow[]} corrected */
  #place(errors, corrected) {
    const wrong = new Set();
    let all = true;
    for (const { pointer, code } of errors) {
      const [, , index, field] = pointer.split("/");
      const row = pointer.startsWith("/corrections/") ? corrected[Number(index)] : undefined;
      if (row?.mark(field, mistakeText(code))) {
        wrong.add(row);
      } else {
        all = false;
      }
    }
    if (wrong.size > 0) {
      this.#refuse([...wrong]);
    }
    return all;
  }

  /** Reads the chosen people again. Returns whether somebody else has taken care of one of them. @param {CorrectedRow[]} chosen */
  async #lookAgain(chosen) {
    const now = await Promise.all(chosen.map((row) => api.item(this.#batch.batch_id, row.item.item_id)));
    const others = chosen.filter((row, index) => row.settle(now[index]));
    if (others.length === 0) {
      return false;
    }
    this.#summary = text("correct.faster", { names: others.map((row) => row.name).join(", ") });
    this.context.redraw();
    focusOn("summary");
    return true;
  }
}
