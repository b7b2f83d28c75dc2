// What happened to one person, in words.

import { icon } from "/console/static/components/icon.js";
import { errorText, keptText, moment, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

/** @typedef {"pending" | "success" | "failed" | "cancelled" | "revoked"} Shown */

/** An item's state as people see it: an activity that was undone is not registered any more. @param {any} item @returns {Shown} */
export function shownState(item) {
  return item.revoked_at ? "revoked" : item.status;
}

/** @param {any} item @param {string} timeZone */
export function itemResult(item, timeZone) {
  const state = shownState(item);
  const when = item.revoked_at ? moment(item.revoked_at, timeZone) : "";
  return html`
    <div class="result" data-state=${state}>
      ${icon(state)}
      <div>
        <span class="word">${text(`result.${state}`, { when })}</span>
        ${item.error ? html`<span class="why">${errorSentence(item.error, timeZone)}</span>` : nothing}
        ${item.plan_changed ? html`<span class="why">${text("result.plan_changed")}</span>` : nothing}
        ${item.revocation_request ? html`<span class="why">${requestSentence(item.revocation_request)}</span>` : nothing}
        ${item.revocation_reason ? html`<span class="why">${item.revocation_reason}</span>` : nothing}
      </div>
    </div>
  `;
}

/** What became of the request to undo it at an external registration service: its code, or that there is no response yet. @param {string} request */
function requestSentence(request) {
  return request === "unresolved" ? text("result.undo_requested") : keptText(request);
}

/** Why an item failed and what to do about it; a duplicate says who registered the other one and when. @param {any} error @param {string} timeZone */
export function errorSentence(error, timeZone) {
  if (error.registered_by_name && error.registered_at) {
    return text("error.duplicate_activity.by", { who: error.registered_by_name, when: moment(error.registered_at, timeZone) });
  }
  return errorText(error);
}
