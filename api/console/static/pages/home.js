// The first page: the ten latest batches.

import { newestBatches } from "/console/static/api.js";
import { moment, text } from "/console/static/messages.js";
import { html } from "/console/static/vendored.js";

const SHOWN = 10;

/** Loads the page. Returns the function that draws it. @param {any} me */
export async function home(me) {
  const batches = (await newestBatches(SHOWN)).data;
  return () => html`
    <h1 class="ds-heading" data-size="lg">${text("home.heading")}</h1>
    ${batches.length === 0 ? html`<p class="ds-paragraph">${text("home.empty")}</p>` : table(batches, me.organization.time_zone)}
  `;
}

/** @param {any[]} batches @param {string} timeZone */
function table(batches, timeZone) {
  return html`
    <table class="ds-table batches">
      <thead>
        <tr>
          <th scope="col">${text("batch.label")}</th>
          <th scope="col">${text("batch.result")}</th>
          <th scope="col">${text("batch.submitted_at")}</th>
          <th scope="col">${text("batch.coordinator")}</th>
        </tr>
      </thead>
      <tbody>
        ${batches.map(
          (batch) => html`
            <tr>
              <td>${batch.label ?? text("batch.no_label")}</td>
              <td>${result(batch)}</td>
              <td>${moment(batch.submitted_at, timeZone)}</td>
              <td>${batch.coordinator_id}</td>
            </tr>
          `,
        )}
      </tbody>
    </table>
  `;
}

/** The batch's state in words. Never says "completed" if an item failed. @param {any} batch */
function result(batch) {
  return text(`batch.status.${batch.status}`, batch);
}
