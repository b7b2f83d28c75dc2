// What happened to one person of a batch, attempt by attempt.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { EraseNotesDialog } from "/console/static/components/batch-notes.js";
import { UndoDialog } from "/console/static/components/batch-undo.js";
import { errorSentence, itemResult } from "/console/static/components/item-result.js";
import { shownDate, shownMinutes } from "/console/static/dates.js";
import { moment, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

export class PersonDialog {
  /** The item with its attempts. @type {any} */
  #whole = null;

  /** @param {import("/console/static/components/batch-page.js").BatchPage} page @param {any} item as the table has it */
  constructor(page, item) {
    this.page = page;
    this.item = item;
    this.reading = new Action(page.context);
    this.reading.run(async () => {
      this.#whole = await api.item(page.batch.batch_id, item.item_id);
    });
  }

  heading() {
    return this.page.nameOfItem(this.item);
  }

  view() {
    const item = this.#whole ?? this.item;
    const { page } = this;
    return html`
      ${itemResult(item, page.timeZone)}
      <dl class="facts">
        <dt>${text("item.type")}</dt><dd>${item.activity_type_name ?? item.activity_type}</dd>
        <dt>${text("item.date")}</dt><dd>${shownDate(item.activity_date)}</dd>
        <dt>${text("item.minutes")}</dt><dd>${shownMinutes(item.duration_minutes, text("item.hour"))}</dd>
        ${item.client_reference ? html`<dt>${text("item.reference")}</dt><dd>${item.client_reference}</dd>` : nothing}
        ${item.revoked_by ? html`<dt>${text("person.undone_by")}</dt><dd>${page.nameOf(item.revoked_by)}</dd>` : nothing}
      </dl>
      ${item.notes
        ? html`
            <details class="ds-details">
              <summary>${text("item.notes")}</summary>
              <div>
                <p class="ds-paragraph">${item.notes}</p>
                ${page.mayChange
                  ? html`
                      <button
                        type="button" class="ds-button" data-color="danger" data-variant="secondary"
                        @click=${() => page.show(new EraseNotesDialog(page, item))}
                      >
                        ${text("notes.erase")}
                      </button>
                    `
                  : nothing}
              </div>
            </details>
          `
        : nothing}
      ${this.#history(item.history ?? [])}
      ${this.reading.view()}
      <p class="buttons">
        ${this.#mayUndo(item)
          ? html`
              <button
                type="button" class="ds-button" data-color="danger" data-variant="secondary"
                @click=${() => page.show(new UndoDialog(page, item))}
              >
                ${text("undo.this")}
              </button>
            `
          : nothing}
        <button type="button" class="ds-button" data-variant="secondary" @click=${() => page.dialog.close()}>${text("close")}</button>
      </p>
    `;
  }

  /** @param {any} item */
  #mayUndo(item) {
    return this.page.mayUndo && item.status === "success" && !item.revoked_at;
  }

  /** @param {any[]} attempts */
  #history(attempts) {
    if (attempts.length === 0) {
      return nothing;
    }
    return html`
      <h3 class="ds-heading" data-size="2xs">${text("person.history")}</h3>
      <ol class="attempts">
        ${attempts.map((attempt) => this.#attempt(attempt))}
      </ol>
    `;
  }

  /** @param {any} attempt */
  #attempt(attempt) {
    const { page } = this;
    const when = moment(attempt.attempted_at, page.timeZone);
    const retried = { who: page.nameOf(attempt.retried_by), when: moment(attempt.retried_at, page.timeZone) };
    const corrections = Object.entries(attempt.correction ?? {});
    return html`
      <li>
        <p class="ds-paragraph">${text("person.failed", { when })}: ${errorSentence(attempt.error, page.timeZone)}</p>
        <p class="ds-paragraph">${corrections.length === 0 ? text("person.retried", retried) : text("person.corrected", retried)}</p>
        ${corrections.length === 0
          ? nothing
          : html`<ul>${corrections.map(([name, value]) => html`<li>${correction(name, attempt.submitted[name], value)}</li>`)}</ul>`}
      </li>
    `;
  }
}

/** @param {string} name @param {unknown} before @param {unknown} after */
function correction(name, before, after) {
  if (name === "override_duplicates") {
    return text("correction.override_duplicates");
  }
  if (name === "notes") {
    return text("correction.notes");
  }
  return text("correction.value", { field: text(`field.${name}`), before: shownValue(name, before), after: shownValue(name, after) });
}

/** @param {string} name @param {any} value */
function shownValue(name, value) {
  if (name === "activity_date") {
    return shownDate(value);
  }
  return name === "duration_minutes" ? shownMinutes(value, text("item.hour")) : String(value);
}
