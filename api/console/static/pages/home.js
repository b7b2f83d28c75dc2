// The first page: the ten latest batches.

import * as api from "/console/static/api.js";
import { batchSentence } from "/console/static/components/batch-sentence.js";
import { moment, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

const SHOWN = 10;

/** @param {import("/console/static/app.js").Context} context */
export async function page({ me }) {
  const batches = (await api.batches({ limit: SHOWN })).data;
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
              <td>${batchSentence(batch)}</td>
              <td>${moment(batch.submitted_at, me.organization.time_zone)}</td>
              ${namesCoordinators ? html`<td>${batch.coordinator_id}</td>` : nothing}
            </tr>
          `,
        )}
      </tbody>
    </table>
  `;
}
