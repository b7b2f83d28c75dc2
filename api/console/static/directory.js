// The names of the directory that the person may read. They are read once for a page, so that no name is ever part of a request.

import * as api from "/console/static/api.js";
import { byName } from "/console/static/people.js";

/**
 * @typedef {object} Directory
 * @property {any[]} mentors by name
 * @property {any[]} types
 * @property {any[]} chapters
 * @property {any[]} coordinators empty for coordinators, who can't list them
 * @property {(id: string) => string} mentorName a name, or the id of somebody whom the directory does not have
 * @property {(id: string) => string} typeName
 * @property {(id: string) => string} chapterName
 * @property {(id: string) => string} coordinatorName
 */

/** @param {any} me @returns {Promise<Directory>} */
export async function readDirectory(me) {
  const [mentors, types, chapters, coordinators] = await Promise.all([
    api.mentors({}), api.activityTypes(), api.chapters(), me.role === "coordinator" ? [] : api.coordinators(),
  ]);
  const own = me.name === null ? [] : [{ coordinator_id: me.subject, name: me.name }];
  return {
    mentors: [...mentors].sort(byName),
    types: [...types].sort(byName),
    chapters: [...chapters].sort(byName),
    coordinators: [...coordinators].sort(byName),
    mentorName: names(mentors, "mentor_id"),
    typeName: names(types, "activity_type"),
    chapterName: names(chapters, "chapter_id"),
    coordinatorName: names([...own, ...coordinators], "coordinator_id"),
  };
}

/** @param {any[]} entries @param {string} key */
function names(entries, key) {
  const known = new Map(entries.map((entry) => [entry[key], entry.name]));
  return (/** @type {string} */ id) => known.get(id) ?? id;
}
