// Exceptions of a draft: other minutes or a note for single mentors.

import { field, mistakeOf, sentence } from "/console/static/components/field.js";
import { MOST_OPTIONS, nameField } from "/console/static/components/one-of-many.js";
import { readMinutes, shownMinutes } from "/console/static/dates.js";
import { text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

/** The part of a page that shows exceptions. It keeps whether it is open: a list of many is drawn only for somebody who looks at it. */
export class Exceptions {
  #isOpen = false;

  /** The name that is being typed. */
  #typed = "";

  /** Whether none of those who are chosen has the name. */
  #isNobody = false;

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
  view({ draft, scope, mistakes, changed }) {
    const [own, others] = [true, false].map((isOwn) =>
      scope.mentors.filter(({ mentor_id }) => draft.chosen.has(mentor_id) && draft.exceptions.has(mentor_id) === isOwn),
    );
    /** @param {string} mentorId */
    const add = (mentorId) => {
      draft.exceptions.set(mentorId, { minutes: "", notes: "" });
      this.#typed = "";
      this.#isNobody = false;
      changed();
      document.getElementById(`minutes-${mentorId}`)?.focus();
    };
    const toggled = (/** @type {any} */ event) => {
      this.#isOpen = event.target.open;
      this.redraw();
    };
    return html`
      <details class="ds-details" ?open=${own.length > 0} @toggle=${toggled}>
        <summary>${own.length === 0 ? text("exceptions.heading") : text("exceptions.heading_some", { count: own.length })}</summary>
        <div class="stack">
          ${own.map((mentor) => exception(draft, mentor, mistakes, changed))}
          <div class="ds-field">
            <label class="ds-label" for="exception">${text("exceptions.add")}</label>
            ${others.length > MOST_OPTIONS ? this.#field(draft, scope, add) : this.#list(others, add)}
            ${mistakeOf("exception", this.#isNobody ? text("exceptions.nobody") : undefined)}
          </div>
        </div>
      </details>
    `;
  }

  /** @param {any[]} others @param {(mentorId: string) => void} add */
  #list(others, add) {
    const choose = (/** @type {any} */ event) => {
      const mentorId = event.target.value;
      if (mentorId !== "") {
        event.target.value = "";
        add(mentorId);
      }
    };
    return html`
      <select class="ds-input" id="exception" @change=${choose}>
        <option value="">${text("exceptions.choose")}</option>
        ${(this.#isOpen ? others : []).map((mentor) => html`<option value=${mentor.mentor_id}>${mentor.name}</option>`)}
      </select>
    `;
  }

  /** @param {any} draft @param {import("/console/static/registering/scope.js").Scope} scope @param {(mentorId: string) => void} add */
  #field(draft, scope, add) {
    /** @param {string} mentorId */
    const isOffered = (mentorId) => draft.chosen.has(mentorId) && !draft.exceptions.has(mentorId);
    return nameField({
      id: "exception", value: this.#typed, isWrong: this.#isNobody,
      proposed: this.#isOpen ? scope.names.proposed(this.#typed, isOffered) : [],
      type: (typed) => {
        this.#typed = typed;
        this.#isNobody = false;
        this.redraw();
      },
      choose: (typed) => {
        const mentorId = scope.names.idOf(typed);
        if (mentorId !== undefined && isOffered(mentorId)) {
          add(mentorId);
        } else {
          this.#isNobody = typed.trim() !== "";
          this.redraw();
        }
      },
    });
  }
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
