// Templates: the groups that are registered again and again. They can be made, changed and deleted.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { activityType } from "/console/static/components/activity-fields.js";
import { field, sentence } from "/console/static/components/field.js";
import { MentorChoice } from "/console/static/components/mentor-choice.js";
import { Question } from "/console/static/components/question.js";
import { errorSummary } from "/console/static/components/error-summary.js";
import { weekdayField } from "/console/static/components/weekday-field.js";
import { readMinutes, shownMinutes } from "/console/static/dates.js";
import { text } from "/console/static/messages.js";
import { Draft, rulesOf } from "/console/static/registering/draft.js";
import { loadScope } from "/console/static/registering/scope.js";
import { html, nothing } from "/console/static/vendored.js";

/** @param {import("/console/static/app.js").Context} context */
export async function page(context) {
  const templates = new Templates(context);
  await templates.load();
  return () => templates.view();
}

/** The page's state. */
class Templates {
  /** @type {any[]} */
  all = [];

  /** @type {any[]} */
  types = [];

  /** The template that is changed, or made. @type {Editor | null} */
  editor = null;

  said = "";

  /** @param {import("/console/static/app.js").Context} context */
  constructor(context) {
    this.context = context;
    this.action = new Action(context);
    /** Whether a template is deleted. */
    this.deleting = new Question(context);
  }

  async load() {
    [this.all, this.types] = await Promise.all([api.templates(), api.activityTypes()]);
  }

  /** Opens the form, unless something else is under way: its outcome would be shown nowhere. @param {any} template null: a new one */
  edit(template) {
    if (this.deleting.isRunning) {
      return;
    }
    this.said = "";
    this.deleting.leave("heading");
    this.action.run(async () => {
      const coordinatorId = template?.coordinator_id ?? this.context.me.subject;
      const [scope, current] = await Promise.all([
        loadScope(coordinatorId), template === null ? { body: null, tag: null } : api.template(template.template_id),
      ]);
      this.editor = new Editor(this.context, scope, current.body, current.tag, (said) => this.#close(said));
      this.context.redraw();
      document.getElementById("heading")?.focus();
    });
  }

  /** @param {string} said what was done */
  async #close(said) {
    await this.load();
    this.editor = null;
    this.said = said;
    this.context.redraw();
    document.getElementById("heading")?.focus();
  }

  /** Deletes it, unless the form is about to open. @param {any} template */
  delete(template) {
    if (this.action.state === "running") {
      return;
    }
    this.deleting.action.run(async () => {
      await api.deleteTemplate(template.template_id, null);
      await this.load();
      this.said = text("template.deleted", { name: template.name });
      this.deleting.leave("heading");
    });
  }

  view() {
    if (this.editor !== null) {
      return this.editor.view();
    }
    const isCoordinator = this.context.me.role === "coordinator";
    return html`
      <div class="title-row">
        <h1 class="ds-heading" data-size="lg" id="heading" tabindex="-1">${text("nav.templates")}</h1>
        ${isCoordinator ? html`<button type="button" class="ds-button" aria-disabled=${this.deleting.isRunning} @click=${() => this.edit(null)}>${text("template.new")}</button>` : nothing}
      </div>
      <p class=${this.said === "" ? "ds-sr-only" : "ds-paragraph"} role="status">${this.said}</p>
      ${this.action.view()}
      ${this.all.length === 0 ? html`<p class="ds-paragraph">${isCoordinator ? text("template.empty") : text("template.none")}</p>` : html`
        <ul class="cards">${this.all.map((template) => html`<li class="ds-card">${this.#card(template)}</li>`)}</ul>`}
    `;
  }

  /** @param {any} template */
  #card(template) {
    const { name, mentor_ids, activity_type, duration_minutes, weekday, template_id } = template;
    const type = this.types.find((each) => each.activity_type === activity_type)?.name ?? activity_type;
    const opener = `delete-${template_id}`;
    return html`
      <div>
        <h2 class="ds-heading" data-size="xs">${name}</h2>
        <p class="ds-paragraph">
          ${text(`home.group.${mentor_ids.length === 1 ? "one" : "several"}`, { type, count: mentor_ids.length })},
          <span class="tabular">${shownMinutes(duration_minutes, text("new.hour"))}</span>
        </p>
        <p class="ds-paragraph">${weekday === null ? text("template.no_weekday") : text("template.every", { weekday: text(`weekday.${weekday}`) })}</p>
      </div>
      <div class="buttons">
        ${this.deleting.about === template_id
          ? this.deleting.view({
            sentence: text("template.really", { name }), yes: text("template.delete"), act: () => this.delete(template), no: text("template.keep"), opener,
          })
          : html`
            <a class="ds-button" data-size="sm" href="/console/new?template=${template_id}" aria-label="${text("template.use")}: ${name}">${text("template.use")}</a>
            <button type="button" class="ds-button" data-size="sm" data-variant="secondary" aria-disabled=${this.deleting.isRunning}
              aria-label="${text("template.edit")}: ${name}" @click=${() => this.edit(template)}>${text("template.edit")}</button>
            <button type="button" class="ds-button" data-size="sm" data-variant="tertiary" id=${opener} aria-disabled=${this.deleting.isRunning}
              aria-label="${text("template.delete")}: ${name}" @click=${() => this.deleting.ask(template_id)}>${text("template.delete")}</button>`}
      </div>
    `;
  }
}

/** A template as a form. */
class Editor {
  showsMistakes = false;

  /**
   * @param {import("/console/static/app.js").Context} context
   * @param {import("/console/static/registering/scope.js").Scope} scope
   * @param {any} template null: a new one @param {string | null} tag
   * @param {(said: string) => Promise<void>} close
   */
  constructor(context, scope, template, tag, close) {
    this.context = context;
    this.scope = scope;
    this.template = template;
    this.tag = tag;
    this.close = close;
    this.action = new Action(context);
    this.choice = new MentorChoice(() => this.changed());
    this.name = template?.name ?? "";
    /** @type {number | null} */
    this.weekday = template?.weekday ?? null;
    this.draft = new Draft(rulesOf(context.me));
    if (template !== null) {
      this.draft.type = template.activity_type;
      this.draft.minutes = String(template.duration_minutes);
      this.draft.chosen = new Set(template.mentor_ids);
    }
  }

  changed() {
    this.action.clear();
    this.context.redraw();
  }

  /** @returns {import("/console/static/registering/draft.js").Mistakes} */
  get mistakes() {
    const found = this.draft.mistakes();
    if (this.name.trim() === "") {
      found.set("name", "empty");
    }
    return found;
  }

  save() {
    this.showsMistakes = true;
    if (this.mistakes.size > 0) {
      this.context.redraw();
      document.getElementById("error-summary")?.focus();
      return;
    }
    const { draft } = this;
    const values = {
      name: this.name.trim(), mentor_ids: [...draft.chosen], activity_type: draft.type, duration_minutes: readMinutes(draft.minutes), weekday: this.weekday,
    };
    this.action.send(values, async (key) => {
      if (this.template === null) {
        await api.createTemplate(values, key);
      } else {
        await api.replaceTemplate(this.template.template_id, values, this.tag);
      }
      await this.close(text("template.saved", { name: values.name }));
    });
  }

  view() {
    const { draft, scope } = this;
    const mistakes = this.showsMistakes ? this.mistakes : new Map();
    const changed = () => this.changed();
    const minutes = readMinutes(draft.minutes);
    return html`
      <h1 class="ds-heading" data-size="lg" id="heading" tabindex="-1">${this.template === null ? text("template.new") : text("template.change")}</h1>
      ${errorSummary([...mistakes.keys()].map((id) => ({
        id: id === "who" ? "search" : id,
        sentence: text("form.of", { field: text(`field.${id}`), sentence: sentence(mistakes, id, { most: draft.rules.max_duration_minutes }) }),
      })))}
      <section class="ds-card" aria-labelledby="what">
        <h2 class="ds-heading" data-size="sm" id="what">${text("new.what")}</h2>
        ${field({
          id: "name", label: text("template.name"), value: this.name, mistake: sentence(mistakes, "name"), longest: 200,
          change: (value) => {
            this.name = value;
            changed();
          },
        })}
        ${activityType(draft, scope, mistakes, changed)}
        <div class="side-by-side">
          ${field({
            id: "minutes", label: text("new.minutes"), value: draft.minutes, mistake: sentence(mistakes, "minutes", { most: draft.rules.max_duration_minutes }),
            hint: minutes === null ? text("new.minutes_hint") : shownMinutes(minutes, text("new.hour")),
            change: (value) => {
              draft.minutes = value;
              changed();
            },
          })}
          ${weekdayField(this.weekday, (weekday) => {
            this.weekday = weekday;
          })}
        </div>
      </section>
      <section class="ds-card" aria-labelledby="who">
        <h2 class="ds-heading" data-size="sm" id="who">${text("new.who")}</h2>
        ${this.choice.view(scope, draft.chosen, draft.day)}
      </section>
      <div class="sticky">
        ${this.action.view()}
        <div class="sticky-row">
          <span class="count">${text(`new.chosen.${draft.chosen.size === 1 ? "one" : "several"}`, { count: draft.chosen.size })}</span>
          <button type="button" class="ds-button" data-variant="secondary" ?disabled=${this.action.state === "running"}
            @click=${() => this.action.run(() => this.close(""))}>${text("template.cancel")}</button>
          <button type="button" class="ds-button" aria-disabled=${this.action.isBusy} @click=${() => this.save()}>${text("template.save")}</button>
        </div>
      </div>
    `;
  }
}
