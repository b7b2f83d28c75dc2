// A review: one sentence, then what will happen to each person.

import { shownDate, shownMinutes, weekdayOf } from "/console/static/dates.js";
import { errorText, moment, text, warningText } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

// More entries of a group than these are shown in pages.
const SHOWN = 100;

// Groups of at most so many entries are open from the beginning.
const OPEN = 30;

/** The part of a page that shows a review. It keeps how many entries of each group are shown. */
export class Reviewing {
  /** @type {Map<string, number>} */
  #shown = new Map();

  /**
   * @param {object} parts
   * @param {any} parts.me
   * @param {import("/console/static/registering/review.js").Review} parts.review
   * @param {import("/console/static/registering/scope.js").Scope} parts.scope
   * @param {() => void} parts.changed an entry is included, or not any more
   * @param {() => void} parts.changeDate back to the form, to its date
   */
  constructor({ me, review, scope, changed, changeDate }) {
    this.me = me;
    this.review = review;
    this.scope = scope;
    this.changed = changed;
    this.changeDate = changeDate;
    // What is the same for all stands in the sentence, and everything else beside each person.
    const { items } = review;
    this.isOneType = items.every((item) => item.activity_type === items[0].activity_type);
    this.isOneDate = items.every((item) => item.activity_date === items[0].activity_date);
    this.isOneDuration = items.every((item) => item.duration_minutes === items[0].duration_minutes);
  }

  view() {
    const { entries, differences, isBlind } = this.review;
    const [ok, duplicates, cannot] = ["ok", "duplicate", "cannot"].map((group) => entries.filter((entry) => entry.group === group));
    return html`
      <p class="sentence" id="sentence">${this.#sentence()}</p>
      ${differences.length === 0 ? nothing : this.#differences(differences)}
      ${isBlind ? html`<div class="ds-alert" data-color="info"><p class="ds-paragraph">${text("review.blind")}</p></div>` : nothing}
      ${this.#group("ok", ok, isBlind ? "unknown" : "ok")}
      ${this.#group("duplicate", duplicates, "duplicate")}
      ${this.#group("cannot", cannot, "cannot")}
    `;
  }

  /** What is registered, when it is the same for all. */
  #sentence() {
    const items = this.review.items;
    const [first] = items;
    const dates = items.map((item) => item.activity_date).sort();
    const day = this.isOneDate
      ? text("review.day", { weekday: text(`weekday.${weekdayOf(dates[0])}`), date: shownDate(dates[0]) })
      : text("review.days", { from: shownDate(dates[0]), to: shownDate(dates[dates.length - 1]) });
    const type = this.isOneType ? this.scope.typeName(first.activity_type) : text("review.types");
    const minutes = this.isOneDuration ? shownMinutes(first.duration_minutes, text("new.hour")) : text("review.durations");
    return html`<strong>${type}</strong>, ${day}, ${minutes}`;
  }

  /** @param {any[]} differences */
  #differences(differences) {
    return html`
      <div class="ds-alert" data-color="warning" role="alert" id="differences" tabindex="-1">
        <h2 class="ds-heading" data-size="xs">${text("review.changed")}</h2>
        <ul class="ds-list">
          ${differences.slice(0, SHOWN).map(
            ({ entry, now }) => html`<li>${this.scope.nameOf(entry.item.mentor_id)}: ${now === "success" ? text("review.changed_ok") : this.#reason(entry)}</li>`,
          )}
        </ul>
      </div>
    `;
  }

  /** @param {string} name @param {any[]} entries @param {string} heading the heading's key */
  #group(name, entries, heading) {
    if (entries.length === 0) {
      return nothing;
    }
    const count = this.#shown.get(name) ?? SHOWN;
    const included = entries.filter((entry) => entry.included).length;
    return html`
      <details class="ds-details" data-color=${name === "ok" ? "accent" : "warning"} ?open=${entries.length <= OPEN || name !== "ok"}>
        <summary>
          <span>${headline(heading, name, entries.length, included)}</span>
        </summary>
        <div class="stack">
          ${name === "ok" ? nothing : this.#how(name, entries, included)}
          <ul class="entries">${entries.slice(0, count).map((entry) => this.#entry(entry))}</ul>
          ${count >= entries.length ? nothing : html`
            <button type="button" class="ds-button" data-variant="secondary" @click=${() => {
              this.#shown.set(name, count + SHOWN);
              this.changed();
            }}>${text("who.more", { rest: entries.length - count })}</button>`}
        </div>
      </details>
    `;
  }

  /** What can be done about a group. @param {string} name @param {any[]} entries @param {number} included */
  #how(name, entries, included) {
    const isAll = included === entries.length;
    const toggle = () => {
      for (const entry of entries) {
        entry.included = !isAll;
      }
      this.changed();
    };
    return html`
      <p class="ds-paragraph">${name === "duplicate" ? text("review.duplicate_how") : text("review.cannot_how")}</p>
      <div class="buttons">
        ${name === "cannot" ? html`
          <button type="button" class="ds-button" data-variant="secondary" @click=${this.changeDate}>${text("review.change_date")}</button>` : nothing}
        ${entries.length === 1 ? nothing : html`
          <button type="button" class="ds-button" data-variant="tertiary" @click=${toggle}>
            ${isAll ? text("review.leave_out_all") : name === "duplicate" ? text("review.anyway_all") : text("review.insist_all")}
          </button>`}
      </div>
    `;
  }

  /** @param {any} entry */
  #entry(entry) {
    const { item, group } = entry;
    const name = this.scope.nameOf(item.mentor_id);
    return html`
      <li>
        <label class="mentor">
          <input class="ds-input" type="checkbox" .checked=${entry.included} @change=${() => {
            entry.included = !entry.included;
            this.changed();
          }}>
          <span>
            ${name}
            <small>${group === "ok" ? this.#details(entry) : this.#reason(entry)}</small>
            ${group === "ok" ? nothing : html`<small class="choice-of">${entry.included ? text(`review.included.${group}`) : text("review.left_out")}</small>`}
          </span>
        </label>
      </li>
    `;
  }

  /** What is not the same for all, and what is unusual. @param {any} entry */
  #details(entry) {
    const { item } = entry;
    const parts = [
      this.isOneType ? "" : this.scope.typeName(item.activity_type),
      this.isOneDate ? "" : shownDate(item.activity_date),
      this.isOneDuration ? "" : shownMinutes(item.duration_minutes, text("new.hour")),
      ...entry.warnings.map((/** @type {any} */ warning) => warningText(warning.code)),
    ];
    return parts.filter((part) => part !== "").join(", ");
  }

  /** Why an item would fail. @param {any} entry */
  #reason(entry) {
    const { error } = entry;
    if (error.code === "duplicate_activity" && error.registered_by_name && error.registered_at) {
      return text("review.duplicate_by", { by: error.registered_by_name, at: moment(error.registered_at, this.me.organization.time_zone) });
    }
    return errorText(error);
  }
}

/** How many there are, and how many of those are sent if it is not the usual. @param {string} key @param {string} name @param {number} count @param {number} included */
function headline(key, name, count, included) {
  const sentence = text(`review.group.${key}.${count === 1 ? "one" : "several"}`, { count });
  const usual = name === "ok" ? count : 0;
  if (included === usual) {
    return sentence;
  }
  return name === "ok" ? text("review.some_left_out", { sentence, number: count - included }) : text("review.some_anyway", { sentence, number: included });
}
