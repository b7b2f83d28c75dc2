// Erases the note about one person of a batch, for good.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { text } from "/console/static/messages.js";
import { html } from "/console/static/vendored.js";

export class EraseNotesDialog {
  /** @param {import("/console/static/components/batch-page.js").BatchPage} page @param {any} item */
  constructor(page, item) {
    this.page = page;
    this.item = item;
    this.action = new Action(page.context);
  }

  heading() {
    return text("notes.heading", { who: this.page.nameOfItem(this.item) });
  }

  view() {
    return html`
      <p class="ds-paragraph">${text("notes.what")}</p>
      ${this.action.view()}
      <p class="buttons">
        <button type="button" class="ds-button" data-color="danger" aria-disabled=${this.action.isBusy} @click=${() => this.#erase()}>
          ${text("notes.erase")}
        </button>
        <button
          type="button" class="ds-button" data-variant="secondary" ?disabled=${this.action.state === "running"}
          @click=${() => this.page.dialog.close()}
        >
          ${text("notes.leave")}
        </button>
      </p>
    `;
  }

  #erase() {
    const { page } = this;
    this.action.run(async () => {
      await page.changing(() => api.eraseNotes(page.batch.batch_id, this.item.item_id));
      page.dialog.close();
      page.say([text("notes.erased")]);
    });
  }
}
