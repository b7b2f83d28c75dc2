// The first page: the ten latest batches.

import { newestBatches } from "/console/static/api.js";
import { moment, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

const SHOWN = 10;

/** Loads the page. Returns the function that draws it. @param {any} me */
export async function home(me) {
  const batches = (await newestBatches(SHOWN)).data;
  return () => html`
    <h1 class="ds-heading" data-size="lg">${text("home.heading")}</h1>
    ${batches.length === 0 ? html`<p class="ds-paragraph">${text("home.empty")}</p>` : table(batches, me)}
  `;
}

/** @param {any[]} batches @param {any} me */
function table(batches, me) {
  // A coordinator sees only their own.
  const namesCoordinators = me.role !== "coordinator";
  return html`
    <table class="ds-table batches">
      <thead>
        <tr>
          <th scope="col">${text("batch.label")}</th>
          <th scope="col">${text("batch.result")}</th>
          <th scope="col">${text("batch.submitted_at")}</th>
          ${namesCoordinators ? html`<th scope="col">${text("batch.coordinator")}</th>` : nothing}
        </tr>
      </thead>
      <tbody>
        ${batches.map(
          (batch) => html`
            <tr>
              <td>${batch.label ?? text("batch.no_label")}</td>
              <td>${result(batch)}</td>
              <td>${moment(batch.submitted_at, me.organization.time_zone)}</td>
              ${namesCoordinators ? html`<td>${batch.coordinator_id}</td>` : nothing}
            </tr>
          `,
        )}
      </tbody>
    </table>
  `;
}

/** The batch's state in words. Never says "completed" if an item failed, and never hides that something was undone. @param {any} batch */
function result(batch) {
  const sentence = text(`batch.status.${batch.status}${form(batch)}`, batch);
  return batch.revoked === 0 ? sentence : `${sentence}, ${text("batch.revoked", batch)}`;
}

/** Which sentence for failed items: whether somebody has to look at them, and at how many. @param {any} batch */
function form(batch) {
  if (!["partial", "failed"].includes(batch.status)) {
    return "";
  }
  if (!batch.needs_attention) {
    return ".settled";
  }
  return batch.failed === 1 ? ".one" : ".several";
}
