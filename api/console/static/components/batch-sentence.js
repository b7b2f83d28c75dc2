// A batch's state in one sentence.

import { text } from "/console/static/messages.js";

/** Never says "completed" if an item failed, and never hides that something was undone. @param {any} batch */
export function batchSentence(batch) {
  const sentence = text(`batch.status.${batch.status}${form(batch)}`, batch);
  return batch.revoked === 0 ? sentence : `${sentence}, ${text("batch.revoked", batch)}`;
}

/** Which sentence: for a single item, and for failed ones whether somebody has to look at them, and at how many. @param {any} batch */
function form(batch) {
  if (batch.status === "completed" && batch.total_items === 1) {
    return ".one";
  }
  if (!["partial", "failed"].includes(batch.status)) {
    return "";
  }
  if (!batch.needs_attention) {
    return ".settled";
  }
  return batch.failed === 1 ? ".one" : ".several";
}
