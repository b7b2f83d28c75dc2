// Which fields of the form a refusal of the server is about.

/** @type {Record<string, string>} */
const FIELD_OF = { activity_type: "type", activity_date: "date", duration_minutes: "minutes", notes: "notes", mentor_id: "who" };

/**
 * The form's fields of the values that the server has refused: the code of each, by the field's id.
 *
 * @param {any[]} errors
 * @param {import("/console/static/registering/draft.js").Draft} draft
 * @param {import("/console/static/registering/draft.js").Item[]} items those that were sent
 * @returns {Map<string, string>}
 */
export function refusedFields(errors, draft, items) {
  const found = new Map();
  for (const { pointer, code } of errors) {
    const [, list, position, name] = pointer.split("/");
    const item = list === "items" ? items[Number(position)] : undefined;
    const field = item === undefined ? list : FIELD_OF[name] ?? "who";
    const row = draft.rows?.shown.find((each) => each.item === item);
    if (row !== undefined) {
      row.refused.set(field === "who" ? "mentor" : /** @type {any} */ (field), code);
      found.set("rows", "wrong_rows");
    } else if (item !== undefined && field === "minutes" && draft.exceptions.has(item.mentor_id)) {
      found.set(`minutes-${item.mentor_id}`, code);
    } else if (["label", "notes", ...Object.values(FIELD_OF)].includes(field)) {
      found.set(field, code);
    }
  }
  return found;
}
