// A problem in words, with a way out.

import { problemText, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

/**
 * An alert with the problem's sentence and, if there is one, the button of the way out.
 *
 * @param {import("/console/static/api.js").Problem} problem
 * @param {{ label: string, act: () => void } | null} wayOut
 * @param {1 | 2} level the level of the heading: 1 if the alert stands in place of the page
 */
export function problemAlert(problem, wayOut, level = 2) {
  const heading = level === 1
    ? html`<h1 class="ds-heading" data-size="sm">${text("problem")}</h1>`
    : html`<h2 class="ds-heading" data-size="xs">${text("problem")}</h2>`;
  return html`
    <div class="ds-alert" data-color="danger" role="alert">
      ${heading}
      <p class="ds-paragraph">${problemText(problem.code, problem.values)}</p>
      ${wayOut === null ? nothing : html`<button type="button" class="ds-button" @click=${wayOut.act}>${wayOut.label}</button>`}
    </div>
  `;
}
