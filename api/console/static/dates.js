// Dates and durations as people type and read them: 25.03.2026 and 1,5 h, in every language.

const DAY_MS = 24 * 60 * 60 * 1000;

/** A date of the API (2026-03-25) as 25.03.2026. @param {string} date */
export function shownDate(date) {
  const [year, month, day] = date.split("-");
  return `${day}.${month}.${year}`;
}

/**
 * A typed date as the API's. Accepts 25.03.2026, 25.3.26, 25.3. (the last one that is not after today) and 2026-03-25.
 *
 * @param {string} typed @param {string} today the organization's date, like 2026-03-26
 * @returns {{ date: string } | { mistake: "empty" | "slashes" | "not_a_date" }}
 */
export function readDate(typed, today) {
  const trimmed = typed.trim();
  if (trimmed === "") {
    return { mistake: "empty" };
  }
  if (trimmed.includes("/")) {
    return { mistake: "slashes" };
  }
  const iso = /^(\d{4})-(\d{1,2})-(\d{1,2})$/.exec(trimmed);
  if (iso !== null) {
    return checked(Number(iso[1]), Number(iso[2]), Number(iso[3]));
  }
  const typedDate = /^(\d{1,2})\.\s?(\d{1,2})(?:\.\s?(\d{4}|\d{2})?)?$/.exec(trimmed);
  if (typedDate === null) {
    return { mistake: "not_a_date" };
  }
  const [day, month] = [Number(typedDate[1]), Number(typedDate[2])];
  const thisYear = Number(today.slice(0, 4));
  if (typedDate[3] === undefined) {
    const found = [thisYear, thisYear - 1].map((year) => checked(year, month, day));
    return found.find((each) => "date" in each && each.date <= today) ?? { mistake: "not_a_date" };
  }
  return checked(typedDate[3].length === 2 ? 2000 + Number(typedDate[3]) : Number(typedDate[3]), month, day);
}

/** @param {number} year @param {number} month @param {number} day @returns {{ date: string } | { mistake: "not_a_date" }} */
function checked(year, month, day) {
  const date = new Date(Date.UTC(year, month - 1, day));
  const isReal = date.getUTCFullYear() === year && date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
  return isReal ? { date: date.toISOString().slice(0, 10) } : { mistake: "not_a_date" };
}

/** The date some days later, or earlier if `days` is negative. @param {string} date @param {number} days */
export function addDays(date, days) {
  return new Date(Date.parse(`${date}T00:00:00Z`) + days * DAY_MS).toISOString().slice(0, 10);
}

/** 1 is Monday, 7 is Sunday. @param {string} date */
export function weekdayOf(date) {
  return new Date(`${date}T00:00:00Z`).getUTCDay() || 7;
}

/** The last such weekday that is not after a date. @param {number} weekday @param {string} date */
export function lastWeekday(weekday, date) {
  return addDays(date, -((weekdayOf(date) - weekday + 7) % 7));
}

/** When a day begins in a time zone, as a time of the API. @param {string} date @param {string} timeZone */
export function startOfDay(date, timeZone) {
  const midnight = Date.parse(`${date}T00:00:00Z`);
  // Again with the result, in case the clocks change between the two.
  const near = midnight - offset(midnight, timeZone);
  return new Date(midnight - offset(near, timeZone)).toISOString();
}

/** How far the clocks of a time zone are ahead of UTC. @param {number} time @param {string} timeZone */
function offset(time, timeZone) {
  const shown = Object.fromEntries(
    new Intl.DateTimeFormat("en", {
      timeZone, year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", hourCycle: "h23",
    }).formatToParts(time).map((part) => [part.type, Number(part.value)]),
  );
  return Date.UTC(shown.year, shown.month - 1, shown.day, shown.hour, shown.minute) - time;
}

/**
 * A typed duration in minutes. Accepts 90, 90 min, 1,5 h, 1.5 t (time), 1 h 30 min and 1:30.
 *
 * @param {string} typed @returns {number | null}
 */
export function readMinutes(typed) {
  const trimmed = typed.trim().toLowerCase().replace(/\s+/g, " ");
  const minutes = /^(\d+) ?(?:m|min|minutter|minutes?)?\.?$/.exec(trimmed);
  if (minutes !== null) {
    return Number(minutes[1]);
  }
  const clock = /^(\d{1,2}):([0-5]\d)$/.exec(trimmed);
  if (clock !== null) {
    return Number(clock[1]) * 60 + Number(clock[2]);
  }
  const hours = /^(\d+(?:[.,]\d+)?) ?(?:h|t|timer?|hours?)\.?(?: ?(\d{1,2}) ?(?:m|min|minutter|minutes?)\.?)?$/.exec(trimmed);
  if (hours === null) {
    return null;
  }
  const all = Number(hours[1].replace(",", ".")) * 60 + Number(hours[2] ?? 0);
  return Number.isInteger(Math.round(all * 1000) / 1000) ? Math.round(all) : null;
}

/** A duration like 1 h 30 min, with the language's letter for hours. @param {number} minutes @param {string} hour */
export function shownMinutes(minutes, hour) {
  const [hours, rest] = [Math.floor(minutes / 60), minutes % 60];
  if (hours === 0) {
    return `${rest} min`;
  }
  return rest === 0 ? `${hours} ${hour}` : `${hours} ${hour} ${rest} min`;
}
