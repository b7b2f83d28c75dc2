// The closed period of the organization. Administrators close and reopen it, each time with a reason; everybody reads what was changed.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { field } from "/console/static/components/field.js";
import { addDays, readDate, shownDate } from "/console/static/dates.js";
import { readDirectory } from "/console/static/directory.js";
import { counted, mistakeText, moment, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

const MAX_REASON_LENGTH = 500;

/** @param {import("/console/static/app.js").Context} context */
export async function page(context) {
  const period = new PeriodPage(context, await readDirectory(context.me));
  await period.start();
  return () => period.view();
}

class PeriodPage {
  /** @type {any} */
  period = null;
  /** @type {string | null} */
  tag = null;
  typed = "";
  reason = "";
  /** @type {{ date?: string, reason?: string }} the sentence for each field that can't be used */
  mistakes = {};
  /** What the last change did. */
  done = "";

  /** @param {import("/console/static/app.js").Context} context @param {import("/console/static/directory.js").Directory} directory */
  constructor(context, directory) {
    this.context = context;
    this.directory = directory;
    this.changing = new Action(context);
  }

  get today() {
    return this.context.me.organization.today;
  }

  /** Reads the period, and puts its last day into the field, so that nothing changes unless somebody types. */
  async start() {
    await this.read();
    const { closed_through } = this.period;
    this.typed = closed_through === null ? "" : shownDate(closed_through);
  }

  async read() {
    ({ body: this.period, tag: this.tag } = await api.closedPeriod());
  }

  /** @param {string} typed */
  type(typed) {
    this.typed = typed;
    this.changed();
  }

  changed() {
    this.mistakes = {};
    this.done = "";
    this.changing.clear();
    this.context.redraw();
  }

  /** Reads the typed date. Returns null if the field is empty, and undefined if it holds no date. @returns {string | null | undefined} */
  wanted() {
    if (this.typed.trim() === "") {
      return null;
    }
    const read = readDate(this.typed, this.today);
    return "date" in read ? read.date : undefined;
  }

  /** @param {Event} event */
  submit(event) {
    event.preventDefault();
    const wanted = this.wanted();
    this.mistakes = {};
    if (wanted === undefined) {
      const read = readDate(this.typed, this.today);
      this.mistakes.date = mistakeText("mistake" in read ? read.mistake : "not_a_date");
    } else if (wanted !== null && wanted > this.today) {
      this.mistakes.date = mistakeText("in_the_future");
    } else if (wanted === this.period.closed_through) {
      this.mistakes.date = text("period.same");
    }
    if (this.reason.trim() === "") {
      this.mistakes.reason = text("period.reason_missing");
    }
    this.context.redraw();
    if (this.mistakes.date !== undefined || this.mistakes.reason !== undefined) {
      document.getElementById(this.mistakes.date !== undefined ? "closed-through" : "reason")?.focus();
      return;
    }
    const change = { closed_through: wanted ?? null, reason: this.reason.trim() };
    // The same change of another state is another request.
    this.changing.send([change, this.tag], async (key) => {
      try {
        await api.changePeriod(change, key, this.tag);
      } catch (error) {
        if (error instanceof api.Problem && error.code === "period_changed") {
          await this.read();
        }
        throw error;
      }
      await this.start();
      this.reason = "";
      this.done = text("period.done");
      this.context.redraw();
      document.getElementById("state")?.focus();
    });
  }

  view() {
    const { me } = this.context;
    return html`
      <nav aria-label=${text("activity.way")}><a class="ds-link" href="/console/activities">${text("activity.to_list")}</a></nav>
      <h1 class="ds-heading" data-size="lg">${text("period.heading")}</h1>
      <p class="ds-paragraph prose lead">${text("period.lead")}</p>
      <div class="ds-card one-activity" data-color="neutral">
        <h2 class="ds-heading" data-size="sm" id="state" tabindex="-1">${state(this.period.closed_through)}</h2>
        ${this.period.unresolved === 0 ? nothing : html`<p class="ds-paragraph">${counted("period.unresolved", this.period.unresolved, this.period)}</p>`}
        ${me.role === "admin" ? this.form() : nothing}
        <p role="status" class="ds-sr-only">${this.done}</p>
      </div>
      ${this.history()}
    `;
  }

  form() {
    const endOfLastMonth = addDays(`${this.today.slice(0, 7)}-01`, -1);
    const endOfLastYear = `${Number(this.today.slice(0, 4)) - 1}-12-31`;
    return html`
      <form class="dialog-form prose" @submit=${(/** @type {Event} */ event) => this.submit(event)}>
        ${field({
          id: "closed-through", label: text("period.through"), value: this.typed, mistake: this.mistakes.date, hint: text("period.hint"),
          change: (value) => this.type(value),
        })}
        <div class="chips" role="group" aria-label=${text("period.suggestions")}>
          ${[...new Set([endOfLastMonth, endOfLastYear])].map(
            (date) => html`<button type="button" class="ds-chip" data-color="accent" @click=${() => this.type(shownDate(date))}>${shownDate(date)}</button>`,
          )}
        </div>
        ${field({
          id: "reason", label: text("undo.reason"), value: this.reason, mistake: this.mistakes.reason, hint: text("undo.reason_hint"),
          longest: MAX_REASON_LENGTH,
          change: (value) => {
            this.reason = value;
            this.changed();
          },
        })}
        ${this.changing.view()}
        <p class="buttons"><button type="submit" class="ds-button" data-color=${this.reopens ? "danger" : "accent"} aria-disabled=${this.changing.isBusy}>${this.deed()}</button></p>
      </form>
    `;
  }

  /** Whether what is typed would reopen a closed period, which an empty field does. */
  get reopens() {
    const wanted = this.wanted();
    const now = this.period.closed_through;
    return wanted !== undefined && now !== null && (wanted === null || wanted < now);
  }

  /** What the button does with the date that is typed. */
  deed() {
    const wanted = this.wanted();
    const now = this.period.closed_through;
    if (wanted === undefined || wanted === now) {
      return text("period.save");
    }
    if (wanted === null) {
      return text("period.reopen_all");
    }
    const date = shownDate(wanted);
    return now === null || wanted > now ? text("period.close", { date }) : text("period.reopen", { date });
  }

  history() {
    const { history } = this.period;
    if (history.length === 0) {
      return nothing;
    }
    return html`
      <section aria-labelledby="history">
        <h2 class="ds-heading" data-size="sm" id="history">${text("activity.history")}</h2>
        <ol class="trail">
          ${history.map(
            (/** @type {any} */ change) => html`
              <li>
                <h3 class="ds-heading" data-size="2xs">${state(change.closed_through)}</h3>
                <p class="ds-paragraph subtle">
                  ${moment(change.changed_at, this.context.me.organization.time_zone)}, ${this.directory.coordinatorName(change.changed_by)}
                </p>
                <blockquote class="reason">${change.reason}</blockquote>
              </li>
            `,
          )}
        </ol>
      </section>
    `;
  }
}

/** @param {string | null} closedThrough */
const state = (closedThrough) => (closedThrough === null ? text("period.open") : text("period.closed", { date: shownDate(closedThrough) }));
