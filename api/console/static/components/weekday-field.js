// On which weekday a group meets.

import { text } from "/console/static/messages.js";
import { html } from "/console/static/vendored.js";

const WEEKDAYS = [1, 2, 3, 4, 5, 6, 7];

/** @param {number | null} weekday 1 is Monday @param {(weekday: number | null) => void} change */
export function weekdayField(weekday, change) {
  /** @param {Event} event */
  const choose = (event) => change(Number(/** @type {HTMLSelectElement} */ (event.target).value) || null);
  return html`
    <div class="ds-field">
      <label class="ds-label" for="weekday">${text("template.weekday")}</label>
      <select class="ds-input" id="weekday" @change=${choose}>
        <option value="" ?selected=${weekday === null}>${text("template.no_weekday")}</option>
        ${WEEKDAYS.map((each) => html`<option value=${each} ?selected=${each === weekday}>${text(`weekday.${each}`)}</option>`)}
      </select>
    </div>
  `;
}
