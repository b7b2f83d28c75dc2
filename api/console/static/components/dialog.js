// A native dialog. A page has one, and shows different contents in it.

import { focusOnHeading } from "/console/static/focus.js";
import { html, nothing } from "/console/static/vendored.js";

const ID = "dialog";
const HEADING = "dialog-heading";

/** Whether the open dialog is put away with its page. */
let isAway = false;

/**
 * @typedef {object} Content
 * @property {() => string} heading
 * @property {() => unknown} view
 * @property {import("/console/static/components/action.js").Action} [action] while it runs, Escape does not close the dialog
 */

export class Dialog {
  /** @type {Content | null} */
  #content = null;

  /** What had the focus before the dialog was opened, and its id then. @type {{ element: Element | null, id: string }} */
  #opener = { element: null, id: "" };

  /** Whether the page closes it, and not the browser. */
  #isClosing = false;

  /** What had the focus when the browser was asked to close it. @type {Element | null} */
  #focused = null;

  /** @param {import("/console/static/app.js").Context} context */
  constructor(context) {
    this.context = context;
  }

  /** @param {Content} content */
  open(content) {
    this.#content = content;
    this.context.redraw();
    if (element().open) {
      focusOn(HEADING); // what had the focus is gone
    } else {
      const { activeElement } = document;
      this.#opener = { element: activeElement, id: activeElement?.id ?? "" };
      element().showModal();
    }
  }

  /** Closes it. The browser returns the focus to where it was before. */
  close() {
    this.#isClosing = element().open; // a closed one says nothing more
    element().close();
  }

  /** What the person had typed before is not sent later. */
  #typed() {
    this.#content?.action?.clear();
    this.context.redraw();
  }

  /** What had the focus before may stand for somebody else now, in a table that was read again, or be gone. */
  #closed() {
    if (isAway) {
      return;
    }
    if (this.#content?.action?.state === "running" && !this.#isClosing) {
      this.#reopen();
      return;
    }
    this.#isClosing = false;
    const { activeElement } = document;
    if (activeElement === this.#opener.element && activeElement?.id !== this.#opener.id) {
      focusOn(this.#opener.id);
    } else if (activeElement === document.body) {
      focusOnHeading();
    }
    // What was not done before it was closed is not done later, when the network is back.
    this.#content?.action?.clear();
    this.#content = null;
    this.context.redraw();
  }

  /** Shows it again: it says what becomes of the request. Browsers close a dialog at the second Escape, whatever the page says. */
  #reopen() {
    element().showModal();
    if (this.#focused instanceof HTMLElement) {
      this.#focused.focus();
    }
  }

  /** @param {Event} event */
  #cancelled(event) {
    this.#focused = document.activeElement;
    if (this.#content?.action?.state === "running") {
      event.preventDefault();
    }
  }

  /** Part of the page, also while the dialog is closed. */
  view() {
    const content = this.#content;
    return html`
      <dialog
        class="ds-dialog" id=${ID} aria-labelledby=${HEADING}
        @close=${() => this.#closed()} @cancel=${(/** @type {Event} */ event) => this.#cancelled(event)}
      >
        ${content === null
          ? nothing
          : html`
              <div class="dialog" @input=${() => this.#typed()}>
                <h2 class="ds-heading" data-size="sm" id=${HEADING} tabindex="-1">${content.heading()}</h2>
                ${content.view()}
              </div>
            `}
      </dialog>
    `;
  }
}

function element() {
  return /** @type {HTMLDialogElement} */ (document.getElementById(ID));
}

/** Puts an open dialog away while its page is hidden: nothing beside it could be clicked. */
export function putAway() {
  if (document.getElementById(ID) !== null && element().open) {
    isAway = true;
    element().close();
  }
}

/** Shows it again, with its page. */
export function takeOut() {
  if (isAway) {
    isAway = false;
    element().showModal();
  }
}

/** Moves the focus to an element of the page, for example to the result of an action. @param {string} id */
export function focusOn(id) {
  document.getElementById(id)?.focus();
}

/** Ctrl+Enter submits a form from each of its fields. @param {KeyboardEvent} event */
export function submitOnCtrlEnter(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    /** @type {HTMLFormElement} */ (event.currentTarget).requestSubmit();
  }
}
