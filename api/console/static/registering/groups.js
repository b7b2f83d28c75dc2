// Groups of mentors who were registered together, from the batches in which they were.

import * as api from "/console/static/api.js";
import { lastWeekday, shownDate, weekdayOf } from "/console/static/dates.js";

const WEEK_MS = 7 * 24 * 60 * 60 * 1000;

// Batches whose items are read to find the groups.
const READ = 12;

// Batches of one name that are read: several groups may have the name of their activity.
const READ_OF_A_NAME = 4;

// Names that are read beyond the groups that are shown, because a batch may be no group.
const SPARE_NAMES = 2;

// A larger batch came from a file, and is no group that somebody knows by heart.
const LARGEST = 1000;

// Such a batch is no group that somebody registers again, but one to correct.
const ENDED_WITHOUT_ANYBODY = ["failed", "cancelled"];

/**
 * @typedef {object} Group what all items of a batch have in common
 * @property {string} batchId
 * @property {string} coordinatorId
 * @property {string | null} label
 * @property {string} type
 * @property {string} typeName the type's name if the items have it, otherwise its id
 * @property {number} minutes of most of them
 * @property {Map<string, number>} ownMinutes of the others, by mentor
 * @property {string} date
 * @property {string[]} mentorIds
 *
 * @typedef {Pick<Group, "coordinatorId" | "type" | "minutes" | "mentorIds">} Members
 */

/** The group of a batch; null if its items have several types or dates, or a mentor twice. @param {any} batch with all its items @returns {Group | null} */
export function groupOf(batch) {
  const items = batch.items;
  const mentorIds = items.map((/** @type {any} */ item) => item.mentor_id);
  /** @param {string} field */
  const isShared = (field) => items.every((/** @type {any} */ item) => item[field] === items[0][field]);
  if (items.length === 0 || !isShared("activity_type") || !isShared("activity_date") || new Set(mentorIds).size < items.length) {
    return null;
  }
  const minutes = mostCommon(items.map((/** @type {any} */ item) => item.duration_minutes));
  const others = items.filter((/** @type {any} */ item) => item.duration_minutes !== minutes);
  return {
    batchId: batch.batch_id,
    coordinatorId: batch.coordinator_id,
    label: batch.label,
    type: items[0].activity_type,
    typeName: items[0].activity_type_name ?? items[0].activity_type,
    minutes,
    ownMinutes: new Map(others.map((/** @type {any} */ item) => [item.mentor_id, item.duration_minutes])),
    date: items[0].activity_date,
    mentorIds,
  };
}

/** @param {number[]} numbers */
function mostCommon(numbers) {
  /** @type {Map<number, number>} */
  const counts = new Map();
  for (const number of numbers) {
    counts.set(number, (counts.get(number) ?? 0) + 1);
  }
  return [...counts].reduce((best, each) => (each[1] > best[1] ? each : best))[0];
}

/**
 * Whether two are the same group: the same type and minutes, and half of the larger one is in the other.
 *
 * @param {Members} one @param {Members} other
 */
function isSame(one, other) {
  const members = new Set(one.mentorIds);
  const common = other.mentorIds.filter((mentorId) => members.has(mentorId)).length;
  return (
    one.type === other.type && one.minutes === other.minutes && one.coordinatorId === other.coordinatorId &&
    2 * common >= Math.max(one.mentorIds.length, other.mentorIds.length)
  );
}

/** @param {any} template @returns {Members} */
const membersOf = ({ coordinator_id, activity_type, duration_minutes, mentor_ids }) => ({
  coordinatorId: coordinator_id, type: activity_type, minutes: duration_minutes, mentorIds: mentor_ids,
});

/** A batch with all its items. @param {string} batchId @returns {Promise<any>} */
export async function wholeBatch(batchId) {
  const { body } = await api.batch(batchId, { item_limit: LARGEST });
  let cursor = body.next_item_cursor;
  while (cursor !== null) {
    const { body: next } = await api.batch(batchId, { item_limit: LARGEST, item_cursor: cursor });
    body.items.push(...next.items);
    cursor = next.next_item_cursor;
  }
  return body;
}

/**
 * The last distinct groups, newest first, each with the date for which it is probably registered next: a group that met on the same
 * weekday each time meets on that weekday again.
 *
 * @param {any[]} batches newest first @param {any[]} templates groups that are shown anyway @param {string} today @param {number} count
 * @returns {Promise<{ group: Group, date: string, isWeekly: boolean }[]>}
 */
export async function lastGroups(batches, templates, today, count) {
  const known = templates.map(membersOf);
  const promising = batches.filter((batch) => !ENDED_WITHOUT_ANYBODY.includes(batch.status) && batch.total_items <= LARGEST);
  const read = await Promise.all(worthReading(promising, templates, count).map((batch) => api.batch(batch.batch_id, { item_limit: LARGEST, names: true })));
  /** @type {Group[][]} */
  const found = [];
  for (const { body } of read) {
    const group = groupOf(body);
    if (group === null || known.some((members) => isSame(members, group))) {
      continue;
    }
    const same = found.find((groups) => isSame(groups[0], group));
    if (same === undefined) {
      found.push([group]);
    } else {
      same.push(group);
    }
  }
  return found.slice(0, count).map((groups) => ({ group: groups[0], ...nextDate(groups, today) }));
}

/**
 * Those of which the names do not say already that there is nothing new in them: a template's, and the same one again and again.
 *
 * @param {any[]} batches newest first @param {any[]} templates @param {number} count how many groups are shown
 */
function worthReading(batches, templates, count) {
  const ofTemplates = new Set(templates.map((template) => template.name));
  /** @type {Map<string, any[]>} */
  const byName = new Map();
  for (const batch of batches) {
    const name = withoutDates(batch.label ?? "") || batch.batch_id;
    if (!ofTemplates.has(name)) {
      byName.set(name, [...(byName.get(name) ?? []), batch]);
    }
  }
  const wanted = new Set([...byName.values()].slice(0, count + SPARE_NAMES).flatMap((same) => same.slice(0, READ_OF_A_NAME)));
  return batches.filter((batch) => wanted.has(batch)).slice(0, READ);
}

/** What a label says besides dates. @param {string} label */
const withoutDates = (label) => label.replace(/\d{2}\.\d{2}\.\d{4}/g, "").replace(/[\s,]+$/, "");

/** @param {Group[]} groups the same one, several times @param {string} today */
function nextDate(groups, today) {
  const dates = [...new Set(groups.map((group) => group.date))].sort();
  const last = dates[dates.length - 1];
  const isWeekly = dates.length > 1 && dates.every((date) => (Date.parse(last) - Date.parse(date)) % WEEK_MS === 0);
  const proposed = isWeekly ? lastWeekday(weekdayOf(last), today) : today;
  // Its last weekday is registered already. Today may be another weekday, so the group is not called weekly then.
  return proposed > last ? { isWeekly, date: proposed } : { isWeekly: false, date: today };
}

/** A group's label for another date, or null for the preset one. @param {Group} group @param {string} date */
export function labelFor({ label, date: before }, date) {
  return label === null ? null : label.replace(shownDate(before), shownDate(date));
}

/** What a group is called on any date, or null. @param {Group} group */
export function nameOf({ label, date }) {
  return label === null ? null : label.replace(shownDate(date), "").replace(/[\s,]+$/, "") || null;
}
