// The names of the people who submit, correct and undo.

import * as api from "/console/static/api.js";

/** @typedef {(subject: string) => string} NameOf */

/** A function that returns somebody's name, or their id if no name is known here. @param {any} me @returns {Promise<NameOf>} */
export async function namesOfPeople(me) {
  // A coordinator may not read who else there is.
  const people = me.role === "coordinator" ? [] : await api.coordinators();
  const names = new Map(people.map((each) => [each.coordinator_id, each.name]));
  if (me.name !== null) {
    names.set(me.subject, me.name);
  }
  return (subject) => names.get(subject) ?? subject;
}
