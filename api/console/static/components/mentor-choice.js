// Choosing mentors of a scope: a search, whole chapters, and a check box for each.

import { field } from "/console/static/components/field.js";
import { shownDate } from "/console/static/dates.js";
import { text } from "/console/static/messages.js";
import { inactivity } from "/console/static/registering/scope.js";
import { html, nothing } from "/console/static/vendored.js";

// More are shown on request, so that a scope of thousands is drawn quickly.
const SHOWN = 100;

/** The part of a page in which mentors are chosen. It keeps the search, and how many are shown. */
export class MentorChoice {
  #words = "";
  #shown = SHOWN;

  /** @param {() => void} changed */
  constructor(changed) {
    this.changed = changed;
  }

  /**
   * @param {import("/console/static/registering/scope.js").Scope} scope
   * @param {Set<string>} chosen ids of mentors, which this changes
   * @param {string | null} day the date on which they have to be active
   * @param {unknown} [more] other ways to choose, beside the chapters
   */
  view(scope, chosen, day, more = nothing) {
    const found = this.#words.trim() === "" ? scope.mentors : scope.search(this.#words);
    const shown = found.slice(0, this.#shown);
    return html`
      <div class="chips">
        ${scope.chapters.map((chapter) => this.#chapter(scope, chosen, day, chapter))}
        ${more}
        ${chosen.size === 0 ? nothing : html`
          <button type="button" class="ds-button" data-variant="tertiary" data-size="sm" @click=${() => this.#change(() => chosen.clear())}>
            ${text("who.none")}
          </button>`}
      </div>
      ${field({
        id: "search", label: text("who.search"), value: this.#words, type: "search",
        change: (value) => {
          this.#words = value;
          this.#shown = SHOWN;
          this.changed();
        },
        key: (event) => this.#key(event, found, chosen, day),
        hint: this.#words.trim() === "" ? nothing : text("who.found", { found: found.length, all: scope.mentors.length }),
      })}
      <ul class="mentors">
        ${shown.map((mentor) => this.#mentor(scope, chosen, day, mentor))}
      </ul>
      ${found.length === shown.length ? nothing : html`
        <p><button type="button" class="ds-button" data-variant="secondary" @click=${() => this.#change(() => { this.#shown += SHOWN; })}>
          ${text("who.more", { rest: found.length - shown.length })}
        </button></p>`}
    `;
  }

  /** @param {() => void} change */
  #change(change) {
    change();
    this.changed();
  }

  /** Enter chooses the only one that was found. @param {KeyboardEvent} event @param {any[]} found @param {Set<string>} chosen @param {string | null} day */
  #key(event, found, chosen, day) {
    if (event.key !== "Enter" || event.ctrlKey || found.length !== 1 || (day !== null && inactivity(found[0], day) !== null)) {
      return;
    }
    event.preventDefault();
    this.#words = "";
    this.#change(() => chosen.add(found[0].mentor_id));
  }

  /** @param {any} scope @param {Set<string>} chosen @param {string | null} day @param {any} chapter */
  #chapter(scope, chosen, day, chapter) {
    const active = scope.mentors.filter(
      (/** @type {any} */ mentor) => mentor.chapter_id === chapter.chapter_id && (day === null || inactivity(mentor, day) === null),
    );
    if (active.length === 0) {
      return nothing;
    }
    const isWhole = active.every((/** @type {any} */ mentor) => chosen.has(mentor.mentor_id));
    const toggle = () => {
      for (const { mentor_id } of active) {
        isWhole ? chosen.delete(mentor_id) : chosen.add(mentor_id);
      }
    };
    return html`
      <button type="button" class="ds-chip" aria-pressed=${isWhole} @click=${() => this.#change(toggle)}>
        ${text("who.chapter", { chapter: chapter.name, count: active.length })}
      </button>
    `;
  }

  /** @param {any} scope @param {Set<string>} chosen @param {string | null} day @param {any} mentor */
  #mentor(scope, chosen, day, mentor) {
    const isChosen = chosen.has(mentor.mentor_id);
    const reason = day === null ? null : inactivity(mentor, day);
    const since = reason === "not_yet" ? mentor.active_from : mentor.active_until;
    const toggle = () => (isChosen ? chosen.delete(mentor.mentor_id) : chosen.add(mentor.mentor_id));
    return html`
      <li>
        <label class="mentor">
          <input class="ds-input" type="checkbox" .checked=${isChosen} ?disabled=${reason !== null && !isChosen} @change=${() => this.#change(toggle)}>
          <span>
            ${mentor.name}
            ${scope.named(mentor.name).length > 1 ? html`<small>${mentor.mentor_id}</small>` : nothing}
            ${reason !== null
              ? html`<small>${text(`who.${reason}`, { since: shownDate(since) })}</small>`
              : scope.chapters.length > 1 ? html`<small>${scope.chapterName(mentor.chapter_id)}</small>` : nothing}
          </span>
        </label>
      </li>
    `;
  }
}
