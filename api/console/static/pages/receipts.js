// Check a receipt: a file is dropped or chosen, and checked in this browser alone. Everybody can use the page, also without a login.

import * as api from "/console/static/api.js";
import { ReceiptView } from "/console/static/components/receipt-view.js";
import { text } from "/console/static/messages.js";
import { check } from "/console/static/receipts/check.js";
import { UnsupportedError } from "/console/static/receipts/checkpoint.js";
import { html, nothing } from "/console/static/vendored.js";

const REDRAW_EVERY_MS = 100;
const LIMITS = ["happened", "valid", "complete", "key"];

/** @param {import("/console/static/app.js").Context} context */
export async function page(context) {
  const receipts = new Receipts(context, await publishedKeys());
  return () => receipts.view();
}

/** The keys that this service publishes, or null if it can't be asked. They are asked for before there is a receipt. */
async function publishedKeys() {
  try {
    return await api.receiptKeys();
  } catch (error) {
    if (error instanceof api.Problem) {
      return null;
    }
    throw error;
  }
}

class Receipts {
  /** @type {{ done: number, of: number } | null} */
  checking = null;
  /** @type {ReceiptView | null} */
  result = null;
  isUnsupported = false;
  #drawnAt = 0;

  /** @param {import("/console/static/app.js").Context} context @param {{ key: string, current: boolean }[] | null} published */
  constructor(context, published) {
    this.context = context;
    this.published = published;
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      this.#take(event.dataTransfer?.files[0]);
    });
  }

  /** @param {File | undefined} file */
  async #take(file) {
    if (file === undefined || this.checking !== null) {
      return;
    }
    this.result = null;
    this.isUnsupported = false;
    this.#progress(0, 0);
    try {
      const checked = await check(await file.arrayBuffer(), (done, of) => this.#progress(done, of));
      this.result = new ReceiptView(this.context, checked, this.published);
    } catch (error) {
      if (!(error instanceof UnsupportedError)) {
        throw error;
      }
      this.isUnsupported = true;
    } finally {
      this.checking = null;
      this.context.redraw();
    }
    document.getElementById("verdict")?.focus();
  }

  /** @param {number} done @param {number} of */
  #progress(done, of) {
    this.checking = { done, of };
    if (Date.now() - this.#drawnAt > REDRAW_EVERY_MS) {
      this.#drawnAt = Date.now();
      this.context.redraw();
    }
  }

  view() {
    return html`
      <h1 class="ds-heading" data-size="lg">${text("receipt.heading")}</h1>
      <p class="ds-paragraph prose lead">${text("receipt.lead")}</p>
      ${this.#choice()}
      ${this.isUnsupported
        ? html`<div class="ds-alert" data-color="warning" id="verdict" tabindex="-1"><p class="ds-paragraph">${text("receipt.unsupported")}</p></div>`
        : nothing}
      ${this.result === null ? nothing : this.result.view()}
      <section class="prose receipt-limits" aria-labelledby="limits">
        <h2 class="ds-heading" data-size="xs" id="limits">${text("receipt.limits")}</h2>
        <ul class="points">${LIMITS.map((name) => html`<li>${text(`receipt.limits.${name}`)}</li>`)}</ul>
      </section>
    `;
  }

  #choice() {
    /** @param {Event} event */
    const choose = (event) => {
      const input = /** @type {HTMLInputElement} */ (event.target);
      const file = input.files?.[0];
      input.value = ""; // the same file can be chosen again
      this.#take(file);
    };
    return html`
      <section class="receipt-drop" aria-labelledby="drop" ?data-has-result=${this.result !== null}>
        <p id="drop">${this.result === null ? text("receipt.drop") : text("receipt.drop_next")}</p>
        <input class="ds-sr-only" type="file" id="receipt-file" accept=".json,application/json" ?disabled=${this.checking !== null} @change=${choose}>
        <label class="ds-button" data-variant=${this.result === null ? "primary" : "secondary"} for="receipt-file">${text("receipt.choose")}</label>
        <p class="hint">${text("receipt.stays_here")}</p>
        ${this.checking === null
          ? nothing
          : html`<progress aria-label=${text("receipt.checking")} max=${this.checking.of || 1} .value=${this.checking.done}></progress>`}
      </section>
    `;
  }
}
