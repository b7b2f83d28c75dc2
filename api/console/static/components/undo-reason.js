// Why something is undone. Auditors read it.

import { focusOn } from "/console/static/components/dialog.js";
import { field } from "/console/static/components/field.js";
import { text } from "/console/static/messages.js";

const LONGEST_REASON = 500;

export class UndoReason {
  #typed = "";
  #isMissing = false;

  /** @param {{ redraw(): void }} context */
  constructor(context) {
    this.context = context;
  }

  view() {
    return field({
      id: "reason", label: text("undo.reason"), hint: text("undo.reason_hint"), value: this.#typed, longest: LONGEST_REASON,
      mistake: this.#isMissing ? text("undo.reason_missing") : undefined,
      change: (value) => { this.#typed = value; },
    });
  }

  /** Returns what was typed, or null after having asked for it. */
  given() {
    const reason = this.#typed.trim();
    this.#isMissing = reason === "";
    this.context.redraw();
    if (this.#isMissing) {
      focusOn("reason");
      return null;
    }
    return reason;
  }
}
