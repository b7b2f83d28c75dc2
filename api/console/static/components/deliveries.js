// The deliveries of a webhook: what was sent when, and what the receiver responded.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { moment, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

const PAGE = 20;

// A test is sent within a second, and a receiver has ten seconds.
const LOOK_EVERY_MS = 1000;
const MOST_LOOKS = 15;

const COLORS = { delivered: "success", failed: "danger", pending: "info" };

export class Deliveries {
  /** @type {any[]} */
  listed = [];
  /** @type {string | null} */
  cursor = null;
  said = "";

  /**
   * @param {import("/console/static/app.js").Context} context @param {any} webhook @param {boolean} mayChange
   * @param {() => Promise<void>} ended called when deliveries may have ended, which may have disabled the webhook
   */
  constructor(context, webhook, mayChange, ended) {
    this.context = context;
    this.webhook = webhook;
    this.mayChange = mayChange;
    this.ended = ended;
    this.action = new Action(context);
  }

  /** @param {any} webhook as it is now */
  renew(webhook) {
    this.webhook = webhook;
  }

  async load(unattended = false) {
    const found = await api.deliveries(this.webhook.webhook_id, { limit: PAGE }, unattended);
    this.listed = found.data;
    this.cursor = found.next_cursor;
  }

  lookAgain() {
    this.action.run(async () => {
      await this.load();
      await this.ended();
    });
  }

  more() {
    this.action.run(async () => {
      const found = await api.deliveries(this.webhook.webhook_id, { limit: PAGE, cursor: this.cursor });
      this.listed.push(...found.data);
      this.cursor = found.next_cursor;
    });
  }

  /** Looks again, until the newest delivery has ended, and says what became of it. Looks at least once: it may have ended before it was listed. */
  follow(looks = MOST_LOOKS) {
    setTimeout(async () => {
      try {
        await this.load(true);
        if (this.listed[0]?.attempts > 0) {
          await this.ended();
        }
      } catch (error) {
        if (error instanceof api.Problem) {
          return; // the page shows what it knows; the person can look again
        }
        throw error;
      }
      const [newest] = this.listed;
      const isPending = newest === undefined || newest.state === "pending";
      this.said = isPending ? "" : sentence(newest);
      this.context.redraw();
      if (isPending && looks > 1) {
        this.follow(looks - 1);
      }
    }, LOOK_EVERY_MS);
  }

  /** @param {any} delivery */
  redeliver(delivery) {
    this.action.run(async () => {
      await api.redeliver(this.webhook.webhook_id, delivery.event_id);
      await this.load();
      this.said = text("webhook.sent_again");
      this.follow();
    });
  }

  view() {
    return html`
      <div class="deliveries">
        <h3 class="ds-heading" data-size="2xs" id="deliveries-${this.webhook.webhook_id}" tabindex="-1">${text("webhook.deliveries")}</h3>
        <p class="ds-sr-only" role="status">${this.said}</p>
        ${this.listed.length === 0 ? html`<p class="ds-paragraph">${text("webhook.none_sent")}</p>` : html`<ol>${this.listed.map((each) => this.#entry(each))}</ol>`}
        ${this.action.view()}
        <div class="buttons">
          <button type="button" class="ds-button" data-size="sm" data-variant="tertiary" @click=${() => this.lookAgain()}>${text("webhook.look_again")}</button>
          ${this.cursor === null
            ? nothing
            : html`<button type="button" class="ds-button" data-size="sm" data-variant="tertiary" @click=${() => this.more()}>${text("webhook.older")}</button>`}
        </div>
      </div>
    `;
  }

  /** @param {any} delivery */
  #entry(delivery) {
    const { event_type, state, attempts, created_at, next_attempt_at, status, response, event_id } = delivery;
    const zone = this.context.me.organization.time_zone;
    return html`
      <li>
        <div class="title-row">
          <span><strong>${text(`webhook.event.${event_type}`)}</strong>, ${moment(created_at, zone)}</span>
          <span class="ds-tag" data-size="sm" data-color=${COLORS[/** @type {keyof typeof COLORS} */ (state)]}>${text(`webhook.delivery.${state}`)}</span>
        </div>
        <p class="ds-paragraph subtle">
          ${sentence(delivery)} ${attempts > 1 ? text("webhook.attempts", { count: attempts }) : ""}
          ${attempts > 0 && next_attempt_at !== null ? text("webhook.next", { time: moment(next_attempt_at, zone) }) : ""}
        </p>
        ${status === null
          ? nothing
          : html`
            <details class="ds-details">
              <summary>${text("webhook.response", { status })}</summary>
              <div><pre>${response || text("webhook.no_body")}</pre><p class="ds-paragraph subtle">webhook-id: ${event_id}</p></div>
            </details>`}
        ${this.mayChange && this.webhook.enabled && state !== "pending"
          ? html`<div class="buttons">
              <button type="button" class="ds-button" data-size="sm" data-variant="secondary"
                aria-label="${text("webhook.redeliver")}: ${text(`webhook.event.${event_type}`)}, ${moment(created_at, zone)}"
                @click=${() => this.redeliver(delivery)}>${text("webhook.redeliver")}</button>
            </div>`
          : nothing}
      </li>
    `;
  }
}

/** What became of the last attempt. @param {any} delivery */
function sentence({ state, problem, status, attempts }) {
  if (problem !== null && state !== "delivered") {
    return text(`webhook.problem.${problem}`, { status });
  }
  if (state === "delivered") {
    return text("webhook.received");
  }
  return attempts === 0 ? text("webhook.waits") : text("webhook.under_way");
}
