// Webhooks: where the organization's systems are told of events. Administrators make, test and delete them; auditors only look.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { Deliveries } from "/console/static/components/deliveries.js";
import { focusOn } from "/console/static/components/dialog.js";
import { field, mistakeOf } from "/console/static/components/field.js";
import { Question } from "/console/static/components/question.js";
import { mistakeText, moment, text } from "/console/static/messages.js";
import { readDirectory } from "/console/static/directory.js";
import { html, nothing } from "/console/static/vendored.js";

const EVENTS = ["BatchCompleted", "BatchRejected", "ActivitiesRevoked"];

/** @param {import("/console/static/app.js").Context} context */
export async function page(context) {
  const webhooks = new Webhooks(context, await readDirectory(context.me));
  await webhooks.load();
  return () => webhooks.view();
}

/** The page's state. */
class Webhooks {
  /** @type {any[]} */
  all = [];

  /** What was done with webhooks, newest first. @type {any[]} */
  changes = [];

  /** The webhook that was just made or whose secret was, with its secret. @type {any | null} */
  shown = null;

  /** The open lists of deliveries, by webhook. @type {Map<string, Deliveries>} */
  opened = new Map();

  said = "";
  url = "";
  /** @type {Set<string>} */
  events = new Set(["BatchCompleted"]);
  /** @type {{ url?: string, events?: string }} the sentence for each field that can't be used */
  mistakes = {};

  /** @param {import("/console/static/app.js").Context} context @param {import("/console/static/directory.js").Directory} directory */
  constructor(context, directory) {
    this.context = context;
    this.directory = directory;
    this.creating = new Action(context);
    this.action = new Action(context);
    /** Whether a webhook is deleted. */
    this.deleting = new Question(context);
  }

  get mayChange() {
    return this.context.me.role === "admin";
  }

  async load() {
    this.all = (await api.webhooks()).data;
    this.changes = (await api.webhookChanges()).data;
    for (const webhook of this.all) {
      this.opened.get(webhook.webhook_id)?.renew(webhook);
    }
  }

  /** @param {string} at */
  #time(at) {
    return moment(at, this.context.me.organization.time_zone);
  }

  // --- What a person does ---

  changed() {
    this.mistakes = {};
    this.creating.clear();
    this.context.redraw();
  }

  /** @param {Event} event */
  create(event) {
    event.preventDefault();
    const url = this.url.trim();
    this.mistakes = {};
    if (!/^https?:\/\/[^\s/]/.test(url)) {
      this.mistakes.url = mistakeText("url_not_allowed");
    }
    if (this.events.size === 0) {
      this.mistakes.events = text("webhook.events_missing");
    }
    this.context.redraw();
    if (this.mistakes.url !== undefined || this.mistakes.events !== undefined) {
      focusOn(this.mistakes.url !== undefined ? "url" : EVENTS[0]);
      return;
    }
    const webhook = { url, events: EVENTS.filter((each) => this.events.has(each)) };
    this.creating.send(webhook, async (key) => {
      try {
        this.shown = await api.createWebhook(webhook, key);
      } catch (error) {
        const refused = error instanceof api.Problem ? error.values.errors?.find((/** @type {any} */ each) => each.pointer === "/url") : undefined;
        if (refused === undefined) {
          throw error;
        }
        this.mistakes.url = mistakeText(refused.code);
        this.context.redraw();
        focusOn("url");
        return;
      }
      await this.load();
      this.url = "";
      this.said = "";
      this.context.redraw();
      focusOn("secret-heading");
    });
  }

  /** @param {any} webhook */
  rotate(webhook) {
    this.action.send(webhook.webhook_id, async (key) => {
      this.shown = await api.rotateWebhookSecret(webhook.webhook_id, key);
      await this.load();
      this.context.redraw();
      focusOn("secret-heading");
    });
  }

  /** @param {any} webhook */
  enable(webhook) {
    this.action.run(async () => {
      await api.enableWebhook(webhook.webhook_id);
      await this.load();
      this.said = text("webhook.enabled", { url: webhook.url });
      this.context.redraw();
      focusOn("heading");
    });
  }

  /** @param {any} webhook */
  test(webhook) {
    this.action.run(async () => {
      await api.testWebhook(webhook.webhook_id);
      await this.#open(webhook);
      this.opened.get(webhook.webhook_id)?.follow();
    });
  }

  /** @param {any} webhook */
  delete(webhook) {
    this.deleting.action.run(async () => {
      await api.deleteWebhook(webhook.webhook_id);
      if (this.shown?.webhook_id === webhook.webhook_id) {
        this.shown = null;
      }
      await this.load();
      this.said = text("webhook.deleted", { url: webhook.url });
      this.deleting.leave("heading");
    });
  }

  /** @param {any} webhook */
  async #open(webhook) {
    const deliveries = new Deliveries(this.context, webhook, this.mayChange, () => this.load());
    await deliveries.load();
    this.opened.set(webhook.webhook_id, deliveries);
    this.context.redraw();
    focusOn(`deliveries-${webhook.webhook_id}`);
  }

  /** @param {any} webhook */
  toggle(webhook) {
    const open = this.opened.get(webhook.webhook_id);
    if (open !== undefined) {
      open.action.clear();
      this.opened.delete(webhook.webhook_id);
      this.context.redraw();
      return;
    }
    this.action.runLast(() => this.#open(webhook));
  }

  // --- What it looks like ---

  view() {
    return html`
      <h1 class="ds-heading" data-size="lg" id="heading" tabindex="-1">${text("nav.webhooks")}</h1>
      <p class="ds-paragraph prose lead">${text("webhook.lead")}</p>
      <p class=${this.said === "" ? "ds-sr-only" : "ds-paragraph"} role="status">${this.said}</p>
      ${this.shown === null ? nothing : this.#secret(this.shown)}
      ${this.action.view()}
      ${this.all.length === 0
        ? html`<p class="ds-paragraph">${text("webhook.empty")}</p>`
        : html`<ul class="webhooks">${this.all.map((webhook) => html`<li class="ds-card">${this.#card(webhook)}</li>`)}</ul>`}
      ${this.mayChange ? this.#form() : nothing}
      ${this.changes.length === 0 ? nothing : this.#history()}
    `;
  }

  /** Who did what, also with webhooks that were deleted. */
  #history() {
    return html`
      <section aria-labelledby="history">
        <h2 class="ds-heading" data-size="sm" id="history">${text("webhook.changes")}</h2>
        <ol class="trail">
          ${this.changes.map(
            (change) => html`
              <li>
                <h3 class="ds-heading" data-size="2xs">${text(`webhook.change.${change.change}`)}</h3>
                <p class="ds-paragraph subtle">
                  ${this.#time(change.changed_at)}, ${change.change === "disabled" ? text("webhook.by_system") : this.directory.coordinatorName(change.changed_by)}
                </p>
                <p class="ds-paragraph">${change.url}</p>
              </li>
            `,
          )}
        </ol>
      </section>
    `;
  }

  /** @param {any} webhook */
  #secret(webhook) {
    const hide = () => {
      this.shown = null;
      this.context.redraw();
      focusOn("heading");
    };
    return html`
      <section class="ds-card" data-color="success" aria-labelledby="secret-heading">
        <h2 class="ds-heading" data-size="sm" id="secret-heading" tabindex="-1">${text("webhook.secret")}</h2>
        <p class="ds-paragraph prose">${text("webhook.secret_how", { url: webhook.url })}</p>
        <p class="secret"><code>${webhook.secret}</code></p>
        ${webhook.previous_secret_until === null
          ? nothing
          : html`<p class="ds-paragraph">${text("webhook.previous", { until: this.#time(webhook.previous_secret_until) })}</p>`}
        <p class="buttons"><button type="button" class="ds-button" data-variant="secondary" @click=${hide}>${text("webhook.secret_stored")}</button></p>
      </section>
    `;
  }

  /** @param {any} webhook */
  #card(webhook) {
    const { webhook_id, url, events } = webhook;
    const deliveries = this.opened.get(webhook_id);
    return html`
      <div class="title-row">
        <h2 class="ds-heading" data-size="xs">${url}</h2>
        ${state(webhook)}
      </div>
      <ul class="ds-list">${events.map((/** @type {string} */ event) => html`<li>${text(`webhook.event.${event}`)}</li>`)}</ul>
      ${this.#trouble(webhook)}
      ${webhook.previous_secret_until === null
        ? nothing
        : html`<p class="ds-paragraph subtle">${text("webhook.previous", { until: this.#time(webhook.previous_secret_until) })}</p>`}
      <div class="buttons">${this.#buttons(webhook, deliveries !== undefined)}</div>
      ${deliveries === undefined ? nothing : deliveries.view()}
    `;
  }

  /** @param {any} webhook */
  #trouble(webhook) {
    if (!webhook.enabled) {
      const why = text(`webhook.disabled.${webhook.disabled_because}`, { since: this.#time(webhook.disabled_at) });
      return html`<p class="ds-alert" data-color="danger">${why}</p>`;
    }
    return webhook.failing_since === null
      ? nothing
      : html`<p class="ds-alert" data-color="warning">${text("webhook.failing", { since: this.#time(webhook.failing_since) })}</p>`;
  }

  /** @param {any} webhook @param {boolean} isOpen */
  #buttons(webhook, isOpen) {
    const { webhook_id, url } = webhook;
    /** @param {string} label @param {() => void} act @param {string} [variant] @param {string} [id] @param {boolean} [isDisabled] */
    const button = (label, act, variant = "secondary", id, isDisabled = false) => html`
      <button type="button" class="ds-button" data-size="sm" data-variant=${variant} id=${id ?? nothing} aria-disabled=${isDisabled} aria-label="${label}: ${url}"
        @click=${act}>
        ${label}
      </button>`;
    const shows = html`
      <button type="button" class="ds-button" data-size="sm" data-variant="secondary" aria-expanded=${isOpen}
        aria-label="${text("webhook.deliveries")}: ${url}" @click=${() => this.toggle(webhook)}>${text("webhook.deliveries")}</button>`;
    if (!this.mayChange) {
      return shows;
    }
    const opener = `delete-${webhook_id}`;
    if (this.deleting.about === webhook_id) {
      return this.deleting.view({
        sentence: text("webhook.really"), yes: text("webhook.delete"), act: () => this.delete(webhook), no: text("webhook.keep"), opener,
      });
    }
    return html`
      ${webhook.enabled ? button(text("webhook.test"), () => this.test(webhook), "primary") : button(text("webhook.enable"), () => this.enable(webhook), "primary")}
      ${shows}
      ${button(text("webhook.rotate"), () => this.rotate(webhook))}
      ${button(text("webhook.delete"), () => this.deleting.ask(webhook_id), "tertiary", opener, this.deleting.isRunning)}
    `;
  }

  #form() {
    return html`
      <form class="ds-card webhook-form" novalidate @submit=${(/** @type {Event} */ event) => this.create(event)}>
        <h2 class="ds-heading" data-size="sm">${text("webhook.new")}</h2>
        ${field({
          id: "url", label: text("webhook.url"), value: this.url, mistake: this.mistakes.url, hint: text("webhook.url_hint"), type: "url", longest: 2000,
          change: (value) => {
            this.url = value;
            this.changed();
          },
        })}
        <fieldset class="ds-fieldset" aria-describedby=${this.mistakes.events === undefined ? nothing : "events-mistake"}>
          <legend class="ds-label">${text("webhook.events")}</legend>
          ${EVENTS.map(
            (event) => html`
              <div class="ds-field">
                <input class="ds-input" type="checkbox" id=${event} .checked=${this.events.has(event)} @change=${() => {
                  if (!this.events.delete(event)) {
                    this.events.add(event);
                  }
                  this.changed();
                }}>
                <label class="ds-label" data-weight="regular" for=${event}>${text(`webhook.event.${event}`)}</label>
              </div>`,
          )}
          ${mistakeOf("events", this.mistakes.events)}
        </fieldset>
        ${this.creating.view()}
        <p class="buttons"><button type="submit" class="ds-button" aria-disabled=${this.creating.isBusy}>${text("webhook.create")}</button></p>
      </form>
    `;
  }
}

/** @param {any} webhook */
function state({ enabled, failing_since }) {
  const [color, name] = !enabled ? ["danger", "off"] : failing_since === null ? ["success", "on"] : ["warning", "trouble"];
  return html`<span class="ds-tag" data-color=${color}>${text(`webhook.state.${name}`)}</span>`;
}
