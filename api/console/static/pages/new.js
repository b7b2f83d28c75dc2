// A new registration: what, who, exceptions; then the review of what will happen, and the submission.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { activityFields } from "/console/static/components/activity-fields.js";
import { errorSummary } from "/console/static/components/error-summary.js";
import { exceptions } from "/console/static/components/exceptions.js";
import { sentence } from "/console/static/components/field.js";
import { MentorChoice } from "/console/static/components/mentor-choice.js";
import { Reviewing } from "/console/static/components/reviewing.js";
import { shownDate } from "/console/static/dates.js";
import { text } from "/console/static/messages.js";
import { Draft, checkedDate, rulesOf } from "/console/static/registering/draft.js";
import { labelFor, readGroup } from "/console/static/registering/groups.js";
import { Review } from "/console/static/registering/review.js";
import { loadScope } from "/console/static/registering/scope.js";
import { Keys, finish } from "/console/static/registering/sending.js";
import { html, nothing } from "/console/static/vendored.js";

/** @param {import("/console/static/app.js").Context} context */
export async function page(context) {
  const registration = new Registration(context);
  await registration.load();
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      registration.proceed();
    }
  });
  return () => registration.view();
}

/** The page's state. */
class Registration {
  /** Those that an administrator may act for. @type {any[]} */
  coordinators = [];

  /** @type {string | null} */
  coordinatorId = null;

  /** @type {import("/console/static/registering/scope.js").Scope | null} */
  scope = null;

  /** @type {Review | null} the review that is shown instead of the form */
  review = null;

  /** @type {Reviewing | null} */
  reviewing = null;

  /** Mistakes are shown once the person has asked for the review. */
  showsMistakes = false;

  /** The newest batch of the coordinator. @type {any} */
  latest = null;

  /** @param {import("/console/static/app.js").Context} context */
  constructor(context) {
    this.context = context;
    this.action = new Action(context);
    this.draft = new Draft(rulesOf(context.me));
    this.keys = new Keys();
    this.choice = new MentorChoice(() => this.changed());
  }

  changed() {
    this.action.clear();
    this.context.redraw();
  }

  /** Loads what the person chooses from. A group or a template in the address is filled in, and its review is asked for. */
  async load() {
    const { me, query } = this.context;
    const [again, template] = [query.get("again"), query.get("template")];
    const [filling, coordinators] = await Promise.all([
      again !== null ? this.#fromBatch(again) : template !== null ? this.#fromTemplate(template) : null,
      me.role === "coordinator" ? [] : api.coordinators(),
    ]);
    this.coordinators = coordinators.filter((each) => each.role === "coordinator");
    const coordinatorId = me.role === "coordinator" ? me.subject : filling?.coordinatorId ?? null;
    if (coordinatorId !== null) {
      await this.actFor(coordinatorId);
    }
    if (filling !== null && this.scope !== null) {
      this.draft.fill(filling, this.scope);
      this.ask();
    }
  }

  /** The date in the address, or today. */
  get #wanted() {
    const { rules } = this.draft;
    const found = checkedDate(this.context.query.get("date") ?? "", rules);
    return "date" in found ? found.date : rules.today;
  }

  /** @param {string} batchId */
  async #fromBatch(batchId) {
    const group = await readGroup(batchId);
    const date = this.#wanted;
    return group === null ? null : { ...group, date, label: labelFor(group, date) };
  }

  /** @param {string} templateId */
  async #fromTemplate(templateId) {
    const { body } = await api.template(templateId);
    return {
      coordinatorId: body.coordinator_id, type: body.activity_type, minutes: body.duration_minutes, ownMinutes: new Map(),
      mentorIds: body.mentor_ids, label: `${body.name}, ${shownDate(this.#wanted)}`, date: this.#wanted,
    };
  }

  /** Chooses those of the coordinator's last registration. */
  sameAsLast() {
    this.action.run(async () => {
      const group = await readGroup(this.latest.batch_id);
      for (const mentorId of group?.mentorIds ?? []) {
        if (this.scope?.byId.has(mentorId)) {
          this.draft.chosen.add(mentorId);
        }
      }
    });
  }

  /** @param {string} coordinatorId */
  async actFor(coordinatorId) {
    const [scope, latest] = await Promise.all([loadScope(coordinatorId), api.batches({ coordinator_id: coordinatorId, limit: 1 })]);
    this.scope = scope;
    this.latest = latest.data[0] ?? null;
    this.keys.after = this.latest?.batch_id ?? null;
    this.coordinatorId = coordinatorId;
    if (this.scope.types.length === 1) {
      this.draft.choose(this.scope, this.scope.types[0].activity_type);
    }
    for (const mentorId of this.draft.chosen) {
      if (!this.scope.byId.has(mentorId)) {
        this.draft.chosen.delete(mentorId);
      }
    }
  }

  /** Ctrl+Enter: what the button in the footer does. */
  proceed() {
    if (this.action.isBusy || this.scope === null) {
      return;
    }
    if (this.review === null) {
      this.ask();
    } else if (this.review.included.length > 0) {
      this.submit();
    }
  }

  /** Shows the review, or what is wrong with the form. */
  ask() {
    const { draft, scope, context } = this;
    if (scope === null) {
      return;
    }
    this.showsMistakes = true;
    if (draft.mistakes().size > 0) {
      context.redraw();
      document.getElementById("error-summary")?.focus();
      return;
    }
    const shared = { label: draft.label(scope), ...(this.coordinatorId === null ? {} : { coordinator_id: this.coordinatorId }) };
    const review = new Review(draft.items(scope), shared, context.me.features.preview);
    this.action.run(async () => {
      await review.load();
      this.review = review;
      this.reviewing = new Reviewing({
        me: context.me, review, scope, changed: () => this.changed(), changeDate: () => this.changeDate(),
      });
      context.redraw();
      toTop();
    });
  }

  /** Back to the form. */
  back() {
    this.review = null;
    this.changed();
    toTop();
  }

  changeDate() {
    this.back();
    document.getElementById("date")?.focus();
  }

  submit() {
    const { review } = this;
    if (review === null) {
      return;
    }
    this.action.run(async () => {
      const batch = await review.submit((submission) => this.keys.of(submission));
      if (batch === null) {
        this.context.redraw();
        document.getElementById("differences")?.focus();
        return;
      }
      finish();
      location.assign(`/console/batches/${batch.batch_id}`);
    });
  }

  view() {
    return html`
      <h1 class="ds-heading" data-size="lg" id="heading" tabindex="-1">${this.review === null ? text("new.heading") : text("review.heading")}</h1>
      ${this.review === null ? this.#form() : html`${this.#gone()}${this.reviewing?.view()}`}
      ${this.scope === null ? nothing : this.#footer()}
    `;
  }

  #form() {
    const { draft, scope, choice } = this;
    const mistakes = this.showsMistakes ? draft.mistakes() : new Map();
    const changed = () => this.changed();
    return html`
      ${errorSummary([...mistakes.keys()].map((id) => ({ id: id === "who" ? "search" : id, sentence: this.#sentenceOf(mistakes, id) })))}
      ${this.context.me.role === "coordinator" ? nothing : this.#onBehalfOf()}
      ${scope === null ? nothing : html`
        <section class="ds-card" aria-labelledby="what">
          <h2 class="ds-heading" data-size="sm" id="what">${text("new.what")}</h2>
          ${activityFields({ draft, scope, mistakes, changed })}
        </section>
        <section class="ds-card" aria-labelledby="who">
          <h2 class="ds-heading" data-size="sm" id="who">${text("new.who")}</h2>
          ${this.#gone()}
          ${choice.view(scope, draft.chosen, draft.day, this.latest === null ? nothing : html`
            <button type="button" class="ds-chip" @click=${() => this.sameAsLast()}>${text("new.same_as_last")}</button>`)}
        </section>
        ${draft.chosen.size === 0 ? nothing : exceptions({ draft, scope, mistakes, changed })}
      `}
    `;
  }

  #gone() {
    const { gone } = this.draft;
    return gone === 0 ? nothing : html`
      <div class="ds-alert" data-color="info"><p class="ds-paragraph">${text(`new.gone.${gone === 1 ? "one" : "several"}`, { count: gone })}</p></div>`;
  }

  /** @param {Map<string, string>} mistakes @param {string} id */
  #sentenceOf(mistakes, id) {
    const { max_items, max_duration_minutes, earliest_date } = this.draft.rules;
    const earliest = earliest_date === null ? "" : shownDate(earliest_date);
    const values = { count: this.draft.chosen.size, limit: max_items, most: max_duration_minutes, earliest };
    return text("form.of", { field: text(`field.${id.startsWith("minutes-") ? "minutes" : id}`), sentence: sentence(mistakes, id, values) });
  }

  #onBehalfOf() {
    /** @param {Event} event */
    const choose = (event) => {
      const coordinatorId = /** @type {HTMLSelectElement} */ (event.target).value;
      if (coordinatorId !== "") {
        this.action.run(() => this.actFor(coordinatorId));
      }
    };
    return html`
      <section class="ds-card">
        <div class="ds-field">
          <label class="ds-label" for="coordinator">${text("new.on_behalf_of")}</label>
          <select class="ds-input" id="coordinator" @change=${choose}>
            <option value="" ?selected=${this.coordinatorId === null}>${text("new.choose_coordinator")}</option>
            ${this.coordinators.map(
              ({ coordinator_id, name }) => html`<option value=${coordinator_id} ?selected=${coordinator_id === this.coordinatorId}>${name}</option>`,
            )}
          </select>
        </div>
        ${this.scope === null ? this.action.view() : nothing}
      </section>
    `;
  }

  #footer() {
    const { review, draft, action } = this;
    return html`
      <div class="sticky">
        ${action.view()}
        <div class="sticky-row">
          ${review === null
            ? html`
              <span class="count">${text(`new.chosen.${draft.chosen.size === 1 ? "one" : "several"}`, { count: draft.chosen.size })}</span>
              <button type="button" class="ds-button" aria-disabled=${action.isBusy} @click=${() => this.proceed()}>
                ${draft.chosen.size === 0 ? text("new.review_none") : text("new.review", { count: draft.chosen.size })}
              </button>`
            : html`
              <button type="button" class="ds-button" data-variant="secondary" @click=${() => this.back()}>${text("review.back")}</button>
              ${review.included.length === 0
                ? html`<span>${text("review.nobody")}</span>`
                : html`<button type="button" class="ds-button" aria-disabled=${action.isBusy} @click=${() => this.proceed()}>
                    ${text("review.register", { count: review.included.length })}
                  </button>`}`}
        </div>
      </div>
    `;
  }
}

/** The page's other view begins at its heading. */
function toTop() {
  scrollTo(0, 0);
  document.getElementById("heading")?.focus();
}
