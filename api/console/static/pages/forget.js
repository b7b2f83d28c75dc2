// An administrator has a mentor forgotten: first the id, then who that is and what happens, then what has become of it.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { field } from "/console/static/components/field.js";
import { Question } from "/console/static/components/question.js";
import { readDirectory } from "/console/static/directory.js";
import { text } from "/console/static/messages.js";
import { html } from "/console/static/vendored.js";

/** @param {import("/console/static/app.js").Context} context */
export async function page(context) {
  const forgetting = new ForgettingPage(context, await readDirectory(context.me));
  return () => forgetting.view();
}

class ForgettingPage {
  #typed = "";
  #isMissing = false;
  /** The request, once it is made. @type {any} */
  #request = null;

  /** @param {import("/console/static/app.js").Context} context @param {import("/console/static/directory.js").Directory} directory */
  constructor(context, directory) {
    this.context = context;
    this.directory = directory;
    /** Whether the mentor that the person has chosen is forgotten. */
    this.asking = new Question(context);
    this.looking = new Action(context);
  }

  view() {
    return html`
      <nav aria-label=${text("activity.way")}><a class="ds-link" href="/console/activities">${text("activity.to_list")}</a></nav>
      <h1 class="ds-heading" data-size="lg">${text("forget.heading")}</h1>
      <p class="ds-paragraph prose lead">${text("forget.lead")}</p>
      <div class="ds-card one-activity" data-color="neutral">
        ${this.context.me.role !== "admin" ? text("forget.only_admins") : this.#request !== null ? this.#state() : this.asking.about === null ? this.#form() : this.#question(this.asking.about)}
      </div>
    `;
  }

  #form() {
    return html`
      <form class="dialog-form prose" @submit=${(/** @type {Event} */ event) => this.#choose(event)}>
        ${field({
          id: "mentor", label: text("forget.mentor"), hint: text("forget.mentor_hint"), value: this.#typed,
          mistake: this.#isMissing ? text("forget.mentor_missing") : undefined,
          change: (value) => { this.#typed = value; },
        })}
        <p class="buttons"><button type="submit" class="ds-button" data-color="accent">${text("forget.continue")}</button></p>
      </form>
    `;
  }

  /** @param {Event} event */
  #choose(event) {
    event.preventDefault();
    const mentorId = this.#typed.trim();
    this.#isMissing = mentorId === "";
    if (this.#isMissing) {
      this.#show("mentor");
    } else {
      this.asking.ask(mentorId, "state");
    }
  }

  /** @param {string} mentorId */
  #question(mentorId) {
    const { action } = this.asking;
    return html`
      <h2 class="ds-heading" data-size="sm" id="state" tabindex="-1">${text("forget.question", { who: this.#who(mentorId) })}</h2>
      <p class="ds-paragraph">${text("forget.what")}</p>
      ${action.view()}
      <p class="buttons">
        <button type="button" class="ds-button" data-color="danger" aria-disabled=${action.isBusy} @click=${() => this.#ask(mentorId)}>
          ${text("forget.do")}
        </button>
        <button
          type="button" class="ds-button" data-variant="secondary" ?disabled=${action.state === "running"}
          @click=${() => this.asking.leave("mentor")}
        >
          ${text("forget.leave")}
        </button>
      </p>
    `;
  }

  /** The name with the id: it can't be undone, and two people may have one name. @param {string} mentorId */
  #who(mentorId) {
    const name = this.directory.mentorName(mentorId);
    return name === mentorId ? name : `${name} (${mentorId})`;
  }

  /** @param {string} mentorId */
  #ask(mentorId) {
    this.asking.action.run(async () => {
      this.#request = await api.forgetMentor(mentorId);
      this.#typed = "";
      this.asking.leave("state");
    });
  }

  #state() {
    const { state } = this.#request;
    return html`
      <h2 class="ds-heading" data-size="sm" id="state" tabindex="-1">${text(`forget.state.${state}`)}</h2>
      ${this.looking.view()}
      <p class="buttons">
        ${state === "done" || state === "unknown"
          ? html`<button type="button" class="ds-button" data-variant="secondary" @click=${() => { this.#request = null; this.#show("mentor"); }}>
              ${text("forget.another")}
            </button>`
          : html`<button type="button" class="ds-button" data-variant="secondary" aria-disabled=${this.looking.isBusy} @click=${() => this.#look()}>
              ${text("forget.look")}
            </button>`}
      </p>
    `;
  }

  #look() {
    this.looking.run(async () => {
      this.#request = await api.forgetting(this.#request.forgetting_id);
      this.#show("state");
    });
  }

  /** Draws the page, and moves the focus to what is new. @param {string} id */
  #show(id) {
    this.context.redraw();
    document.getElementById(id)?.focus();
  }
}
