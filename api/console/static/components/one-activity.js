// One activity and everything that happened to it. Coordinators and administrators can undo it here.

import * as api from "/console/static/api.js";
import { UndoActivityDialog } from "/console/static/components/activity-undo.js";
import { Dialog } from "/console/static/components/dialog.js";
import { shownDate, shownMinutes } from "/console/static/dates.js";
import { errorText, keptText, moment, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

export class OneActivity {
  wasUndone = false;

  /**
   * @param {import("/console/static/app.js").Context} context @param {import("/console/static/directory.js").Directory} directory
   * @param {any} activity
   */
  constructor(context, directory, activity) {
    this.context = context;
    this.directory = directory;
    this.activity = activity;
    this.dialog = new Dialog(context);
  }

  /**
   * @param {import("/console/static/app.js").Context} context @param {import("/console/static/directory.js").Directory} directory
   * @param {string} activityId
   */
  static async read(context, directory, activityId) {
    return new OneActivity(context, directory, await api.activity(activityId));
  }

  /** Whether somebody of this role could undo the activity, if its date is not in a closed period. */
  get couldUndo() {
    const { me } = this.context;
    return me.role !== "auditor" && me.features.revoke && this.activity.revoked_at === null;
  }

  get isClosed() {
    const closedThrough = this.context.me.organization.closed_through;
    return closedThrough !== null && this.activity.activity_date <= closedThrough;
  }

  /** The activity was undone. */
  async readAgain() {
    this.activity = await api.activity(this.activity.activity_id);
    this.wasUndone = true;
    this.context.redraw();
  }

  view() {
    const { activity, directory } = this;
    return html`
      <nav aria-label=${text("activity.way")}><a class="ds-link" href="/console/activities" @click=${goBack}>${text("activity.to_list")}</a></nav>
      <h1 class="ds-heading" data-size="lg">${text("activity.heading", { mentor: directory.mentorName(activity.mentor_id) })}</h1>
      ${this.wasUndone
        ? html`<div class="ds-alert" data-color="success" id="undone" tabindex="-1"><p class="ds-paragraph">${text("activity.undone")}</p></div>`
        : nothing}
      <div class="ds-card one-activity" data-color="neutral">
        <dl class="activity-facts">
          ${fact(text("activity.type"), directory.typeName(activity.activity_type))}
          ${fact(text("activity.date"), shownDate(activity.activity_date))}
          ${fact(text("activity.duration"), shownMinutes(activity.duration_minutes, text("hour")))}
          ${fact(text("activity.chapter"), activity.chapter_id === null ? text("activity.no_chapter") : directory.chapterName(activity.chapter_id))}
          ${fact(text("activity.coordinator"), directory.coordinatorName(activity.coordinator_id))}
          ${fact(text("activity.status"), activity.revoked_at === null ? text("activity.registered") : text("activity.revoked"))}
        </dl>
        ${activity.overrides_duplicate ? html`<p class="ds-paragraph">${text("activity.beside_another")}</p>` : nothing}
        <p class="buttons">
          <a class="ds-link" data-color="accent" href="/console/batches/${activity.batch_id}">${text("activity.batch")}</a>
        </p>
        ${this.couldUndo ? this.undoOffer() : nothing}
      </div>
      <section aria-labelledby="history">
        <h2 class="ds-heading" data-size="sm" id="history">${text("activity.history")}</h2>
        <ol class="trail">${activity.history.map((/** @type {any} */ entry) => this.entry(entry))}</ol>
      </section>
      ${this.dialog.view()}
    `;
  }

  undoOffer() {
    if (this.isClosed) {
      return html`<p class="ds-paragraph subtle">${keptText("period_closed")}</p>`;
    }
    return html`
      <p class="buttons">
        <button type="button" class="ds-button" data-variant="secondary" data-color="danger"
          @click=${() => this.dialog.open(new UndoActivityDialog(this))}>${text("activity.undo")}</button>
      </p>
    `;
  }

  /** @param {any} entry */
  entry(entry) {
    const { organization } = this.context.me;
    const by = entry.by === undefined ? null : this.directory.coordinatorName(entry.by);
    const through = entry.channel === undefined || entry.channel === "api" ? null : text("activity.channel", { channel: entry.channel });
    return html`
      <li class="trail-${entry.kind}">
        <h3 class="ds-heading" data-size="2xs">${text(`activity.event.${entry.kind}`)}</h3>
        <p class="ds-paragraph subtle">${[moment(entry.at, organization.time_zone), by, through].filter((part) => part !== null).join(", ")}</p>
        ${entry.error === undefined ? nothing : html`<p class="ds-paragraph">${errorText(entry.error)}</p>`}
        ${entry.correction === undefined ? nothing : html`<dl class="activity-facts">${this.corrections(entry.correction)}</dl>`}
        ${entry.reason === undefined ? nothing : html`<blockquote class="reason">${entry.reason}</blockquote>`}
      </li>
    `;
  }

  /** @param {any} correction */
  corrections(correction) {
    const { directory } = this;
    /** @type {Record<string, (value: any) => string>} */
    const shown = {
      mentor_id: directory.mentorName,
      activity_type: directory.typeName,
      activity_date: shownDate,
      duration_minutes: (minutes) => shownMinutes(minutes, text("hour")),
      override_duplicates: (isOverriding) => isOverriding ? text("yes") : text("no"),
    };
    return Object.entries(shown)
      .filter(([name]) => name in correction)
      .map(([name, show]) => fact(text(`activity.corrected.${name}`), show(correction[name])));
  }
}

/** @param {string} name @param {unknown} value */
function fact(name, value) {
  return html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
}

/** Goes back to the list as it was, if the person has come from there. @param {MouseEvent} event */
function goBack(event) {
  if (history.state?.isFromList) {
    event.preventDefault();
    history.back();
  }
}
