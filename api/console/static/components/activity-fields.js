// What was done: type, date, minutes, label and notes of a draft.

import { field, mistakeOf, sentence } from "/console/static/components/field.js";
import { addDays, readMinutes, shownDate, shownMinutes, weekdayOf } from "/console/static/dates.js";
import { mistakeText, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

// More types than these are chosen from a list.
const MOST_RADIOS = 6;

/**
 * @param {object} parts
 * @param {import("/console/static/registering/draft.js").Draft} parts.draft
 * @param {import("/console/static/registering/scope.js").Scope} parts.scope
 * @param {import("/console/static/registering/draft.js").Mistakes} parts.mistakes those to show
 * @param {() => void} parts.changed
 */
export function activityFields({ draft, scope, mistakes, changed }) {
  return html`
    ${activityType(draft, scope, mistakes, changed)}
    <div class="side-by-side">
      ${dateField(draft, mistakes, changed)}
      ${minutesField(draft, scope, mistakes, changed)}
    </div>
    ${field({
      id: "label", mistake: sentence(mistakes, "label"), label: text("new.label"), value: draft.label(scope), hint: text("new.label_hint"), longest: 200,
      change: (value) => {
        draft.ownLabel = value;
        draft.labelledFor = null;
        changed();
      },
    })}
    <details class="more">
      <summary>${text("new.notes_add")}</summary>
      ${field({
        id: "notes", mistake: sentence(mistakes, "notes"), label: text("new.notes"), value: draft.notes, hint: text("new.notes_hint"), rows: 3, longest: draft.rules.max_notes_length,
        change: (value) => {
          draft.notes = value;
          changed();
        },
      })}
    </details>
  `;
}

/** The type of a draft: radio buttons, or a list if there are many. @param {any} draft @param {any} scope @param {any} mistakes @param {() => void} changed */
export function activityType(draft, scope, mistakes, changed) {
  /** @param {string} type */
  const choose = (type) => {
    draft.choose(scope, type);
    changed();
  };
  const mistake = sentence(mistakes, "type");
  if (scope.types.length > MOST_RADIOS) {
    return html`
      <div class="ds-field">
        <label class="ds-label" for="type">${text("new.type")}</label>
        <select class="ds-input" id="type" aria-describedby=${mistake === undefined ? nothing : "type-mistake"}
          @change=${(/** @type {Event} */ event) => choose(/** @type {HTMLSelectElement} */ (event.target).value)}>
          <option value="" ?selected=${draft.type === ""}>${text("new.type_choose")}</option>
          ${scope.types.map(
            (/** @type {any} */ type) => html`<option value=${type.activity_type} ?selected=${draft.type === type.activity_type}>${type.name}</option>`,
          )}
        </select>
        ${mistakeOf("type", mistake)}
      </div>
    `;
  }
  return html`
    <fieldset class="ds-fieldset" aria-describedby=${mistake === undefined ? nothing : "type-mistake"}>
      <legend class="ds-label">${text("new.type")}</legend>
      <div class="choices">
        ${scope.types.map(
          (/** @type {any} */ type, /** @type {number} */ position) => html`
            <label class="choice">
              <input class="ds-input" type="radio" name="type" id=${position === 0 ? "type" : nothing} value=${type.activity_type}
                .checked=${draft.type === type.activity_type} @change=${() => choose(type.activity_type)}>
              <span>${type.name}</span>
            </label>
          `,
        )}
      </div>
      ${mistakeOf("type", mistake)}
    </fieldset>
  `;
}

/** @param {any} draft @param {any} mistakes @param {() => void} changed */
function dateField(draft, mistakes, changed) {
  const { today, earliest_date } = draft.rules;
  /** @param {string} date */
  const type = (date) => {
    draft.date = date;
    changed();
  };
  return html`
    <div class="stack">
      ${field({
        id: "date", label: text("new.date"), value: draft.date, change: type,
        // A date with slashes is explained at once, because another one may be meant.
        mistake: draft.date.includes("/") ? mistakeText("slashes") : sentence(mistakes, "date", { earliest: earliest_date === null ? "" : shownDate(earliest_date) }),
        hint: draft.day === null ? text("new.date_hint") : text(`weekday.${weekdayOf(draft.day)}`),
      })}
      <div class="chips">
        ${[today, addDays(today, -1)].map(
          (date, position) => html`
            <button type="button" class="ds-chip" aria-pressed=${draft.day === date} @click=${() => type(shownDate(date))}>
              ${position === 0 ? text("new.today") : text("new.yesterday")}
            </button>
          `,
        )}
      </div>
    </div>
  `;
}

/** @param {any} draft @param {any} scope @param {any} mistakes @param {() => void} changed */
function minutesField(draft, scope, mistakes, changed) {
  const minutes = readMinutes(draft.minutes);
  const shortest = scope.type(draft.type)?.minimum_minutes ?? null;
  const understood = minutes === null ? text("new.minutes_hint") : shownMinutes(minutes, text("new.hour"));
  const isShort = minutes !== null && shortest !== null && minutes < shortest;
  return field({
    id: "minutes", label: text("new.minutes"), value: draft.minutes,
    mistake: sentence(mistakes, "minutes", { most: draft.rules.max_duration_minutes }),
    hint: isShort ? text("new.minutes_short", { understood, shortest }) : understood,
    change: (value) => {
      draft.minutes = value;
      changed();
    },
  });
}
