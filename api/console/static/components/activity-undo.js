// Undoes one activity. The dialog asks why.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { focusOn, submitOnCtrlEnter } from "/console/static/components/dialog.js";
import { text } from "/console/static/messages.js";
import { html } from "/console/static/vendored.js";

const LONGEST_REASON = 500;

export class UndoActivityDialog {
  #isReasonMissing = false;

  /** @param {import("/console/static/components/one-activity.js").OneActivity} page */
  constructor(page) {
    this.page = page;
    this.action = new Action(page.context);
  }

  heading() {
    return text("activity.undo.heading");
  }

  view() {
    const { action } = this;
    return html`
      <form @submit=${(/** @type {Event} */ event) => this.#submit(event)} @keydown=${submitOnCtrlEnter}>
        <p class="ds-paragraph">${text("activity.undo.what")}</p>
        <div class="ds-field">
          <label class="ds-label" for="reason">${text("activity.undo.reason")}</label>
          <p class="ds-paragraph" data-field="description" id="reason-hint">${text("activity.undo.hint")}</p>
          <textarea
            class="ds-input" id="reason" rows="3" maxlength=${LONGEST_REASON} aria-invalid=${this.#isReasonMissing}
            aria-describedby="reason-hint reason-mistake"></textarea>
          <p class="ds-validation-message" id="reason-mistake" ?hidden=${!this.#isReasonMissing}>${text("activity.undo.reason_missing")}</p>
        </div>
        ${action.view()}
        <p class="buttons">
          <button type="submit" class="ds-button" data-color="danger" aria-disabled=${action.isBusy}>${text("activity.undo")}</button>
          <button
            type="button" class="ds-button" data-variant="tertiary" ?disabled=${action.state === "running"}
            @click=${() => this.page.dialog.close()}
          >
            ${text("activity.undo.keep")}
          </button>
        </p>
      </form>
    `;
  }

  /** @param {Event} event */
  #submit(event) {
    event.preventDefault();
    const { page } = this;
    const field = /** @type {HTMLTextAreaElement} */ (document.getElementById("reason"));
    const reason = field.value.trim();
    this.#isReasonMissing = reason === "";
    page.context.redraw();
    if (this.#isReasonMissing) {
      field.focus();
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
