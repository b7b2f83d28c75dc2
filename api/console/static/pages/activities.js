// Registered activities, for reports and for auditors: filters, sums, a list, and one activity's history.
//
// Filters and the open activity stay in memory: the address never holds a person's id. An opened activity has an address of its own, and Back
// returns to the list as it was.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { ActivityFilters } from "/console/static/components/activity-filters.js";
import { OneActivity } from "/console/static/components/one-activity.js";
import { shownDate, shownMinutes } from "/console/static/dates.js";
import { readDirectory } from "/console/static/directory.js";
import { counted, number, text } from "/console/static/messages.js";
import { saveAs } from "/console/static/saving.js";
import { html, nothing } from "/console/static/vendored.js";

const LIST = "/console/activities";
const PAGE = 50;

/** @param {import("/console/static/app.js").Context} context */
export async function page(context) {
  const activities = new Activities(context, await readDirectory(context.me));
  window.addEventListener("popstate", () => activities.follow());
  await activities.start(context.values.activity_id);
  return () => activities.view();
}

class Activities {
  /** @type {any[]} */
  rows = [];
  /** @type {string | null} the cursor of the next page */
  next = null;
  /** @type {(string | null)[]} the cursors of this page and of those before it; null is the first page's */
  path = [null];
  /** @type {any} the sums of all that is chosen */
  sums = null;
  /** @type {OneActivity | null} the activity that is open */
  open = null;
  /** Says that the list has changed to those who don't see it. */
  said = "";

  /** @param {import("/console/static/app.js").Context} context @param {import("/console/static/directory.js").Directory} directory */
  constructor(context, directory) {
    this.context = context;
    this.directory = directory;
    this.filters = new ActivityFilters(context, directory, () => this.find());
    this.finding = new Action(context);
    this.opening = new Action(context);
    this.downloading = new Action(context);
  }

  /** The first view, whose problems take the place of the page. @param {string | undefined} activityId */
  async start(activityId) {
    if (activityId === undefined) {
      await this.read([null]);
    } else {
      this.open = await OneActivity.read(this.context, this.directory, activityId);
    }
  }

  /** Shows what the address names: an activity or the list. If the address changes meanwhile, the last one counts. */
  async follow() {
    const left = this.open;
    let shown;
    await this.opening.run(async () => {
      do {
        shown = location.pathname;
        await this.show(shown.slice(LIST.length + 1));
      } while (shown !== location.pathname);
    });
    const row = left === null ? null : document.getElementById(left.activity.activity_id);
    (row ?? document.getElementById("content"))?.focus();
  }

  /** @param {string} activityId empty for the list */
  async show(activityId) {
    if (activityId !== "") {
      this.open = await OneActivity.read(this.context, this.directory, activityId);
      return;
    }
    if (this.open?.wasUndone || this.said === "") {
      this.sums = await this.filters.sums();
      await this.read(this.path);
    }
    this.open = null;
  }

  /** Reads the list anew. */
  find() {
    this.finding.runLast(() => this.read([null]));
  }

  /** Reads a page of the list, and the sums with the first page. @param {(string | null)[]} path */
  async read(path) {
    const cursor = path[path.length - 1];
    const query = this.filters.query();
    const [found, sums] = await Promise.all([
      api.activities({ ...query, limit: PAGE, cursor }),
      cursor === null ? this.filters.sums() : this.sums,
    ]);
    this.rows = found.data;
    this.next = found.next_cursor;
    this.path = path;
    this.sums = sums;
    this.said = this.sentence();
  }

  /** @param {(string | null)[]} path */
  async turn(path) {
    await this.finding.run(() => this.read(path));
    document.getElementById("found")?.focus();
  }

  /** Opens an activity in this page, unless the person asks for a tab of its own. @param {MouseEvent} event @param {any} activity */
  go(event, activity) {
    if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) {
      return;
    }
    event.preventDefault();
    history.pushState({ isFromList: true }, "", `${LIST}/${activity.activity_id}`);
    this.follow();
  }

  download() {
    // Not a link: its address would hold the person who is chosen, and browsers list the addresses of downloads.
    this.downloading.run(async () => saveAs(await api.activitiesFile(this.filters.query()), "activities.csv"));
  }

  view() {
    if (this.open !== null) {
      return html`${this.opening.view()}${this.open.view()}`;
    }
    return html`
      <h1 class="ds-heading" data-size="lg">${text("activities.heading")}</h1>
      <p class="ds-paragraph lead">${text(`activities.lead.${this.context.me.role}`)}</p>
      <p class="buttons">
        <a class="ds-link" href="/console/period">${text("activities.period_link")}</a>
        ${this.context.me.role === "admin" ? html`<a class="ds-link" href="/console/forget">${text("forget.heading")}</a>` : nothing}
      </p>
      ${this.filters.view()}
      ${this.opening.view()} ${this.finding.view()}
      <section class="found" aria-labelledby="found" aria-busy=${this.finding.isBusy}>
        <div class="found-head">
          <h2 class="ds-heading" data-size="sm" id="found" tabindex="-1">${this.sentence()}</h2>
          ${this.rows.length === 0
            ? nothing
            : html`<button type="button" class="ds-button" data-variant="secondary" aria-disabled=${this.downloading.isBusy} @click=${() => this.download()}>
                ${text("activities.download")}
              </button>`}
        </div>
        ${this.downloading.view()}
        <p role="status" class="ds-sr-only">${this.said}</p>
        ${this.rows.length === 0 ? nothing : sumsView(this.sums, this.directory)}
        ${this.rows.length === 0 ? html`<p class="ds-paragraph">${this.filters.isEverything ? text("activities.nothing_yet") : text("activities.empty")}</p>` : this.table()}
        ${this.pager()}
      </section>
    `;
  }

  sentence() {
    if (this.rows.length === 0) {
      return text("activities.none");
    }
    const { live, revoked } = this.sums.total;
    if (this.filters.revoked === "true") {
      return text("activities.total.undone", { activities: number(revoked.activities), hours: inHours(revoked.minutes) });
    }
    const hours = inHours(live.minutes);
    const sentence = counted("activities.total", live.activities, { activities: number(live.activities), hours });
    return revoked.activities === 0 || this.filters.revoked === "false" ? sentence : `${sentence} ${text("activities.total.revoked", { revoked: number(revoked.activities) })}`;
  }

  table() {
    const namesCoordinators = this.context.me.role !== "coordinator";
    const { mentorName, typeName, chapterName, coordinatorName } = this.directory;
    return html`
      <table class="ds-table narrow-rows" data-color="neutral">
        <thead>
          <tr>
            <th scope="col">${text("activity.date")}</th>
            <th scope="col">${text("activity.mentor")}</th>
            <th scope="col">${text("activity.type")}</th>
            <th scope="col">${text("activity.duration")}</th>
            <th scope="col">${text("activity.chapter")}</th>
            ${namesCoordinators ? html`<th scope="col">${text("activity.coordinator")}</th>` : nothing}
            <th scope="col">${text("activity.status")}</th>
          </tr>
        </thead>
        <tbody>
          ${this.rows.map(
            (activity) => html`
              <tr class=${activity.revoked_at === null ? "" : "undone"}>
                <td class="tabular">${shownDate(activity.activity_date)}</td>
                <td>
                  <a class="ds-link" id=${activity.activity_id} href="${LIST}/${activity.activity_id}" @click=${(/** @type {MouseEvent} */ event) => this.go(event, activity)}>
                    ${mentorName(activity.mentor_id)}
                  </a>
                </td>
                <td>${typeName(activity.activity_type)}</td>
                <td class="tabular">${shownMinutes(activity.duration_minutes, text("hour"))}</td>
                <td>
                  ${activity.chapter_id === null ? text("activity.no_chapter") : chapterName(activity.chapter_id)}
                </td>
                ${namesCoordinators ? html`<td>${coordinatorName(activity.coordinator_id)}</td>` : nothing}
                <td>${status(activity)}</td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    `;
  }

  pager() {
    if (this.next === null && this.path.length === 1) {
      return nothing;
    }
    return html`
      <nav class="pager" data-repeatable aria-label=${text("pager")}>
        <button type="button" class="ds-button" data-variant="secondary" ?disabled=${this.path.length === 1} @click=${() => this.turn(this.path.slice(0, -1))}>
          ${text("pager.previous")}
        </button>
        <span>${text("pager.page", { page: this.path.length })}</span>
        <button type="button" class="ds-button" data-variant="secondary" ?disabled=${this.next === null} @click=${() => this.turn([...this.path, this.next])}>
          ${text("pager.next")}
        </button>
      </nav>
    `;
  }
}

/** @param {number} minutes */
const inHours = (minutes) => (minutes === 60 ? text("activities.total.hours.one") : text("activities.total.hours", { hours: number(minutes / 60) }));

/** @param {any} activity */
function status(activity) {
  return activity.revoked_at === null
    ? text("activity.registered")
    : html`<span class="ds-tag" data-color="neutral">${text("activity.revoked")}</span>`;
}

/** @param {any} sums @param {import("/console/static/directory.js").Directory} directory */
function sumsView(sums, directory) {
  return html`
    <details class="ds-details sums" data-variant="tinted" data-color="neutral">
      <summary>${text("activities.sums")}</summary>
      <div class="sums-tables">
        ${sumTable(text("activity.type"), sums.byType.map((/** @type {any} */ each) => ({ ...each, name: directory.typeName(each.key) })))}
        ${sumTable(text("activities.month"), sums.byMonth.map((/** @type {any} */ each) => ({ ...each, name: monthName(each.key) })))}
      </div>
    </details>
  `;
}

/** A month like 2026-03 as 03.2026. @param {string} month */
const monthName = (month) => month.split("-").reverse().join(".");

/** @param {string} title @param {{ name: string, activities: number, minutes: number }[]} rows */
function sumTable(title, rows) {
  const most = Math.max(...rows.map((row) => row.activities));
  return html`
    <table class="ds-table" data-size="sm">
      <thead>
        <tr>
          <th scope="col">${title}</th>
          <th scope="col" class="figure">${text("activities.number")}</th>
          <th scope="col" class="figure">${text("activities.hours")}</th>
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          (row) => html`
            <tr>
              <th scope="row">${row.name}<progress class="share" data-color="accent" aria-hidden="true" max=${most} .value=${row.activities}></progress></th>
              <td class="figure">${number(row.activities)}</td>
              <td class="figure">${number(row.minutes / 60)}</td>
            </tr>
          `,
        )}
      </tbody>
    </table>
  `;
}
