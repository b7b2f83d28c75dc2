// Renames a batch, and removes a finished one from view.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { field } from "/console/static/components/field.js";
import { counted, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

const LONGEST_LABEL = 200;
const CHANGED = 412;

export class RenameDialog {
  /** The name that somebody else has given it since this page was read. @type {string | null | undefined} */
  #others;

  /** @param {import("/console/static/components/batch-page.js").BatchPage} page */
  constructor(page) {
    this.page = page;
    this.label = page.batch.label ?? "";
    this.action = new Action(page.context);
  }

  heading() {
    return text("rename.heading");
  }

  view() {
    return html`
      <form @submit=${(/** @type {Event} */ event) => this.#submit(event)}>
        ${field({
          id: "label", label: text("rename.label"), hint: text("rename.hint"), value: this.label, longest: LONGEST_LABEL,
          change: (value) => { this.label = value; },
        })}
        ${this.#others === undefined
          ? this.action.view()
          : html`
              <div class="ds-alert" data-color="warning" role="alert">
                <p class="ds-paragraph">${text("rename.others", { label: this.#others ?? text("batch.no_label") })}</p>
              </div>
            `}
        <p class="buttons">
          <button class="ds-button" aria-disabled=${this.action.isBusy}>${text("rename.do")}</button>
          <button
            type="button" class="ds-button" data-variant="secondary" ?disabled=${this.action.state === "running"}
            @click=${() => this.page.dialog.close()}
          >
            ${text("close")}
          </button>
        </p>
      </form>
    `;
  }

  /** @param {Event} event */
  #submit(event) {
    event.preventDefault();
    const { page } = this;
    this.action.run(async () => {
      const label = this.label.trim();
      try {
        await page.changing(() => api.rename(page.batch.batch_id, label === "" ? null : label, page.pages.tag));
      } catch (error) {
        if (error instanceof api.Problem && error.status === CHANGED) {
          this.#others = page.batch.label; // the page has been read again; the next try replaces this name knowingly
          return;
        }
        throw error;
      }
      page.dialog.close();
      page.say([text("rename.done")]);
    });
  }
}

export class DeleteDialog {
  /** @param {import("/console/static/components/batch-page.js").BatchPage} page */
  constructor(page) {
    this.page = page;
    this.action = new Action(page.context);
  }

  heading() {
    return text("delete.heading");
  }

  view() {
    const { batch, dialog } = this.page;
    const live = batch.completed - batch.revoked;
    return html`
      <p class="ds-paragraph">${text("delete.touches")}</p>
      ${live === 0 ? nothing : html`<p class="ds-paragraph">${counted("delete.stays", live, { live })}</p>`}
      ${this.action.view()}
      <p class="buttons">
        <button type="button" class="ds-button" data-color="danger" aria-disabled=${this.action.isBusy} @click=${() => this.#delete()}>
          ${text("delete.do")}
        </button>
        <button
          type="button" class="ds-button" data-variant="secondary" ?disabled=${this.action.state === "running"}
          @click=${() => dialog.close()}
        >${text("delete.leave")}</button>
      </p>
    `;
  }

  #delete() {
    const { page } = this;
    this.action.run(async () => {
      // Without If-Match: a new name changes nothing about the wish to remove it.
      await api.deleteBatch(page.batch.batch_id, null);
      page.dialog.close();
      page.gone();
    });
  }
}
