// The people that a coordinator may register for, and the types of activities. A page loads them once and searches in what it has.

import * as api from "/console/static/api.js";
import { byName, fold, Names } from "/console/static/people.js";

/**
 * @typedef {object} Mentor
 * @property {string} mentor_id
 * @property {string} name
 * @property {string} chapter_id
 * @property {string | null} active_from
 * @property {string | null} active_until
 *
 * @typedef {{ activity_type: string, name: string, default_minutes: number | null, minimum_minutes: number | null }} ActivityType
 * @typedef {{ chapter_id: string, name: string }} Chapter
 */

/** What one coordinator chooses from. */
export class Scope {
  /** @param {Mentor[]} mentors @param {ActivityType[]} types @param {Chapter[]} chapters */
  constructor(mentors, types, chapters) {
    this.mentors = [...mentors].sort(byName);
    this.types = [...types].sort(byName);
    this.chapters = [...chapters].sort(byName);
    this.byId = new Map(mentors.map((mentor) => [mentor.mentor_id, mentor]));
    this.#chapterNames = new Map(chapters.map((chapter) => [chapter.chapter_id, chapter.name]));
    for (const mentor of this.mentors) {
      const name = fold(mentor.name);
      this.#folded.set(mentor.mentor_id, name);
      this.#byName.set(name, [...(this.#byName.get(name) ?? []), mentor]);
    }
  }

  /** @type {Map<string, string>} */
  #chapterNames;

  /** Names as they are searched, by id. @type {Map<string, string>} */
  #folded = new Map();

  /** @type {Map<string, Mentor[]>} */
  #byName = new Map();

  /** @type {Names | null} */
  #names = null;

  /** The names, for a field in which one is typed. */
  get names() {
    this.#names ??= new Names(this.mentors);
    return this.#names;
  }

  /** @param {string} mentorId */
  nameOf(mentorId) {
    return this.byId.get(mentorId)?.name ?? mentorId;
  }

  /** @param {string} chapterId */
  chapterName(chapterId) {
    return this.#chapterNames.get(chapterId) ?? chapterId;
  }

  /** @param {string} activityType */
  typeName(activityType) {
    return this.type(activityType)?.name ?? activityType;
  }

  /** @param {string} activityType */
  type(activityType) {
    return this.types.find((type) => type.activity_type === activityType);
  }

  /** Mentors whose name contains each of the words. @param {string} words */
  search(words) {
    const wanted = fold(words).split(" ");
    return this.mentors.filter((mentor) => {
      const name = this.#folded.get(mentor.mentor_id) ?? "";
      return wanted.every((word) => name.includes(word));
    });
  }

  /** Mentors with exactly this name, as people write it. @param {string} name @returns {Mentor[]} */
  named(name) {
    return this.#byName.get(fold(name)) ?? [];
  }

  /** The type with this id or name. @param {string} typed */
  typeNamed(typed) {
    const wanted = fold(typed);
    return this.type(typed) ?? this.types.find((type) => fold(type.name) === wanted);
  }
}

/** Why a mentor can't be registered on a date, or null. @param {Mentor} mentor @param {string} date @returns {"not_yet" | "no_longer" | null} */
export function inactivity(mentor, date) {
  if (mentor.active_from !== null && date < mentor.active_from) {
    return "not_yet";
  }
  return mentor.active_until !== null && date > mentor.active_until ? "no_longer" : null;
}

/** @param {string} coordinatorId @returns {Promise<Scope>} */
export async function loadScope(coordinatorId) {
  const query = { coordinator_id: coordinatorId };
  return new Scope(...(await Promise.all([api.mentors(query), api.activityTypes(), api.chapters(query)])));
}
