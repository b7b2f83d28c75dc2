// The texts of the console in the reader's language. No other module holds text for people.

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
  const response = await fetch(`/console/static/messages/${wanted}.json`);
  texts = await response.json();
  language = wanted;
  document.documentElement.lang = wanted;
  document.title = text("title");
}

/** Like `use`, and stores the choice in this browser. @param {string} wanted */
export async function choose(wanted) {
  localStorage.setItem(KEPT, wanted);
  await use(wanted);
}

/** The text of a key, in which values replace their names. @param {string} key @param {Record<string, unknown>} [values] */
export function text(key, values = {}) {
  const found = texts[key] ?? key;
  return found.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** Whether the catalogue has a text. @param {string} key */
export const hasText = (key) => key in texts;

/** The sentence for a problem's code. @param {string} code @param {Record<string, unknown>} [values] the problem's other members */
export function problemText(code, values = {}) {
  return hasText(`problem.${code}`) ? text(`problem.${code}`, values) : text("problem.other", { code });
}

/** A time as dd.mm.yyyy hh:mm in the organization's time zone, in every language. @param {string} moment @param {string} timeZone */
export function moment(moment, timeZone) {
  const shown = Object.fromEntries(
    new Intl.DateTimeFormat("nb-NO", {
      timeZone, day: "2-digit", month: "2-digit", year: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
    }).formatToParts(new Date(moment)).map((part) => [part.type, part.value]),
  );
  return `${shown.day}.${shown.month}.${shown.year} ${shown.hour}:${shown.minute}`;
}
