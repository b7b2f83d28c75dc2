// Cancels a batch while it runs. The dialog says what stays registered and what will not be.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { submitOnCtrlEnter } from "/console/static/components/dialog.js";
import { field } from "/console/static/components/field.js";
import { isSettled } from "/console/static/components/following.js";
import { text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

const LONGEST_REASON = 500;

export class CancelDialog {
  #reason = "";

  /** @param {import("/console/static/components/batch-page.js").BatchPage} page */
  constructor(page) {
    this.page = page;
    this.action = new Action(page.context);
  }

  heading() {
    return text("cancel.heading");
  }

  view() {
    const { batch, dialog } = this.page;
    const isOver = isSettled(batch);
    return html`
      <form
        @submit=${(/** @type {Event} */ event) => this.#submit(event)}
        @keydown=${submitOnCtrlEnter}
      >
        <p class="ds-paragraph">${isOver ? text("cancel.over") : text("cancel.touches", batch)}</p>
        ${isOver
          ? nothing
          : field({
              id: "reason", label: text("cancel.reason"), value: this.#reason, longest: LONGEST_REASON,
              change: (value) => { this.#reason = value; },
            })}
        ${this.action.view()}
        <p class="buttons">
          ${isOver
            ? nothing
            : html`<button class="ds-button" data-color="danger" aria-disabled=${this.action.isBusy}>${text("cancel.do")}</button>`}
          <button
            type="button" class="ds-button" data-variant="secondary" ?disabled=${this.action.state === "running"}
            @click=${() => dialog.close()}
          >
            ${isOver ? text("close") : text("cancel.leave")}
          </button>
        </p>
      </form>
    `;
  }

  /** @param {Event} event */
  #submit(event) {
    event.preventDefault();
    const { page } = this;
    const reason = this.#reason.trim();
    this.action.send(reason, async (key) => {
      await page.changing(() => api.cancel(page.batch.batch_id, reason === "" ? null : reason, key));
      page.dialog.close();
      page.say([text("cancel.done", page.batch)]);
    });
  }
}
