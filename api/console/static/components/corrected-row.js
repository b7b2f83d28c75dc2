// One failed person on the page that corrects: the fields with their values, and what was typed into them.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { focusOn } from "/console/static/components/dialog.js";
import { field, mistakeOf } from "/console/static/components/field.js";
import { errorSentence, itemResult } from "/console/static/components/item-result.js";
import { MOST_OPTIONS, nameField } from "/console/static/components/one-of-many.js";
import { readDate, readMinutes, shownDate, shownMinutes } from "/console/static/dates.js";
import { moment, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

const DUPLICATE = "duplicate_activity";
const LONGEST_NOTES = 2000;

/** @typedef {{ mentors: any[], names: import("/console/static/people.js").Names, types: any[] }} Choices */
/** @typedef {{ choices: Choices, nameOf: import("/console/static/components/people.js").NameOf }} Page */

export class CorrectedRow {
  /** What is wrong with what was typed, by field. @type {Record<string, string>} */
  #mistakes = {};

  /** Whether the person has said so; until then it depends on what was changed. @type {boolean | null} */
  #wanted = null;

  /** The item, if somebody else has taken care of it meanwhile. @type {any} */
  #settled = null;

  /** The note as it was, once it has been read. @type {string | null} */
  #notesBefore = null;

  #hasChoices = false;

  /** The mentor's name as it is being typed; null while it is that of the chosen one. @type {string | null} */
  #typedName = null;

  /** @param {any} item @param {import("/console/static/app.js").Context} context */
  constructor(item, context) {
    this.item = item;
    this.context = context;
    this.readingNotes = new Action(context);
    this.typed = {
      mentor_id: item.mentor_id,
      activity_type: item.activity_type,
      activity_date: shownDate(item.activity_date),
      duration_minutes: String(item.duration_minutes),
      override_duplicates: false,
      /** @type {string | null} null until the note is opened */
      notes: null,
    };
  }

  get name() {
    return this.item.mentor_name ?? this.item.mentor_id;
  }

  /** Whether it still waits for somebody. */
  get isOpen() {
    return this.#settled === null;
  }

  /** Whether a retry takes it along: if the person says so, or by default if it has a chance now. */
  get isIncluded() {
    return this.isOpen && (this.#wanted ?? (this.isChanged || this.item.error.retryable));
  }

  get isChanged() {
    return Object.keys(this.correction()).length > 1;
  }

  /** The item's id and the values that differ. A value that can't be read counts as different. */
  correction() {
    const { item, typed } = this;
    const date = readDate(typed.activity_date, this.context.me.organization.today);
    /** @type {Record<string, unknown>} */
    const all = {
      mentor_id: typed.mentor_id,
      activity_type: typed.activity_type,
      activity_date: "date" in date ? date.date : null,
      duration_minutes: readMinutes(typed.duration_minutes),
    };
    /** @type {Record<string, unknown>} */
    const changed = { item_id: item.item_id };
    for (const [name, value] of Object.entries(all)) {
      if (value !== item[name]) {
        changed[name] = value;
      }
    }
    if (typed.override_duplicates) {
      changed.override_duplicates = true;
    }
    if (typed.notes !== null && typed.notes !== (this.#notesBefore ?? "")) {
      changed.notes = typed.notes === "" ? null : typed.notes;
    }
    return changed;
  }

  forgetMistakes() {
    this.#mistakes = {};
  }

  /** Whether everything that was typed can be read. Marks what can't. */
  check() {
    const date = readDate(this.typed.activity_date, this.context.me.organization.today);
    if ("mistake" in date) {
      this.mark("activity_date", text(`mistake.${date.mistake}`));
    }
    if (this.typed.mentor_id === "") {
      this.mark("mentor_id", text("activities.mentor.unknown"));
    }
    if (readMinutes(this.typed.duration_minutes) === null) {
      this.mark("duration_minutes", text("mistake.not_a_duration"));
    }
    return Object.keys(this.#mistakes).length === 0;
  }

  /** Puts a message at a field. Returns whether there is such a field. @param {string} field @param {string} message */
  mark(field, message) {
    if (!(field in this.typed)) {
      return false;
    }
    this.#mistakes[field] = message;
    return true;
  }

  /** The id of the first field with a mistake. */
  firstMistake() {
    return this.#id(Object.keys(this.typed).find((field) => field in this.#mistakes) ?? "mentor_id");
  }

  /** Notes what the item is now. Returns whether it is no longer failed, or failed again. @param {any} now */
  settle(now) {
    if (now.status === "failed" && now.attempt === this.item.attempt) {
      return false;
    }
    this.#settled = now;
    return true;
  }

  /** @param {string} field */
  #id(field) {
    return `${field}-${this.item.position}`;
  }

  /** @param {Page} page */
  view(page) {
    if (this.#settled !== null) {
      return this.#settledView(page);
    }
    const { item } = this;
    const timeZone = this.context.me.organization.time_zone;
    // The message of a note that is not shown yet stands above the fields.
    const isAboutField = item.error.field && this.typed[/** @type {keyof typeof this.typed} */ (item.error.field)] != null;
    return html`
      <fieldset class="panel row">
        <legend class="ds-heading" data-size="2xs">${this.name}</legend>
        ${isAboutField ? nothing : html`<p class="ds-validation-message">${errorSentence(item.error, timeZone)}</p>`}
        <div class="fields">
          ${page.choices.mentors.length > MOST_OPTIONS
            ? this.#mentorByName(page.choices)
            : this.#select("mentor_id", text("item.mentor"), this.#mentors(page.choices.mentors))}
          ${this.#select("activity_type", text("item.type"), types(page.choices.types, item))}
          ${this.#input("activity_date", text("item.date"))}
          ${this.#input("duration_minutes", text("item.minutes"), this.#minutesInWords())}
        </div>
        ${this.typed.notes === null ? nothing : this.#note()}
        <div class="decision">
          ${item.error.code === DUPLICATE ? this.#check("override_duplicates", text("correct.anyway")) : nothing}
          <div class="ds-field">
            <input
              class="ds-input" type="checkbox" id=${this.#id("retry")} .checked=${this.isIncluded}
              @change=${(/** @type {any} */ event) => { this.#wanted = event.target.checked; this.context.redraw(); }}
            >
            <label class="ds-label" for=${this.#id("retry")}>${text("correct.retry_this")}</label>
          </div>
          ${this.typed.notes === null ? this.#noteButton() : nothing}
        </div>
        ${this.readingNotes.view()}
      </fieldset>
    `;
  }

  /** @param {Page} page */
  #settledView(page) {
    const now = this.#settled;
    const last = now.history.at(-1);
    const timeZone = this.context.me.organization.time_zone;
    return html`
      <section class="panel row">
        <h2 class="ds-heading" data-size="2xs">${now.mentor_name ?? now.mentor_id}</h2>
        ${itemResult(now, timeZone)}
        ${last === undefined
          ? nothing
          : html`<p class="meta">${text("correct.by", { who: page.nameOf(last.retried_by), when: moment(last.retried_at, timeZone) })}</p>`}
        <p class="meta">
          ${now.activity_type_name ?? now.activity_type}, ${shownDate(now.activity_date)},
          ${shownMinutes(now.duration_minutes, text("item.hour"))}
        </p>
      </section>
    `;
  }

  /** The message of a field: the mistake in what was typed, or else why the item failed. @param {string} field */
  #message(field) {
    if (field in this.#mistakes) {
      return this.#mistakes[field];
    }
    return this.item.error.field === field ? errorSentence(this.item.error, this.context.me.organization.time_zone) : undefined;
  }

  /** @param {"activity_date" | "duration_minutes" | "notes"} name @param {string} label @param {unknown} [hint] @param {number} [rows] */
  #input(name, label, hint, rows) {
    return field({
      id: this.#id(name), label, hint, rows, value: this.typed[name] ?? "", mistake: this.#message(name),
      longest: rows === undefined ? undefined : LONGEST_NOTES,
      change: (value) => { this.typed[name] = value; this.context.redraw(); },
    });
  }

  #minutesInWords() {
    const minutes = readMinutes(this.typed.duration_minutes);
    return minutes === null ? nothing : shownMinutes(minutes, text("item.hour"));
  }

  /** @param {"mentor_id" | "activity_type"} field @param {string} label @param {{ id: string, name: string }[]} choices */
  #select(field, label, choices) {
    const message = this.#message(field);
    return html`
      <div class="ds-field">
        <label class="ds-label" for=${this.#id(field)}>${label}</label>
        <select
          class="ds-input" id=${this.#id(field)}
          aria-invalid=${message === undefined ? nothing : "true"} aria-describedby=${message === undefined ? nothing : `${this.#id(field)}-mistake`}
          @focus=${() => this.#offerChoices(true)} @blur=${() => this.#offerChoices(false)}
          @change=${(/** @type {any} */ event) => { this.typed[field] = event.target.value; this.context.redraw(); }}
        >
          ${choices.map(({ id, name }) => html`<option value=${id} .selected=${id === this.typed[field]}>${name}</option>`)}
        </select>
        ${mistakeOf(this.#id(field), message)}
      </div>
    `;
  }

  /**
   * A hundred rows with a thousand mentors each would be slow, so a row has its choices only while one of its lists has the focus.
   *
   * @param {boolean} has
   */
  #offerChoices(has) {
    this.#hasChoices = has;
    this.context.redraw();
  }

  /** The date that is typed, or else the item's. */
  get #day() {
    const date = readDate(this.typed.activity_date, this.context.me.organization.today);
    return "date" in date ? date.date : this.item.activity_date;
  }

  /** @param {Choices} choices */
  #mentorByName({ mentors, names }) {
    const { typed } = this;
    const [id, message] = [this.#id("mentor_id"), this.#message("mentor_id")];
    const value = this.#typedName ?? names.labelOf(typed.mentor_id) ?? this.name;
    const mentor = mentors.find((each) => each.mentor_id === typed.mentor_id);
    return html`
      <div class="ds-field" @focusin=${() => this.#offerChoices(true)} @focusout=${() => this.#offerChoices(false)}>
        <label class="ds-label" for=${id}>${text("item.mentor")}</label>
        ${nameField({
          id, value, isWrong: message !== undefined, proposed: this.#hasChoices ? names.proposed(this.#typedName ?? "") : [],
          type: (name) => {
            this.#typedName = name;
            typed.mentor_id = names.idOf(name) ?? "";
            delete this.#mistakes.mentor_id;
            this.context.redraw();
          },
          choose: () => {
            if (typed.mentor_id === "") {
              this.mark("mentor_id", text("activities.mentor.unknown"));
            } else {
              this.#typedName = null;
            }
            this.context.redraw();
          },
        })}
        ${mentor === undefined || wasActive(mentor, this.#day) ? nothing : html`<div class="hint">${text("correct.not_active", mentor)}</div>`}
        ${mistakeOf(id, message)}
      </div>
    `;
  }

  /** @param {any[]} mentors */
  #mentors(mentors) {
    const { typed, item } = this;
    const day = this.#day;
    const offered = mentors
      .filter((mentor) => this.#hasChoices || mentor.mentor_id === typed.mentor_id)
      .map((mentor) => ({ id: mentor.mentor_id, name: wasActive(mentor, day) ? mentor.name : text("correct.not_active", mentor) }));
    return mentors.some((mentor) => mentor.mentor_id === item.mentor_id) ? offered : [{ id: item.mentor_id, name: this.name }, ...offered];
  }

  /** @param {"override_duplicates"} field @param {string} label */
  #check(field, label) {
    return html`
      <div class="ds-field">
        <input
          class="ds-input" type="checkbox" id=${this.#id(field)} .checked=${this.typed[field]}
          @change=${(/** @type {any} */ event) => { this.typed[field] = event.target.checked; this.context.redraw(); }}
        >
        <label class="ds-label" for=${this.#id(field)}>${label}</label>
      </div>
    `;
  }

  #noteButton() {
    return html`
      <button type="button" class="ds-button" data-variant="tertiary" aria-disabled=${this.readingNotes.isBusy} @click=${() => this.#openNotes()}>
        ${text("correct.notes")}
      </button>
    `;
  }

  #note() {
    return this.#input("notes", text("item.notes"), text("correct.notes_hint"), 3);
  }

  /** Reads the note. Lists come without notes. */
  #openNotes() {
    this.readingNotes.run(async () => {
      const whole = await api.item(this.context.values.batch_id, this.item.item_id);
      this.#notesBefore = whole.notes;
      this.typed.notes = whole.notes ?? "";
      this.context.redraw();
      focusOn(this.#id("notes"));
    });
  }
}

/** @param {any} mentor @param {string} day */
function wasActive(mentor, day) {
  return (mentor.active_from === null || mentor.active_from <= day) && (mentor.active_until === null || day <= mentor.active_until);
}

/** The types of the organization; the item's own first if it is not one of them. @param {any[]} types @param {any} item */
function types(types, item) {
  const offered = types.map((type) => ({ id: type.activity_type, name: type.name }));
  const isKnown = types.some((type) => type.activity_type === item.activity_type);
  return isKnown ? offered : [{ id: item.activity_type, name: item.activity_type }, ...offered];
}
