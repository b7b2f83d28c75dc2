// The page for people who are not logged in.

import { text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

/** @param {string | null} reason the reason to show, if there is one */
export function loggedOut(reason) {
  return html`
    <h1 class="ds-heading" data-size="lg">${text("logged_out.heading")}</h1>
    ${reason === null ? nothing : html`<div class="ds-alert" data-color="warning"><p class="ds-paragraph">${reason}</p></div>`}
    <p class="ds-paragraph">${text("logged_out.how")}</p>
    <p><a class="ds-button" href="/console/login">${text("log_in")}</a></p>
  `;
}
