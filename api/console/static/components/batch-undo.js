// Undoes what a batch has registered, for everybody or for one person. The dialog first says what will happen.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { submitOnCtrlEnter } from "/console/static/components/dialog.js";
import { UndoReason } from "/console/static/components/undo-reason.js";
import { counted, keptText, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

const NAMED = 10;

// A dry run stores nothing, but the API wants a reason there, too.
const REASON_OF_DRY_RUN = "-";

export class UndoDialog {
  #reason;

  /** What the dry run returned. @type {any} */
  #foreseen = null;

  /**
   * @param {import("/console/static/components/batch-page.js").BatchPage} page
   * @param {any} [item] only this person's
   */
  constructor(page, item) {
    this.page = page;
    this.item = item;
    this.selection = item === undefined ? {} : { item_ids: [item.item_id] };
    this.action = new Action(page.context);
    this.#reason = new UndoReason(page.context);
    this.foreseeing = new Action(page.context);
    this.foreseeing.run(() => this.#foresee());
  }

  async #foresee() {
    const request = { ...this.selection, reason: REASON_OF_DRY_RUN, dry_run: true };
    this.#foreseen = await api.revoke(this.page.batch.batch_id, request, api.newKey());
  }

  heading() {
    return this.item === undefined ? text("undo.heading") : text("undo.heading_one", { who: this.page.nameOfItem(this.item) });
  }

  view() {
    const foreseen = this.#foreseen;
    const { dialog } = this.page;
    const count = foreseen === null ? 0 : foreseen.revoked + foreseen.unresolved;
    const mayUndo = count > 0;
    return html`
      <form
        novalidate
        @submit=${(/** @type {Event} */ event) => this.#submit(event)}
        @keydown=${submitOnCtrlEnter}
      >
        ${foreseen === null ? this.#looking() : undoneSentences(foreseen, this.page, "foreseen").map(paragraph)}
        ${mayUndo ? this.#reason.view() : nothing}
        ${this.action.view()}
        <p class="buttons">
          ${mayUndo
            ? html`<button class="ds-button" data-color="danger" aria-disabled=${this.action.isBusy}>${text("undo.do", { count })}</button>`
            : nothing}
          <button
            type="button" class="ds-button" data-variant="secondary" ?disabled=${this.action.state === "running"}
            @click=${() => dialog.close()}
          >
            ${mayUndo ? text("undo.leave") : text("close")}
          </button>
        </p>
      </form>
    `;
  }

  #looking() {
    return this.foreseeing.problem === null ? paragraph(text("undo.looking")) : this.foreseeing.view();
  }

  /** @param {Event} event */
  #submit(event) {
    event.preventDefault();
    const { page } = this;
    const reason = this.#reason.given();
    if (reason === null) {
      return;
    }
    this.action.send(reason, async (key) => {
      const undone = await page.changing(() => api.revoke(page.batch.batch_id, { ...this.selection, reason }, key));
      page.dialog.close();
      page.say(undoneSentences(undone, page, "done"));
    });
  }
}

/** @param {string} sentence */
const paragraph = (sentence) => html`<p class="ds-paragraph">${sentence}</p>`;

/**
 * How many were undone, and which are kept and why.
 *
 * @param {any} revoked @param {import("/console/static/components/batch-page.js").BatchPage} page @param {"foreseen" | "done"} key
 * @returns {string[]}
 */
function undoneSentences(revoked, page, key) {
  const sentences = [];
  if (revoked.revoked > 0 || revoked.unresolved === 0) {
    sentences.push(text(`undo.${key}.${revoked.revoked === 0 ? "none" : revoked.revoked === 1 ? "one" : "several"}`, revoked));
  }
  if (revoked.unresolved > 0) {
    sentences.push(counted(`undo.${key}.elsewhere`, revoked.unresolved, revoked));
  }
  if (revoked.already_revoked > 0) {
    sentences.push(text("undo.already", revoked));
  }
  /** @type {Map<string, any[]>} */
  const kept = new Map();
  for (const { code, item_id } of revoked.kept) {
    kept.set(code, [...(kept.get(code) ?? []), item_id]);
  }
  for (const [code, ids] of kept) {
    const known = page.pages.items.filter((item) => ids.includes(item.item_id)).slice(0, NAMED);
    const who = known.map((item) => page.nameOfItem(item)).join(", ");
    const more = known.length < ids.length ? "…" : "";
    sentences.push(counted("undo.kept", ids.length, { count: ids.length, who: who + more, why: keptText(code) }));
  }
  return sentences;
}
