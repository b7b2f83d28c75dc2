// The rows of a list as a table that can be corrected in place: mistakes first, 100 rows at a time.

import { sentence } from "/console/static/components/field.js";
import { shownDate } from "/console/static/dates.js";
import { counted, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

const PER_PAGE = 100;

/** @type {import("/console/static/registering/rows.js").ColumnName[]} */
const COLUMNS = ["mentor", "type", "date", "minutes", "notes"];

/** The part of a page that shows rows. It keeps which of them are shown. */
export class RowTable {
  #page = 0;

  /** @param {() => void} changed */
  constructor(changed) {
    this.changed = changed;
  }

  /**
   * @param {import("/console/static/registering/draft.js").Draft} draft one with rows
   * @param {import("/console/static/registering/scope.js").Scope} scope
   */
  view(draft, scope) {
    const rows = /** @type {import("/console/static/registering/rows.js").Rows} */ (draft.rows);
    const pages = Math.max(1, Math.ceil(rows.shown.length / PER_PAGE));
    this.#page = Math.min(this.#page, pages - 1);
    const first = this.#page * PER_PAGE;
    const shown = rows.shown.slice(first, first + PER_PAGE);
    const columns = COLUMNS.filter((column) => column === "mentor" || rows.shown.some((row) => row.cells[column] !== "" || row.refused.has(column)));
    const wrong = rows.wrong.length;
    const change = () => {
      rows.check(draft, scope);
      this.changed();
    };
    return html`
      <p class="ds-paragraph" id="rows" tabindex="-1">
        ${sentenceOf(rows.shown.length, wrong)}
        ${rows.ignored.length === 0 ? nothing : text("rows.ignored", { columns: rows.ignored.join(", ") })}
      </p>
      <table class="ds-table rows" data-size="sm">
        <thead>
          <tr>
            <th scope="col">${text("rows.number")}</th>
            ${columns.map((column) => html`<th scope="col">${text(`rows.column.${column}`)}</th>`)}
            <td></td>
          </tr>
        </thead>
        <tbody>
          ${shown.map((row) => html`
            <tr>
              <th scope="row">${row.number}</th>
              ${columns.map((column) => html`<td data-label=${text(`rows.column.${column}`)}>${cell(row, column, { draft, scope, change, changed: this.changed })}</td>`)}
              <td>
                <button type="button" class="ds-button" data-variant="tertiary" data-size="sm" aria-label=${text("rows.remove_row", { row: String(row.number) })}
                  @click=${() => {
                    rows.remove(row, draft, scope);
                    this.changed();
                    document.getElementById("rows")?.focus();
                  }}>${text("rows.remove")}</button>
              </td>
            </tr>
          `)}
        </tbody>
      </table>
      ${pages === 1 ? nothing : this.#pages(pages, first, rows)}
    `;
  }

  /** @param {number} pages @param {number} first @param {import("/console/static/registering/rows.js").Rows} rows */
  #pages(pages, first, rows) {
    /** @param {number} page */
    const go = (page) => {
      this.#page = page;
      rows.mistakesFirst();
      this.changed();
      document.getElementById("rows")?.focus();
    };
    return html`
      <nav class="buttons" data-repeatable aria-label=${text("rows.pages")}>
        <button type="button" class="ds-button" data-variant="secondary" ?disabled=${this.#page === 0} @click=${() => go(this.#page - 1)}>${text("rows.previous")}</button>
        <span>${text("rows.shown", { from: first + 1, to: Math.min(first + PER_PAGE, rows.shown.length), count: rows.shown.length })}</span>
        <button type="button" class="ds-button" data-variant="secondary" ?disabled=${this.#page === pages - 1} @click=${() => go(this.#page + 1)}>${text("rows.next")}</button>
      </nav>
    `;
  }
}

/** How many rows there are, and how many of them must be corrected. @param {number} count @param {number} wrong */
function sentenceOf(count, wrong) {
  if (wrong === 0) {
    return counted("rows.fine", count, { count });
  }
  return count === 1 ? text("rows.single_wrong") : counted("rows.wrong", wrong, { count, wrong });
}

/** @param {any} row @param {any} column @param {{ draft: any, scope: any, change: () => void, changed: () => void }} parts */
function cell(row, column, { draft, scope, change, changed }) {
  const id = `row-${row.number}-${column}`;
  const { max_duration_minutes, earliest_date } = draft.rules;
  const mistake = sentence(row.mistakes, column, { most: max_duration_minutes, earliest: earliest_date === null ? "" : shownDate(earliest_date) });
  const label = text("rows.cell", { column: text(`rows.column.${column}`), row: String(row.number) });
  /** @param {Event} event */
  const type = (event) => {
    // At each letter, so that a sentence that goes away when the field is left moves nothing below the pointer.
    row.type(column, /** @type {HTMLInputElement} */ (event.target).value);
    row.check(draft, scope);
    changed();
  };
  /** @param {Event} event */
  const choose = (event) => {
    row.mentorId = /** @type {HTMLSelectElement} */ (event.target).value || null;
    change();
  };
  const asks = column === "mentor" && row.candidates.length > 1;
  return html`
    <input class="ds-input" id=${id} aria-label=${label} .value=${shown(row, column, scope)} aria-invalid=${mistake === undefined ? nothing : "true"}
      aria-describedby=${mistake === undefined ? nothing : `${id}-mistake`} @input=${type}>
    ${asks ? html`
      <select class="ds-input" aria-label=${text("rows.which", { name: row.cells.mentor, row: String(row.number) })} @change=${choose}>
        <option value="" ?selected=${row.mentorId === null}>${text("rows.choose")}</option>
        ${row.candidates.map((/** @type {any} */ mentor) => html`
          <option value=${mentor.mentor_id} ?selected=${mentor.mentor_id === row.mentorId}>${mentor.name}, ${scope.chapterName(mentor.chapter_id)} (${mentor.mentor_id})</option>`)}
      </select>` : nothing}
    ${mistake === undefined ? nothing : html`<p class="ds-validation-message" id="${id}-mistake">${mistake}</p>`}
  `;
}

/** What is in a cell: a name instead of an id, if the id is known. @param {any} row @param {string} column @param {any} scope */
function shown(row, column, scope) {
  const typed = row.cells[column];
  if (column === "mentor") {
    return scope.byId.get(typed)?.name ?? typed;
  }
  return column === "type" ? scope.typeNamed(typed)?.name ?? typed : typed;
}
