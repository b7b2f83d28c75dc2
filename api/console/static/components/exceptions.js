// Exceptions of a draft: other minutes or a note for single mentors.

import { field, sentence } from "/console/static/components/field.js";
import { readMinutes, shownMinutes } from "/console/static/dates.js";
import { text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

/** The part of a page that shows exceptions. It keeps whether it is open: a list of thousands is drawn only for somebody who looks at it. */
export class Exceptions {
  #isOpen = false;

  /** @param {() => void} redraw */
  constructor(redraw) {
    this.redraw = redraw;
  }

  /**
   * @param {object} parts
   * @param {import("/console/static/registering/draft.js").Draft} parts.draft
   * @param {import("/console/static/registering/scope.js").Scope} parts.scope
   * @param {import("/console/static/registering/draft.js").Mistakes} parts.mistakes
   * @param {() => void} parts.changed
   */
  view(parts) {
    return exceptions(parts, this.#isOpen, (isOpen) => {
      this.#isOpen = isOpen;
      this.redraw();
    });
  }
}

/**
 * @param {{ draft: any, scope: any, mistakes: any, changed: () => void }} parts @param {boolean} isOpen
 * @param {(isOpen: boolean) => void} toggled
 */
function exceptions({ draft, scope, mistakes, changed }, isOpen, toggled) {
  const [own, others] = [true, false].map((isOwn) =>
    scope.mentors.filter((/** @type {any} */ { mentor_id }) => draft.chosen.has(mentor_id) && draft.exceptions.has(mentor_id) === isOwn),
  );
  /** @param {Event} event */
  const add = (event) => {
    const select = /** @type {HTMLSelectElement} */ (event.target);
    const mentorId = select.value;
    if (mentorId === "") {
      return;
    }
    draft.exceptions.set(mentorId, { minutes: "", notes: "" });
    select.value = "";
    changed();
    document.getElementById(`minutes-${mentorId}`)?.focus();
  };
  return html`
    <details class="ds-details" ?open=${own.length > 0} @toggle=${(/** @type {any} */ event) => toggled(event.target.open)}>
      <summary>${own.length === 0 ? text("exceptions.heading") : text("exceptions.heading_some", { count: own.length })}</summary>
      <div class="stack">
        ${own.map((/** @type {any} */ mentor) => exception(draft, mentor, mistakes, changed))}
        <div class="ds-field">
          <label class="ds-label" for="exception">${text("exceptions.add")}</label>
          <select class="ds-input" id="exception" @change=${add}>
            <option value="">${text("exceptions.choose")}</option>
            ${(isOpen ? others : []).map((/** @type {any} */ mentor) => html`<option value=${mentor.mentor_id}>${mentor.name}</option>`)}
          </select>
        </div>
      </div>
    </details>
  `;
}

/** @param {any} draft @param {any} mentor @param {any} mistakes @param {() => void} changed */
function exception(draft, mentor, mistakes, changed) {
  const id = mentor.mentor_id;
  const own = draft.exception(id);
  const minutes = readMinutes(own.minutes);
  /** @param {object} values */
  const set = (values) => {
    draft.exceptions.set(id, { ...own, ...values });
    changed();
  };
  const remove = () => {
    draft.exceptions.delete(id);
    changed();
    document.getElementById("exception")?.focus();
  };
  return html`
    <fieldset class="ds-fieldset exception">
      <legend class="ds-label">${mentor.name}</legend>
      <div class="side-by-side">
        ${field({
          id: `minutes-${id}`, label: text("exceptions.minutes"), value: own.minutes, change: (value) => set({ minutes: value }),
          mistake: sentence(mistakes, `minutes-${id}`, { most: draft.rules.max_duration_minutes }),
          hint: minutes === null ? nothing : shownMinutes(minutes, text("new.hour")),
        })}
        ${field({
          id: `notes-${id}`, label: text("exceptions.notes"), value: own.notes, change: (value) => set({ notes: value }),
          longest: draft.rules.max_notes_length,
        })}
        <button type="button" class="ds-button" data-variant="tertiary" @click=${remove}>
          ${text("exceptions.remove")}<span class="ds-sr-only"> ${mentor.name}</span>
        </button>
      </div>
    </fieldset>
  `;
}
