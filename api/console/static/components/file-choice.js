// A list from a spreadsheet: pasted cells, or a file that is dropped or chosen.

import * as api from "/console/static/api.js";
import { mistakeText, text } from "/console/static/messages.js";
import { rowsOf } from "/console/static/registering/rows.js";
import { html, nothing } from "/console/static/vendored.js";

/** @type {Record<string, string>} */
const TYPES = {
  csv: "text/csv", txt: "text/csv", tsv: "text/tab-separated-values", xlsx: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
};

// A list of names alone needs no header: this one is put above it.
const HEADER = "mentor_name\n";

/** The part of a page that takes lists. While it is on the page, cells can be pasted and files can be dropped anywhere on it. */
export class FileChoice {
  /** What is wrong with the list as a whole. @type {string[]} */
  mistakes = [];

  /**
   * @param {object} parts
   * @param {any} parts.me
   * @param {import("/console/static/components/action.js").Action} parts.action
   * @param {() => boolean} parts.isOpen whether lists are taken now
   * @param {(rows: import("/console/static/registering/rows.js").Rows) => void} parts.take
   */
  constructor({ me, action, isOpen, take }) {
    this.me = me;
    this.action = action;
    this.isOpen = isOpen;
    this.take = take;
    document.addEventListener("paste", (event) => this.#paste(event));
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => this.#drop(event));
  }

  /** @param {ClipboardEvent} event */
  #paste(event) {
    const pasted = event.clipboardData?.getData("text/plain") ?? "";
    // A single value goes into the field that has the focus. Several lines are a list, except in a note and in the table of a list.
    const isForField = event.target instanceof Element && event.target.closest("textarea, table") !== null;
    if (!this.isOpen() || !pasted.trim().includes("\n") || isForField) {
      return;
    }
    event.preventDefault();
    this.#pastedCells(pasted);
  }

  /** @param {string} pasted */
  #pastedCells(pasted) {
    const isTable = pasted.includes("\t");
    this.#read(async () => {
      const read = await api.readFile(pasted, isTable ? "text/tab-separated-values" : "text/plain");
      const isNames = read.mistakes.some((/** @type {any} */ mistake) => mistake.code === "missing_column") && !/[\t;]/.test(pasted);
      return isNames ? { read: await api.readFile(HEADER + pasted, "text/plain"), firstRow: 0 } : { read, firstRow: 1 };
    });
  }

  /** @param {DragEvent} event */
  #drop(event) {
    event.preventDefault();
    const file = event.dataTransfer?.files[0];
    if (this.isOpen() && file !== undefined) {
      this.#file(file);
    }
  }

  /** @param {File} file */
  #file(file) {
    const type = TYPES[file.name.split(".").pop()?.toLowerCase() ?? ""];
    const { max_file_bytes } = this.me.limits;
    if (type === undefined || file.size > max_file_bytes) {
      this.mistakes = [type === undefined ? text("file.unknown_kind") : text("file.too_large", { size: megabytes(file.size), limit: megabytes(max_file_bytes) })];
      this.action.context.redraw();
      return;
    }
    this.#read(async () => ({ read: await api.readFile(file, type), firstRow: 1 }));
  }

  /** @param {() => Promise<{ read: any, firstRow: number }>} read */
  #read(read) {
    this.mistakes = [];
    this.action.run(async () => {
      const found = await read();
      const whole = found.read.mistakes.filter((/** @type {any} */ mistake) => mistake.row === null || found.read.items.length === 0);
      this.mistakes = whole.map((/** @type {any} */ mistake) => this.#sentence(mistake));
      if (whole.length === 0) {
        this.take(rowsOf(found.read, found.firstRow));
      }
    });
  }

  /** @param {any} mistake */
  #sentence({ code, value }) {
    return code === "too_many_items" ? text("file.too_many_rows", { rows: Number(value), limit: this.me.limits.max_items }) : mistakeText(code);
  }

  /** Takes the list in the field for lists. A phone has no keys to paste with. */
  #cells() {
    const field = /** @type {HTMLTextAreaElement} */ (document.getElementById("cells"));
    if (field.value.trim() === "") {
      field.focus();
      return;
    }
    this.#pastedCells(field.value);
  }

  view() {
    /** @param {Event} event */
    const choose = (event) => {
      const input = /** @type {HTMLInputElement} */ (event.target);
      const file = input.files?.[0];
      if (file !== undefined) {
        this.#file(file);
      }
      input.value = ""; // the same file can be chosen again, after it was corrected
    };
    return html`
      <div class="file-choice">
        <span>${text("file.how")}</span>
        <input class="ds-sr-only" type="file" id="file" accept=".csv,.tsv,.txt,.xlsx" @change=${choose}>
        <label class="ds-button" data-variant="secondary" data-size="sm" for="file">${text("file.choose")}</label>
        <details class="ds-details">
          <summary>${text("file.field")}</summary>
          <div>
            <div class="ds-field">
              <label class="ds-label" for="cells">${text("file.cells")}</label>
              <textarea class="ds-input" id="cells" rows="4" autocomplete="off" spellcheck="false"></textarea>
            </div>
            <button type="button" class="ds-button" data-variant="secondary" data-size="sm" @click=${() => this.#cells()}>${text("file.use")}</button>
          </div>
        </details>
      </div>
      ${this.mistakes.length === 0 ? nothing : html`
        <div class="ds-alert" data-color="danger" role="alert">
          <h3 class="ds-heading" data-size="2xs">${text("file.refused")}</h3>
          ${this.mistakes.map((mistake) => html`<p class="ds-paragraph">${mistake}</p>`)}
        </div>`}
    `;
  }
}

/** @param {number} bytes */
const megabytes = (bytes) => (bytes / 1024 / 1024).toFixed(1);
