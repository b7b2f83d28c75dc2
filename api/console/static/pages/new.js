// A new registration: what, who, exceptions; then the review of what will happen, and the submission.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { activityFields } from "/console/static/components/activity-fields.js";
import { errorSummary } from "/console/static/components/error-summary.js";
import { SaveTemplate } from "/console/static/components/save-template.js";
import { Exceptions } from "/console/static/components/exceptions.js";
import { sentence } from "/console/static/components/field.js";
import { FileChoice } from "/console/static/components/file-choice.js";
import { listRemarks } from "/console/static/components/list-remarks.js";
import { MentorChoice } from "/console/static/components/mentor-choice.js";
import { Reviewing } from "/console/static/components/reviewing.js";
import { RowTable } from "/console/static/components/row-table.js";
import { lastWeekday, readDate, shownDate } from "/console/static/dates.js";
import { counted, text } from "/console/static/messages.js";
import { Draft, rulesOf } from "/console/static/registering/draft.js";
import { groupOf, labelFor, wholeBatch } from "/console/static/registering/groups.js";
import { rowsAgain } from "/console/static/registering/rows.js";
import { refusedFields } from "/console/static/registering/refusals.js";
import { Review } from "/console/static/registering/review.js";
import { loadScope } from "/console/static/registering/scope.js";
import { Keys, finish, unfinished } from "/console/static/registering/sending.js";
import { html, nothing } from "/console/static/vendored.js";

// The person's own newest batch is found among so many of the organization's.
const NEWEST = 50;

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

/**
 * @typedef {object} Again what is filled in from a batch or a template: a group, or rows
 * @property {string} coordinatorId
 * @property {string} date
 * @property {import("/console/static/registering/draft.js").Filling} [filling]
 * @property {import("/console/static/registering/rows.js").Rows} [rows]
 */

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

  /** The review of which items are sent. @type {Review | null} */
  #asking = null;

  /** The newest batch that this person has submitted. @type {any} */
  newest = null;

  /** Whether a submission was under way when the page was last left, and has not arrived. */
  isUnfinished = false;

  /** Values that the server has refused, until the form is changed. @type {Map<string, string>} */
  refused = new Map();

  /** What was done last, if it is easily overlooked. */
  said = "";

  /** Remarks on the list that was taken over last. @type {import("/console/static/registering/rows.js").Remark[]} */
  remarks = [];

  /** How often the person has changed the form. */
  edits = 0;

  /** Mistakes are shown once the person has asked for the review. */
  showsMistakes = false;

  /** The submission that arrived although the page was left. @type {any} */
  arrived = null;

  /** The newest batch of the coordinator. @type {any} */
  latest = null;

  /** @param {import("/console/static/app.js").Context} context */
  constructor(context) {
    this.context = context;
    this.action = new Action(context);
    this.draft = new Draft(rulesOf(context.me));
    this.keys = new Keys();
    this.exceptions = new Exceptions(context.redraw);
    this.choice = new MentorChoice(() => this.changed());
    this.table = new RowTable(() => this.changed());
    this.template = new SaveTemplate(context);
    this.files = new FileChoice({
      me: context.me, action: this.action, isOpen: () => this.scope !== null && this.review === null, take: (rows) => this.take(rows),
    });
  }

  changed() {
    this.edits += 1;
    this.action.clear();
    this.template.action.clear();
    this.refused = new Map();
    this.said = "";
    this.context.redraw();
  }

  /** Loads what the person chooses from. A group or a template in the address is filled in, and its review is asked for. */
  async load() {
    const { me, query } = this.context;
    const [again, template] = [query.get("again"), query.get("template")];
    const [asked, coordinators, newest] = await Promise.all([
      again !== null ? this.#fromBatch(again) : template !== null ? this.#fromTemplate(template) : null,
      me.role === "coordinator" ? [] : api.coordinators(),
      api.batches({ limit: NEWEST }),
    ]);
    this.newest = newest.data.find((/** @type {any} */ batch) => batch.submitted_by === me.subject) ?? null;
    this.#resume();
    this.coordinators = coordinators.filter((each) => each.role === "coordinator");
    const coordinatorId = me.role === "coordinator" ? me.subject : asked?.coordinatorId ?? null;
    if (coordinatorId !== null) {
      await this.actFor(coordinatorId);
    }
    if (asked === null || this.scope === null) {
      return;
    }
    this.draft.date = shownDate(asked.date);
    if (asked.filling !== undefined) {
      this.draft.fill(asked.filling, this.scope);
      this.ask();
    } else if (asked.rows !== undefined) {
      this.take(asked.rows);
    }
  }

  /** Finds out what became of a submission that was under way when the page was left. */
  #resume() {
    const kept = unfinished();
    if (kept !== null) {
      this.isUnfinished = (this.newest?.batch_id ?? null) === kept.after;
      this.arrived = this.isUnfinished ? null : this.newest;
      if (!this.isUnfinished) {
        finish();
        this.keys.renew();
      }
    }
    this.keys.after = this.newest?.batch_id ?? null;
  }

  #left() {
    if (this.arrived !== null) {
      return html`
        <div class="ds-alert" data-color="success">
          <p class="ds-paragraph">${text("new.arrived")}
            <a class="ds-link" href="/console/batches/${this.arrived.batch_id}">${this.arrived.label ?? text("batch.no_label")}</a></p>
        </div>`;
    }
    return this.isUnfinished ? html`<div class="ds-alert" data-color="warning"><p class="ds-paragraph">${text("new.not_arrived")}</p></div>` : nothing;
  }

  /** The date in the address, or today. One that can't be registered stays, and the form says why: another day was not meant. */
  get #wanted() {
    const { today } = this.draft.rules;
    const found = readDate(this.context.query.get("date") ?? "", today);
    return "date" in found ? found.date : today;
  }

  /** A batch with several types or dates, or with a mentor twice, comes as rows. @param {string} batchId @returns {Promise<Again>} */
  async #fromBatch(batchId) {
    const batch = await wholeBatch(batchId);
    const [group, date] = [groupOf(batch), this.#wanted];
    return group === null
      ? { coordinatorId: batch.coordinator_id, date, rows: rowsAgain(batch) }
      : { coordinatorId: group.coordinatorId, date, filling: { ...group, date, label: labelFor(group, date) } };
  }

  /** @param {string} templateId @returns {Promise<Again>} */
  async #fromTemplate(templateId) {
    const { body } = await api.template(templateId);
    const date = this.context.query.has("date") || body.weekday === null ? this.#wanted : lastWeekday(body.weekday, this.draft.rules.today);
    const filling = {
      type: body.activity_type, minutes: body.duration_minutes, ownMinutes: new Map(), mentorIds: body.mentor_ids,
      label: `${body.name}, ${shownDate(date)}`, date,
    };
    return { coordinatorId: body.coordinator_id, date, filling };
  }

  /** Chooses those of the coordinator's last registration. */
  sameAsLast() {
    this.action.run(async () => {
      for (const { mentor_id } of (await wholeBatch(this.latest.batch_id)).items) {
        if (this.scope?.byId.has(mentor_id)) {
          this.draft.chosen.add(mentor_id);
        }
      }
    });
  }

  /** Takes over a list. One that only says who chooses those mentors. @param {import("/console/static/registering/rows.js").Rows} rows */
  take(rows) {
    const { draft, scope } = this;
    if (scope === null) {
      return;
    }
    rows.check(draft, scope);
    this.remarks = rows.remarks;
    if (rows.isNamesOnly) {
      const ids = rows.shown.map((row) => row.mentorOf(scope));
      draft.chosen = new Set(ids);
      this.said = counted("file.chosen", draft.chosen.size, { count: draft.chosen.size });
    } else {
      rows.mistakesFirst();
      draft.rows = rows;
      this.said = "";
    }
    this.context.redraw();
    document.getElementById(draft.rows === null ? "who" : "rows")?.focus();
  }

  /** Back to choosing mentors. */
  dropRows() {
    this.draft.rows = null;
    this.remarks = [];
    this.changed();
    document.getElementById("search")?.focus();
  }

  /** @param {string} coordinatorId */
  async actFor(coordinatorId) {
    const [scope, latest] = await Promise.all([loadScope(coordinatorId), api.batches({ coordinator_id: coordinatorId, limit: 1 })]);
    this.scope = scope;
    this.latest = latest.data[0] ?? null;
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

  /** Shows the review, or what is wrong with the form. If the person changes the form meanwhile, the review of the new values is shown. */
  async ask() {
    const { draft, scope, context } = this;
    if (scope === null) {
      return;
    }
    this.showsMistakes = true;
    let seen = this.edits;
    await this.#run(async () => {
      draft.rows?.check(draft, scope);
      if (draft.mistakes().size > 0) {
        context.redraw();
        document.getElementById("error-summary")?.focus();
        return;
      }
      const label = draft.label(scope).trim();
      const shared = { ...(label === "" ? {} : { label }), ...(this.coordinatorId === null ? {} : { coordinator_id: this.coordinatorId }) };
      const review = new Review(draft.items(scope), shared, context.me.features.preview);
      this.#asking = review;
      seen = this.edits;
      await review.load();
      if (seen !== this.edits) {
        return;
      }
      this.review = review;
      this.reviewing = new Reviewing({
        me: context.me, review, scope, changed: () => this.changed(), changeDate: () => this.changeDate(),
      });
      context.redraw();
      toTop();
    });
    if (seen !== this.edits && this.review === null && this.action.problem === null) {
      await this.ask();
    }
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
    this.#asking = review;
    this.#run(async () => {
      const batch = await this.#sent(review);
      if (batch === null) {
        this.context.redraw();
        document.getElementById("differences")?.focus();
        return;
      }
      finish();
      location.assign(`/console/batches/${batch.batch_id}`);
    });
  }

  /** Submits. A key that was kept from before a reload may belong to another list: then this one gets a new key. @param {Review} review */
  async #sent(review) {
    try {
      return await review.submit((submission) => this.keys.of(submission));
    } catch (error) {
      if (!(error instanceof api.Problem) || error.code !== "idempotency_key_reused") {
        throw error;
      }
      this.keys.renew();
      return await review.submit((submission) => this.keys.of(submission));
    }
  }

  /** Runs something that sends the items of `#asking`. Values that are refused are shown at their fields. @param {() => Promise<void>} work */
  #run(work) {
    return this.action.run(async () => {
      try {
        await work();
      } catch (error) {
        if (error instanceof api.Problem && error.code === "invalid_request") {
          this.refused = refusedFields(error.values.errors, this.draft, this.#asking?.sent ?? []);
          this.review = null;
          this.showsMistakes = true;
          this.context.redraw();
          document.getElementById("error-summary")?.focus();
        }
        throw error;
      }
    });
  }

  view() {
    return html`
      <h1 class="ds-heading" data-size="lg" id="heading" tabindex="-1">${this.review === null ? text("new.heading") : text("review.heading")}</h1>
      ${this.review === null ? this.#form() : html`${this.#gone()}${this.reviewing?.view()}`}
      ${this.scope === null || this.scope.mentors.length === 0 ? nothing : this.#footer()}
    `;
  }

  #form() {
    const { draft, scope, choice } = this;
    const mistakes = this.showsMistakes ? new Map([...this.refused, ...draft.mistakes()]) : new Map();
    const changed = () => this.changed();
    return html`
      ${errorSummary([...mistakes.keys()].map((id) => ({ id: id === "who" ? "search" : id, sentence: this.#sentenceOf(mistakes, id) })))}
      ${this.#left()}
      ${this.context.me.role === "coordinator" ? nothing : this.#onBehalfOf()}
      ${scope === null ? nothing : scope.mentors.length === 0 ? html`<div class="ds-alert" data-color="info"><p class="ds-paragraph">${this.context.me.role === "coordinator" ? text("new.no_mentors") : text("new.no_mentors_for")}</p></div>` : html`
        <section class="ds-card" aria-labelledby="what">
          <h2 class="ds-heading" data-size="sm" id="what">${text("new.what")}</h2>
          ${activityFields({ draft, scope, mistakes, changed })}
        </section>
        ${listRemarks(this.remarks)}
        ${draft.rows === null ? nothing : html`
          <section class="ds-card" aria-labelledby="list">
            <div class="title-row">
              <h2 class="ds-heading" data-size="sm" id="list">${text("rows.heading")}</h2>
              <button type="button" class="ds-button" data-variant="secondary" data-size="sm" @click=${() => this.dropRows()}>${text("rows.drop")}</button>
            </div>
            ${this.table.view(draft, scope)}
          </section>`}
        <section class="ds-card" aria-labelledby="who" ?hidden=${draft.rows !== null}>
          <h2 class="ds-heading" data-size="sm" id="who" tabindex="-1">${text("new.who")}</h2>
          <p class=${this.said === "" ? "ds-sr-only" : "ds-paragraph"} role="status">${this.said}</p>
          ${this.files.view()}
          ${this.#gone()}
          ${choice.view(scope, draft.chosen, draft.day, this.latest === null ? nothing : html`
            <button type="button" class="ds-chip" @click=${() => this.sameAsLast()}>${text("new.same_as_last")}</button>`)}
        </section>
        ${draft.chosen.size === 0 || draft.rows !== null ? nothing : html`
          ${this.exceptions.view({ draft, scope, mistakes, changed })}
          ${this.template.view(draft, this.coordinatorId)}`}
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
    const values = { count: this.draft.count, wrong: this.draft.rows?.wrong.length, limit: max_items, most: max_duration_minutes, earliest };
    return text("form.of", { field: text(`field.${id.split("-")[0]}`), sentence: sentence(mistakes, id, values) });
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
              <span class="count">${text(`new.chosen.${draft.count === 1 ? "one" : "several"}`, { count: draft.count })}</span>
              <button type="button" class="ds-button" aria-disabled=${action.isBusy} @click=${() => this.proceed()}>
                ${draft.count === 0 ? text("new.review_none") : text("new.review", { count: draft.count })}
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
