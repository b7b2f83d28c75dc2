// The texts of the console in the reader's language. No other module holds text for people.

import { reading } from "/console/static/reading.js";

export const LANGUAGES = ["nb", "en"];

const KEPT = "language";

/** @type {Record<string, string>} */
let texts = {};

/** The page's language. */
export let language = "nb";

/** The language that was chosen before, or else the browser's. */
export function preferred() {
  const kept = localStorage.getItem(KEPT);
  if (kept !== null && LANGUAGES.includes(kept)) {
    return kept;
  }
  const norwegian = navigator.languages.some((each) => /^(nb|nn|no)\b/i.test(each));
  return norwegian ? "nb" : "en";
}

/** Loads a catalogue. @param {string} wanted */
export async function use(wanted) {
  texts = await reading(async () => (await fetch(`/console/static/messages/${wanted}.json`)).json());
  language = wanted;
  document.documentElement.lang = wanted;
  document.title = text("title");
}

/** Like `use`, and stores the choice in this browser. @param {string} wanted */
export async function choose(wanted) {
  localStorage.setItem(KEPT, wanted);
  await use(wanted);
}

/** The text of a key, in which values replace their names. Numbers are grouped: one that names something has to be a string. @param {string} key @param {Record<string, unknown>} [values] */
export function text(key, values = {}) {
  const found = texts[key] ?? key;
  return found.replace(/\{(\w+)\}/g, (_, name) => shown(values[name]));
}

/** The text of a key, or of its `.one` for a single thing. @param {string} key @param {number} count @param {Record<string, unknown>} [values] */
export const counted = (key, count, values = {}) => text(count === 1 ? `${key}.one` : key, values);

/** @param {unknown} value */
const shown = (value) => (typeof value === "number" ? number(value) : String(value));

/** Whether the catalogue has a text. @param {string} key */
export const hasText = (key) => key in texts;

/**
 * The sentence for a code of the API, with the way out; the family's sentence for others if the page does not know the code.
 *
 * @param {"problem" | "error" | "mistake" | "warning" | "kept" | "remark"} family @param {string} code @param {Record<string, unknown>} [values]
 */
function sentence(family, code, values = {}) {
  const key = `${family}.${code}`;
  return hasText(key) ? text(key, values) : text(`${family}.other`, { code });
}

/** Why the API refused a request. @param {string} code @param {Record<string, unknown>} [values] the problem's other members */
export const problemText = (code, values = {}) => sentence("problem", code, values);

/** Why an item failed, or will fail. @param {{ code: string, field?: string | null }} error */
export function errorText({ code, field }) {
  const exact = `${code}.${field}`;
  return sentence("error", hasText(`error.${exact}`) ? exact : code);
}

/** What is wrong with a value, in a request or in a file. @param {string} code */
export const mistakeText = (code) => sentence("mistake", code);

/** What a preview warns about. @param {string} code */
export const warningText = (code) => sentence("warning", code);

/** Why a revocation leaves an activity as it is. @param {string} code */
export const keptText = (code) => sentence("kept", code);

/** A time as dd.mm.yyyy hh:mm in the organization's time zone, in every language. @param {string} moment @param {string} timeZone */
export function moment(moment, timeZone) {
  const shown = Object.fromEntries(
    new Intl.DateTimeFormat("nb-NO", {
      timeZone, day: "2-digit", month: "2-digit", year: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
    }).formatToParts(new Date(moment)).map((part) => [part.type, part.value]),
  );
  return `${shown.day}.${shown.month}.${shown.year} ${shown.hour}:${shown.minute}`;
}

/** A number as people write it, with one decimal at most. @param {number} value */
export const number = (value) =>
  new Intl.NumberFormat(language === "nb" ? "nb-NO" : "en-GB", { maximumFractionDigits: 1 }).format(value);

/** What was not read in a file, or should be checked in it. @param {{ code: string, rows: number[], names: string[], count: number }} remark */
export function remarkText({ code, rows, names, count }) {
  const listed = [...rows, ...names].map(String);
  return sentence("remark", code, { listed: [...listed, ...(count > listed.length ? ["…"] : [])].join(", ") });
}
