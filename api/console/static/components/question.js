// A question before something that can't be undone, in the place of the button that asks it. What the person has left is not done later.

import { Action } from "/console/static/components/action.js";
import { focusOn } from "/console/static/components/dialog.js";
import { html } from "/console/static/vendored.js";

const QUESTION = "really";

export class Question {
  /** The id of what it is about. Null: nothing is asked. @type {string | null} */
  about = null;

  /** @param {import("/console/static/app.js").Context} context */
  constructor(context) {
    this.context = context;
    this.action = new Action(context);
  }

  /** Whether the person has said yes, and it is under way. The question stays until then, because it says what becomes of it. */
  get isRunning() {
    return this.action.state === "running";
  }

  /** @param {string} about @param {string} [focus] the id of the question's element */
  ask(about, focus = QUESTION) {
    if (this.isRunning) {
      return;
    }
    this.action.clear();
    this.about = about;
    this.#show(focus);
  }

  /** Ends the question: the person does not want it, or it is done. @param {string} focus the id of what gets the focus */
  leave(focus) {
    this.action.clear();
    this.about = null;
    this.#show(focus);
  }

  /** @param {{ sentence: string, yes: string, act: () => void, no: string, opener: string }} words `opener`: the id of the button that asks the question */
  view({ sentence, yes, act, no, opener }) {
    const { action } = this;
    return html`
      <span id=${QUESTION} tabindex="-1">${sentence}</span>
      <button type="button" class="ds-button" data-size="sm" data-color="danger" aria-disabled=${action.isBusy} @click=${act}>${yes}</button>
      <button type="button" class="ds-button" data-size="sm" data-variant="secondary" ?disabled=${this.isRunning}
        @click=${() => this.leave(opener)}>${no}</button>
      ${action.view()}
    `;
  }

  /** @param {string} focus */
  #show(focus) {
    this.context.redraw();
    focusOn(focus);
  }
}
