// All mistakes of a form in one place, each with a link to its field.

import { text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

/** @param {{ id: string, sentence: string }[]} mistakes */
export function errorSummary(mistakes) {
  if (mistakes.length === 0) {
    return nothing;
  }
  return html`
    <div class="ds-error-summary" id="error-summary" tabindex="-1" role="group" aria-labelledby="error-summary-heading">
      <h2 class="ds-heading" data-size="xs" id="error-summary-heading">${text("form.correct_first")}</h2>
      <ul class="ds-list">
        ${mistakes.map(({ id, sentence }) => html`<li><a class="ds-link" href="#${id}" @click=${(/** @type {Event} */ event) => go(event, id)}>${sentence}</a></li>`)}
      </ul>
    </div>
  `;
}

/** The address stays as it is, because ids of fields may be ids of people. @param {Event} event @param {string} id */
function go(event, id) {
  event.preventDefault();
  document.getElementById(id)?.focus();
}
