// Undoes one activity. The dialog asks why.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { focusOn, submitOnCtrlEnter } from "/console/static/components/dialog.js";
import { UndoReason } from "/console/static/components/undo-reason.js";
import { text } from "/console/static/messages.js";
import { html } from "/console/static/vendored.js";

export class UndoActivityDialog {
  #reason;

  /** @param {import("/console/static/components/one-activity.js").OneActivity} page */
  constructor(page) {
    this.page = page;
    this.action = new Action(page.context);
    this.#reason = new UndoReason(page.context);
  }

  heading() {
    return text("activity.undo.heading");
  }

  view() {
    const { action } = this;
    return html`
      <form novalidate @submit=${(/** @type {Event} */ event) => this.#submit(event)} @keydown=${submitOnCtrlEnter}>
        <p class="ds-paragraph">${text("activity.undo.what")}</p>
        ${this.#reason.view()}
        ${action.view()}
        <p class="buttons">
          <button type="submit" class="ds-button" data-color="danger" aria-disabled=${action.isBusy}>${text("activity.undo")}</button>
          <button
            type="button" class="ds-button" data-variant="secondary" ?disabled=${action.state === "running"}
            @click=${() => this.page.dialog.close()}
          >
            ${text("undo.leave")}
          </button>
        </p>
      </form>
    `;
  }

  /** @param {Event} event */
  #submit(event) {
    event.preventDefault();
    const { page } = this;
    const reason = this.#reason.given();
    if (reason === null) {
      return;
    }
    const { activity_id: activityId } = page.activity;
    this.action.send(reason, async (key) => {
      await api.revokeActivity(activityId, reason, key);
      await page.readAgain();
      page.dialog.close();
      focusOn("undone");
    });
  }
}
