// What a person has filled in, and the items that it means.

import { readDate, readMinutes, shownDate } from "/console/static/dates.js";

/**
 * @typedef {object} Item an item of a submission
 * @property {string} mentor_id
 * @property {string} activity_type
 * @property {string} activity_date
 * @property {number} duration_minutes
 * @property {string} [notes]
 * @property {string} [client_reference]
 *
 * @typedef {object} Filling
 * @property {string} type
 * @property {number} minutes
 * @property {Map<string, number>} ownMinutes exceptions, by mentor
 * @property {string[]} mentorIds
 * @property {string | null} label
 * @property {string} date
 *
 * @typedef {Map<string, string>} Mistakes what is wrong with a field, by the field's id: the key of a text
 *
 * @typedef {object} Rules
 * @property {string} today
 * @property {number} max_items
 * @property {number | null} max_duration_minutes
 * @property {number} max_notes_length
 * @property {string | null} earliest_date
 */

/** The rules for what this person may fill in. The page may still be open after midnight, so `today` is read each time. @param {any} me @returns {Rules} */
export const rulesOf = (me) => ({ ...me.limits, get today() { return me.organization.today; } });

/** @param {string} typed @param {Rules} rules @returns {{ date: string } | { mistake: string }} */
export function checkedDate(typed, rules) {
  const found = readDate(typed, rules.today);
  if (!("date" in found)) {
    return found;
  }
  if (found.date > rules.today) {
    return { mistake: "future" };
  }
  return rules.earliest_date !== null && found.date < rules.earliest_date ? { mistake: "too_early" } : found;
}

/** @param {string} typed @param {Rules} rules @returns {{ minutes: number } | { mistake: string }} */
export function checkedMinutes(typed, rules) {
  if (typed.trim() === "") {
    return { mistake: "empty" };
  }
  const minutes = readMinutes(typed);
  if (minutes === null || minutes === 0) {
    return { mistake: "not_a_duration" };
  }
  return rules.max_duration_minutes !== null && minutes > rules.max_duration_minutes ? { mistake: "too_many_minutes" } : { minutes };
}

/** One activity that several mentors did together, with exceptions. */
export class Draft {
  type = "";

  /** As typed. */
  date;

  /** As typed. */
  minutes = "";

  /** Null: the preset one. @type {string | null} */
  ownLabel = null;

  /** The date that stands in the label. @type {string | null} */
  labelledFor = null;

  notes = "";

  /** Ids of mentors. @type {Set<string>} */
  chosen = new Set();

  /** Other minutes, as typed, or a note for single mentors. @type {Map<string, { minutes: string, notes: string }>} */
  exceptions = new Map();

  /** The rows of a list, in place of the chosen mentors. @type {import("/console/static/registering/rows.js").Rows | null} */
  rows = null;

  /** How many of a group are not in the scope any more. */
  gone = 0;

  /** @param {Rules} rules */
  constructor(rules) {
    this.rules = rules;
    this.date = shownDate(rules.today);
  }

  /** The date, or null while what is typed is none. */
  get day() {
    const found = checkedDate(this.date, this.rules);
    return "date" in found ? found.date : null;
  }

  /** Chooses the type, and its usual minutes unless others were typed. @param {import("/console/static/registering/scope.js").Scope} scope @param {string} type */
  choose(scope, type) {
    const usual = scope.type(this.type)?.default_minutes ?? null;
    const isTyped = this.minutes !== "" && this.minutes !== String(usual);
    this.type = type;
    if (!isTyped) {
      this.minutes = String(scope.type(type)?.default_minutes ?? "");
    }
  }

  /** @param {import("/console/static/registering/scope.js").Scope} scope */
  label(scope) {
    if (this.ownLabel !== null) {
      const { day, labelledFor } = this;
      return day === null || labelledFor === null ? this.ownLabel : this.ownLabel.replace(shownDate(labelledFor), shownDate(day));
    }
    if (this.rows !== null) {
      return labelOf(this.rows.items, scope);
    }
    return this.type === "" || this.day === null ? "" : `${scope.typeName(this.type)}, ${shownDate(this.day)}`;
  }

  /** Takes over who did what with whom, for another date. @param {Filling} filling @param {import("/console/static/registering/scope.js").Scope} scope */
  fill({ type, minutes, ownMinutes, mentorIds, label, date }, scope) {
    this.type = scope.type(type) === undefined ? "" : type;
    this.minutes = String(minutes);
    this.ownLabel = label;
    this.labelledFor = date;
    this.date = shownDate(date);
    this.chosen = new Set(mentorIds.filter((mentorId) => scope.byId.has(mentorId)));
    this.gone = mentorIds.length - this.chosen.size;
    for (const [mentorId, own] of ownMinutes) {
      this.exceptions.set(mentorId, { minutes: String(own), notes: "" });
    }
  }

  /** How many are to be registered. */
  get count() {
    return this.rows === null ? this.chosen.size : this.rows.shown.length;
  }

  /** @param {string} mentorId */
  exception(mentorId) {
    return this.exceptions.get(mentorId) ?? { minutes: "", notes: "" };
  }

  /** @returns {Mistakes} */
  mistakes() {
    /** @type {Mistakes} */
    const found = new Map();
    const { rows } = this;
    if (this.type === "" && (rows === null || rows.needs("type"))) {
      found.set("type", "no_type");
    }
    const date = checkedDate(this.date, this.rules);
    if ("mistake" in date && (rows === null || rows.needs("date"))) {
      found.set("date", date.mistake);
    }
    const minutes = checkedMinutes(this.minutes, this.rules);
    if ("mistake" in minutes && (rows === null || rows.needs("minutes"))) {
      found.set("minutes", minutes.mistake === "empty" ? "no_minutes" : minutes.mistake);
    }
    if (rows !== null) {
      if (rows.wrong.length > 0) {
        found.set("rows", "wrong_rows");
      } else if (rows.shown.length === 0) {
        found.set("rows", "nobody");
      }
      return found;
    }
    if (this.chosen.size === 0) {
      found.set("who", "nobody");
    } else if (this.chosen.size > this.rules.max_items) {
      found.set("who", "too_many");
    }
    for (const mentorId of this.chosen) {
      const own = this.exception(mentorId).minutes;
      const read = own === "" ? null : checkedMinutes(own, this.rules);
      if (read !== null && "mistake" in read) {
        found.set(`minutes-${mentorId}`, read.mistake);
      }
    }
    return found;
  }

  /** The items, if there are no mistakes. @param {import("/console/static/registering/scope.js").Scope} scope @returns {Item[]} */
  items(scope) {
    if (this.rows !== null) {
      return this.rows.items;
    }
    const inOrder = scope.mentors.filter((mentor) => this.chosen.has(mentor.mentor_id));
    return inOrder.map(({ mentor_id }) => {
      const { minutes, notes } = this.exception(mentor_id);
      const text = notes.trim() || this.notes.trim();
      return {
        mentor_id,
        activity_type: this.type,
        activity_date: /** @type {string} */ (this.day),
        duration_minutes: /** @type {number} */ (readMinutes(minutes || this.minutes)),
        ...(text === "" ? {} : { notes: text }),
      };
    });
  }
}

/** The type, if it is the same for all, and the dates. @param {Item[]} items @param {import("/console/static/registering/scope.js").Scope} scope */
function labelOf(items, scope) {
  if (items.length === 0) {
    return "";
  }
  const dates = items.map((item) => item.activity_date).sort();
  const [from, to] = [dates[0], dates[dates.length - 1]].map(shownDate);
  const isOneType = items.every((item) => item.activity_type === items[0].activity_type);
  return [...(isOneType ? [scope.typeName(items[0].activity_type)] : []), from === to ? from : `${from} – ${to}`].join(", ");
}
