// The first page: what needs somebody, the groups to register again, and the ten latest batches.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { batchSentence } from "/console/static/components/batch-sentence.js";
import { batchTable } from "/console/static/components/batch-table.js";
import { namesOfPeople } from "/console/static/components/people.js";
import { lastWeekday, shownDate, weekdayOf } from "/console/static/dates.js";
import { text } from "/console/static/messages.js";
import { lastGroups, nameOf } from "/console/static/registering/groups.js";
import { html, nothing } from "/console/static/vendored.js";

const SHOWN = 10;

// The same group is registered again and again, so five groups are among more batches than are shown.
const READ = 30;
const GROUPS = 5;

// An administrator sees the templates of all coordinators. Of many, those whose weekday was last are shown.
const TEMPLATES = 9;

/** @param {import("/console/static/app.js").Context} context */
export async function page(context) {
  const home = new Home(context);
  await home.load();
  home.loadGroups();
  return () => home.view();
}

/** The page's state. */
class Home {
  /** @type {any[]} */
  batches = [];

  /** @type {any[]} */
  needed = [];

  /** How many batches need somebody, shown here or not. */
  allNeeded = 0;

  /** The types of the templates' activities. @type {any[]} */
  types = [];

  /** @type {any[]} */
  templates = [];

  /** @type {{ group: import("/console/static/registering/groups.js").Group, date: string, isWeekly: boolean }[]} */
  groups = [];

  /** @type {import("/console/static/components/people.js").NameOf} */
  nameOfPerson = (subject) => subject;

  /** Whether the groups are still being read. */
  isReading = true;

  /** What was done last, for people who can't see it. */
  said = "";

  /** @param {import("/console/static/app.js").Context} context */
  constructor(context) {
    this.context = context;
    this.action = new Action(context);
    this.maySubmit = context.me.role !== "auditor";
  }

  async load() {
    const [batches, needed, nameOf] = await Promise.all([
      api.batches({ limit: READ }),
      this.maySubmit ? api.batches({ needs_attention: true, limit: SHOWN }) : { data: [], pagination: { total: 0 } },
      namesOfPeople(this.context.me),
    ]);
    this.nameOfPerson = nameOf;
    this.batches = batches.data;
    this.needed = needed.data;
    this.allNeeded = needed.pagination.total;
  }

  /** The groups come after the rest of the page, because they need the batches' items. */
  async loadGroups() {
    if (!this.maySubmit) {
      return;
    }
    try {
      this.templates = await api.templates();
      this.types = this.templates.length === 0 ? [] : await api.activityTypes();
      this.groups = await lastGroups(this.batches, this.templates, this.context.me.organization.today, GROUPS);
    } catch (error) {
      if (!(error instanceof api.Problem)) {
        throw error;
      }
      this.action.run(() => Promise.reject(error));
    }
    this.isReading = false;
    this.context.redraw();
  }

  /** @param {any} batch */
  dismiss(batch) {
    this.action.send(batch.batch_id, async (key) => {
      await api.dismiss(batch.batch_id, key);
      await this.load();
      this.said = text("home.dismissed", { label: batch.label ?? text("batch.no_label") });
      this.context.redraw();
      document.getElementById(this.needed.length === 0 ? "home" : "needs-you")?.focus();
    });
  }

  view() {
    return html`
      <div class="title-row">
        <h1 class="ds-heading" data-size="lg" id="home" tabindex="-1">${text("home.heading")}</h1>
        ${this.maySubmit ? html`<a class="ds-button" href="/console/new">${text("nav.new")}</a>` : nothing}
      </div>
      <div role="status" class="ds-sr-only">${this.said}</div>
      ${this.action.view()}
      ${this.needed.length === 0 ? nothing : this.#needsYou()}
      ${this.groups.length + this.templates.length === 0 ? this.#awaited() : this.#again()}
      <section class="stack" aria-labelledby="latest">
        <h2 class="ds-heading" data-size="sm" id="latest">${text("home.latest")}</h2>
        ${this.batches.length === 0 ? this.#empty() : batchTable(this.batches.slice(0, SHOWN), { me: this.context.me, nameOf: this.nameOfPerson })}
      </section>
    `;
  }

  #empty() {
    return html`
      <p class="ds-paragraph">${text("home.empty")}</p>
      ${this.maySubmit ? html`<p class="ds-paragraph">${text("home.begin")}</p>` : nothing}
    `;
  }

  #needsYou() {
    return html`
      <section class="stack" aria-labelledby="needs-you">
        <h2 class="ds-heading" data-size="sm" id="needs-you" tabindex="-1">${text("home.needs_you")}</h2>
        <ul class="cards">
          ${this.needed.map(
            (batch) => html`
              <li class="ds-card" data-color="warning">
                <div>
                  <a class="ds-link" href="/console/batches/${batch.batch_id}">${batch.label ?? text("batch.no_label")}</a>
                  <p class="ds-paragraph">${batchSentence(batch)}</p>
                </div>
                <div class="buttons">
                  <a class="ds-button" data-size="sm" href="/console/batches/${batch.batch_id}/correct" aria-label=${about(text("home.correct"), batch)}>
                    ${text("home.correct")}
                  </a>
                  <button type="button" class="ds-button" data-size="sm" data-variant="secondary" aria-disabled=${this.action.isBusy}
                    aria-label=${about(text("home.done"), batch)} @click=${() => this.dismiss(batch)}>
                    ${text("home.done")}
                  </button>
                </div>
              </li>
            `,
          )}
        </ul>
        ${this.allNeeded === this.needed.length ? nothing : html`
          <p><a class="ds-link" href="/console/batches?attention=1">${text("home.all_needed", { count: this.allNeeded })}</a></p>`}
      </section>
    `;
  }

  /** The place of the groups, so that the page does not move when they come. */
  #awaited() {
    return this.isReading && this.maySubmit && this.batches.length > 0 ? html`<div class="awaited"></div>` : nothing;
  }

  #again() {
    const today = this.context.me.organization.today;
    return html`
      <section class="stack" aria-labelledby="again">
        <h2 class="ds-heading" data-size="sm" id="again">${text("home.again")}</h2>
        <ul class="cards">
          ${this.#shownTemplates(today).map((template) => {
            const date = template.weekday === null ? today : lastWeekday(template.weekday, today);
            return this.#card(`template=${template.template_id}`, template.name, this.#typeName(template.activity_type), template.mentor_ids.length, date, template.weekday !== null);
          })}
          ${this.groups.map(({ group, date, isWeekly }) =>
            this.#card(`again=${group.batchId}`, nameOf(group) ?? group.typeName, group.typeName, group.mentorIds.length, date, isWeekly),
          )}
        </ul>
        ${this.templates.length <= TEMPLATES ? nothing : html`
          <p><a class="ds-link" href="/console/templates">${text("home.all_templates", { count: this.templates.length })}</a></p>`}
      </section>
    `;
  }

  /** @param {string} today */
  #shownTemplates(today) {
    if (this.templates.length <= TEMPLATES) {
      return this.templates;
    }
    /** @param {any} template */
    const day = ({ weekday }) => (weekday === null ? "" : lastWeekday(weekday, today));
    return [...this.templates].sort((one, other) => day(other).localeCompare(day(one))).slice(0, TEMPLATES);
  }

  /** @param {string} what @param {string} name @param {string} type @param {number} count @param {string} date @param {boolean} isWeekly */
  #card(what, name, type, count, date, isWeekly) {
    const day = { weekday: text(`weekday.${weekdayOf(date)}`), date: shownDate(date) };
    return html`
      <li>
        <a class="ds-card again" href="/console/new?${what}&date=${date}">
          <strong>${name}</strong>
          <span>${text(`home.group.${count === 1 ? "one" : "several"}`, { type, count })}</span>
          <span>${isWeekly ? text("home.weekly", day) : text("home.once", day)}</span>
        </a>
      </li>
    `;
  }

  /** @param {string} type */
  #typeName(type) {
    return this.types.find((each) => each.activity_type === type)?.name ?? type;
  }
}

/** What a button is for, for people who can't see beside which batch it stands. @param {string} label @param {any} batch */
const about = (label, batch) => `${label}: ${batch.label ?? text("batch.no_label")}`;
