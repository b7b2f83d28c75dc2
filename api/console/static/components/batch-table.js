// The table of batches, on the first page and in the history.

import { batchSentence } from "/console/static/components/batch-sentence.js";
import { moment, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

/**
 * Who submitted a batch is shown to those who see other people's batches: a coordinator sees only their own.
 *
 * @param {any[]} batches
 * @param {object} shown
 * @param {any} shown.me
 * @param {import("/console/static/components/people.js").NameOf} shown.nameOf
 * @param {string} [shown.caption] for people who can't see the page, if no heading says what the table is
 */
export function batchTable(batches, { me, nameOf, caption }) {
  const namesCoordinators = me.role !== "coordinator";
  return html`
    <table class="ds-table batches">
      ${caption === undefined ? nothing : html`<caption class="ds-sr-only">${caption}</caption>`}
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
              <td><a class="ds-link" href="/console/batches/${batch.batch_id}">${batch.label ?? text("batch.no_label")}</a></td>
              <td>${batchSentence(batch)}</td>
              <td>${moment(batch.submitted_at, me.organization.time_zone)}</td>
              ${namesCoordinators ? html`<td>${nameOf(batch.coordinator_id)}</td>` : nothing}
            </tr>
          `,
        )}
      </tbody>
    </table>
  `;
}
