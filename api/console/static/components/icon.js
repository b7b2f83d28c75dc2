// Small pictures beside words. They repeat what the words say, so screen readers skip them.

import { html } from "/console/static/vendored.js";

// Each is drawn with lines in a square of 16.
const PATHS = {
  success: "M3 8.5l3.2 3.2L13 5",
  failed: "M8 3.5v5.5M8 12v.5",
  pending: "M8 4v4l2.5 2",
  cancelled: "M4 8h8",
  revoked: "M5.5 3L3 5.5 5.5 8M3 5.5h6a3.5 3.5 0 010 7H6",
};

/** @param {keyof typeof PATHS} name */
export function icon(name) {
  return html`
    <svg class="icon" data-icon=${name} viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">
      <path d=${PATHS[name]} fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"></path>
    </svg>
  `;
}
