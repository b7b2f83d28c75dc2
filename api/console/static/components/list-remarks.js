// What was not read in a list, or was read with a doubt.

import { remarkText, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

/** @param {import("/console/static/registering/rows.js").Remark[]} remarks */
export const listRemarks = (remarks) => (remarks.length === 0 ? nothing : html`
  <div class="ds-alert" data-color="warning" role="alert">
    <h2 class="ds-heading" data-size="2xs">${text("rows.remarks")}</h2>
    ${remarks.map((remark) => html`<p class="ds-paragraph">${remarkText(remark)}</p>`)}
  </div>
`);
