// Which activities to show: the period and what else is chosen. Nothing of it gets into the address.

import * as api from "/console/static/api.js";
import { readDate, shownDate } from "/console/static/dates.js";
import { mistakeText, text } from "/console/static/messages.js";
import { Names } from "/console/static/people.js";
import { html, nothing } from "/console/static/vendored.js";

const PRESETS = ["this_month", "this_year", "last_year", "all"];

/** The dates of a preset, both included. @param {string} preset @param {string} today @returns {{ from: string, to: string }} */
function period(preset, today) {
  const [year, month] = [Number(today.slice(0, 4)), Number(today.slice(5, 7))];
  switch (preset) {
    case "this_month":
      return { from: `${today.slice(0, 7)}-01`, to: new Date(Date.UTC(year, month, 0)).toISOString().slice(0, 10) };
    case "this_year":
      return { from: `${year}-01-01`, to: `${year}-12-31` };
    case "last_year":
      return { from: `${year - 1}-01-01`, to: `${year - 1}-12-31` };
    default:
      return { from: "", to: "" };
  }
}

export class ActivityFilters {
  preset = "this_year";
  dates = { from: "", to: "" };
  type = "";
  chapter = "";
  coordinator = "";
  revoked = "";
  mentor = "";
  /** What is typed where it can't be used, by field. */
  typed = { from: "", to: "", mentor: "" };
  /** @type {Record<string, string>} the sentence for each field that can't be used */
  mistakes = {};

  /**
   * @param {import("/console/static/app.js").Context} context @param {import("/console/static/directory.js").Directory} directory
   * @param {() => void} changed
   */
  constructor(context, directory, changed) {
    this.context = context;
    this.directory = directory;
    this.changed = changed;
    this.names = new Names(directory.mentors);
    this.take("this_year");
  }

  /** @param {string} preset */
  take(preset) {
    this.preset = preset;
    this.dates = period(preset, this.context.me.organization.today);
    const { from, to } = this.dates;
    this.typed.from = from === "" ? "" : shownDate(from);
    this.typed.to = to === "" ? "" : shownDate(to);
    delete this.mistakes.from;
    delete this.mistakes.to;
  }

  query() {
    return {
      from: this.dates.from, to: this.dates.to, activity_type: this.type, chapter_id: this.chapter, coordinator_id: this.coordinator,
      mentor_id: this.mentor, revoked: this.revoked,
    };
  }

  /** Whether nothing is left out. */
  get isEverything() {
    return Object.values(this.query()).every((value) => value === "");
  }

  /** The sums of what is chosen. */
  async sums() {
    const grouping = ["activity_type", "month", ...(this.chapter ? ["chapter"] : []), ...(this.coordinator ? ["coordinator"] : [])];
    const { groups } = await api.activitySummary({
      from: this.dates.from, to: this.dates.to, mentor_id: this.mentor, group_by: grouping.join(","),
    });
    const chosen = groups.filter(
      (/** @type {any} */ group) =>
        (this.type === "" || group.activity_type === this.type) &&
        (this.chapter === "" || group.chapter_id === this.chapter) &&
        (this.coordinator === "" || group.coordinator_id === this.coordinator),
    );
    const kind = this.revoked === "true" ? "revoked" : "live";
    return {
      total: { live: added(chosen, "live"), revoked: added(chosen, "revoked") },
      byType: summed(chosen, "activity_type", kind).sort((one, other) => other.activities - one.activities),
      byMonth: summed(chosen, "month", kind).sort((one, other) => (one.key < other.key ? 1 : -1)),
    };
  }

  /** @param {() => void} change */
  change(change) {
    change();
    if (Object.keys(this.mistakes).length === 0) {
      this.changed();
    }
    this.context.redraw();
  }

  /** Returns what the field shows from now on. @param {"from" | "to"} field @param {string} typed */
  typeDate(field, typed) {
    this.typed[field] = typed;
    const read = typed.trim() === "" ? { date: "" } : readDate(typed, this.context.me.organization.today);
    if ("mistake" in read) {
      this.mistakes[field] = mistakeText(read.mistake);
      return typed;
    }
    delete this.mistakes[field];
    this.dates[field] = read.date;
    this.typed[field] = read.date === "" ? "" : shownDate(read.date);
    this.preset = PRESETS.find((preset) => {
      const { from, to } = period(preset, this.context.me.organization.today);
      return from === this.dates.from && to === this.dates.to;
    }) ?? "";
    return this.typed[field];
  }

  /** @param {string} typed */
  typeMentor(typed) {
    this.typed.mentor = typed;
    const found = this.names.idOf(typed);
    this.mentor = found ?? "";
    delete this.mistakes.mentor;
    if (typed.trim() !== "" && found === undefined) {
      this.mistakes.mentor = text("activities.mentor.unknown");
    }
  }

  view() {
    const { types, chapters, coordinators } = this.directory;
    return html`
      <form class="ds-card activity-filters" data-color="neutral" aria-label=${text("activities.filters")} @submit=${(/** @type {Event} */ event) => event.preventDefault()}>
        <fieldset class="ds-fieldset period">
          <legend class="ds-label">${text("activities.period")}</legend>
          <div class="activity-periods">
            ${PRESETS.map(
              (preset) => html`
                <button type="button" class="ds-chip" data-color="accent" aria-pressed=${preset === this.preset} @click=${() => this.change(() => this.take(preset))}>
                  ${text(`activities.period.${preset}`)}
                </button>
              `,
            )}
          </div>
          <div class="dates">${this.date("from")}${this.date("to")}</div>
        </fieldset>
        <div class="activity-choices">
          ${this.select("type", text("activity.type"), types.map((each) => [each.activity_type, each.name]))}
          ${chapters.length < 2 ? nothing : this.select("chapter", text("activity.chapter"), chapters.map((each) => [each.chapter_id, each.name]))}
          ${coordinators.length < 2
            ? nothing
            : this.select("coordinator", text("activity.coordinator"), coordinators.map((each) => [each.coordinator_id, each.name]))}
          ${this.mentorField()}
          ${this.select("revoked", text("activity.status"), [["false", text("activity.registered")], ["true", text("activity.revoked")]])}
        </div>
      </form>
    `;
  }

  /** @param {"from" | "to"} field */
  date(field) {
    return html`
      <div class="ds-field">
        <label class="ds-label" for=${field}>${text(`activities.${field}`)}</label>
        <input
          class="ds-input" id=${field} type="text" inputmode="numeric" autocomplete="off" .value=${this.typed[field]}
          aria-invalid=${field in this.mistakes} aria-describedby="${field}-mistake"
          @change=${(/** @type {any} */ event) => this.change(() => { event.target.value = this.typeDate(field, event.target.value); })}>
        ${this.mistake(field)}
      </div>
    `;
  }

  mentorField() {
    return html`
      <div class="ds-field">
        <label class="ds-label" for="mentor">${text("activity.mentor")}</label>
        <input
          class="ds-input" id="mentor" type="text" list="mentors" autocomplete="off" placeholder=${text("activities.everybody")} .value=${this.typed.mentor}
          aria-invalid=${"mentor" in this.mistakes} aria-describedby="mentor-mistake"
          @input=${(/** @type {any} */ event) => {
            this.typed.mentor = event.target.value;
            this.context.redraw();
          }}
          @change=${(/** @type {any} */ event) => this.change(() => this.typeMentor(event.target.value))}>
        <datalist id="mentors">${this.names.proposed(this.typed.mentor).map((label) => html`<option value=${label}></option>`)}</datalist>
        ${this.mistake("mentor")}
      </div>
    `;
  }

  /** @param {string} field */
  mistake(field) {
    return html`<p class="ds-validation-message" id="${field}-mistake" ?hidden=${!(field in this.mistakes)}>${this.mistakes[field] ?? ""}</p>`;
  }

  /** @param {"type" | "chapter" | "coordinator" | "revoked"} field @param {string} label @param {string[][]} choices */
  select(field, label, choices) {
    return html`
      <div class="ds-field">
        <label class="ds-label" for=${field}>${label}</label>
        <select class="ds-input" id=${field} @change=${(/** @type {any} */ event) => this.change(() => { this[field] = event.target.value; })}>
          <option value="" ?selected=${this[field] === ""}>${text("activities.all")}</option>
          ${choices.map(([value, name]) => html`<option value=${value} ?selected=${this[field] === value}>${name}</option>`)}
        </select>
      </div>
    `;
  }
}

/** @param {any[]} groups @param {"live" | "revoked"} kind */
function added(groups, kind) {
  return {
    activities: groups.reduce((sum, group) => sum + group[kind].activities, 0),
    minutes: groups.reduce((sum, group) => sum + group[kind].minutes, 0),
  };
}

/** The sums of the groups that share a value. @param {any[]} groups @param {string} by @param {"live" | "revoked"} kind */
function summed(groups, by, kind) {
  const keys = [...new Set(groups.map((group) => group[by]))];
  return keys
    .map((key) => ({ key, ...added(groups.filter((group) => group[by] === key), kind) }))
    .filter((sum) => sum.activities > 0);
}
