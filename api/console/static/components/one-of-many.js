// Choosing one person by name. A list to choose from is slow with thousands of them: then a field proposes names while somebody types.

import { html, nothing } from "/console/static/vendored.js";

/** More people than these are not offered as a list. */
export const MOST_OPTIONS = 200;

/**
 * A field for a person's name.
 *
 * @param {object} parts
 * @param {string} parts.id
 * @param {string} parts.value
 * @param {string[]} parts.proposed the names that are offered now
 * @param {boolean} [parts.isWrong] whether a sentence with the id `…-mistake` says that nobody has this name
 * @param {(typed: string) => void} parts.type at each letter
 * @param {(typed: string) => void} parts.choose once the name is complete
 */
export function nameField({ id, value, proposed, isWrong = false, type, choose }) {
  return html`
    <input class="ds-input" id=${id} type="text" list="${id}-names" autocomplete="off" .value=${value}
      aria-invalid=${isWrong ? "true" : nothing} aria-describedby=${isWrong ? `${id}-mistake` : nothing}
      @input=${(/** @type {any} */ event) => type(event.target.value)} @change=${(/** @type {any} */ event) => choose(event.target.value)}>
    <datalist id="${id}-names">${proposed.map((label) => html`<option value=${label}></option>`)}</datalist>
  `;
}
