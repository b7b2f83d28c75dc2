// The history: all batches that a person may see, newest first, with filters.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { batchTable } from "/console/static/components/batch-table.js";
import { focusOn } from "/console/static/components/dialog.js";
import { field } from "/console/static/components/field.js";
import { namesOfPeople } from "/console/static/components/people.js";
import { addDays, readDate, startOfDay } from "/console/static/dates.js";
import { counted, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

const SHOWN = 25;
const WIDE = "(min-width: 40rem)";
const STATUSES = ["processing", "completed", "partial", "failed", "cancelled"];

// What the address keeps, so that Back and a bookmark lead to the same list. A label may name people, so it stays out of it.
const KEPT = ["who", "attention", "status", "from", "to"];

/** @param {import("/console/static/app.js").Context} context */
export async function page(context) {
  const history = new HistoryPage(context, await namesOfPeople(context.me));
  await history.start();
  return () => history.draw();
}

class HistoryPage {
  /** @type {any} */
  #found = null;

  /** The cursors of the pages up to the one that is shown. @type {(string | null)[]} */
  #cursors = [null];

  /** @type {Record<string, string>} */
  #mistakes = {};

  #opensFilters = false;

  /**
   * @param {import("/console/static/app.js").Context} context
   * @param {import("/console/static/components/people.js").NameOf} nameOf
   */
  constructor(context, nameOf) {
    this.context = context;
    this.nameOf = nameOf;
    this.loading = new Action(context);
    const { query } = context;
    this.filters = {
      who: query.get("who") ?? "all",
      attention: query.get("attention") ?? "",
      status: query.get("status") ?? "",
      from: query.get("from") ?? "",
      to: query.get("to") ?? "",
      q: "",
    };
    // On a narrow page the list would begin below the filters.
    this.#opensFilters = this.#isFiltered || matchMedia(WIDE).matches;
  }

  async start() {
    this.#check();
    await this.#load([null]);
  }

  get #today() {
    return this.context.me.organization.today;
  }

  /** @param {(string | null)[]} cursors */
  async #load(cursors) {
    this.#found = await api.batches({ ...this.#query(), limit: SHOWN, cursor: cursors.at(-1) });
    this.#cursors = cursors;
  }

  #query() {
    const { filters, context } = this;
    const zone = context.me.organization.time_zone;
    const from = readDate(filters.from, this.#today);
    const to = readDate(filters.to, this.#today);
    return {
      coordinator_id: filters.who === "mine" ? context.me.subject : null,
      needs_attention: filters.attention === "" ? null : true,
      status: filters.status,
      submitted_from: "date" in from ? startOfDay(from.date, zone) : null,
      submitted_to: "date" in to ? startOfDay(addDays(to.date, 1), zone) : null,
      q: filters.q.trim(),
    };
  }

  /** Whether the dates can be read. */
  #check() {
    this.#mistakes = {};
    for (const field of /** @type {("from" | "to")[]} */ (["from", "to"])) {
      const read = readDate(this.filters[field], this.#today);
      if ("mistake" in read && read.mistake !== "empty") {
        this.#mistakes[field] = text(`mistake.${read.mistake}`);
      }
    }
    return Object.keys(this.#mistakes).length === 0;
  }

  /** @param {Event} event */
  #submit(event) {
    event.preventDefault();
    if (!this.#check()) {
      this.context.redraw();
      focusOn(Object.keys(this.#mistakes)[0]);
      return;
    }
    this.#keepInAddress();
    this.loading.runLast(() => this.#load([null]));
  }

  #keepInAddress() {
    const kept = new URLSearchParams();
    for (const [name, value] of Object.entries(this.filters)) {
      if (KEPT.includes(name) && value !== "" && value !== "all") {
        kept.set(name, value);
      }
    }
    history.replaceState(null, "", `${location.pathname}${kept.size === 0 ? "" : `?${kept}`}`);
  }

  #clear() {
    this.filters = { who: "all", attention: "", status: "", from: "", to: "", q: "" };
    this.#mistakes = {};
    this.#keepInAddress();
    this.loading.runLast(() => this.#load([null]));
  }

  get #isFiltered() {
    return Object.values(this.#query()).some((value) => value !== null && value !== "");
  }

  /** Whether there is nothing that could be filtered. */
  get #isNothingYet() {
    return this.#found.data.length === 0 && !this.#isFiltered && this.#cursors.length === 1;
  }

  draw() {
    return html`
      <div class="history" data-color="neutral">
        <h1 class="ds-heading" data-size="lg">${text("history.heading")}</h1>
        ${this.#isNothingYet ? nothing : html`
          <details class="ds-details" ?open=${this.#opensFilters}>
            <summary>${text("history.filters")}</summary>
            ${this.#form()}
          </details>`}
        ${this.loading.view()}
        <p role="status" class="meta" id="count" tabindex="-1">${this.#isNothingYet ? nothing : this.#count()}</p>
        ${this.#found.data.length === 0 ? this.#empty() : this.#table()} ${this.#turning()}
      </div>
    `;
  }

  #count() {
    const { total } = this.#found.pagination;
    return counted("history.count", total, { total });
  }

  #form() {
    const { filters } = this;
    const isAdmin = this.context.me.role === "admin";
    return html`
      <form class="filters" novalidate @submit=${(/** @type {Event} */ event) => this.#submit(event)}>
        ${isAdmin ? this.#choice("who", text("history.who"), [["all", text("history.all")], ["mine", text("history.mine")]]) : nothing}
        ${this.#choice("status", text("history.status"), [
          ["", text("history.any")],
          ...STATUSES.map((status) => /** @type {[string, string]} */ ([status, text(`history.status.${status}`)])),
        ])}
        ${this.#input("from", text("history.from"), text("history.date_hint"))} ${this.#input("to", text("history.to"), text("history.date_hint"))}
        ${this.#input("q", text("history.q"))}
        <div class="ds-field">
          <input
            class="ds-input" type="checkbox" id="attention" .checked=${filters.attention !== ""}
            @change=${(/** @type {any} */ event) => { filters.attention = event.target.checked ? "1" : ""; }}
          >
          <label class="ds-label" for="attention">${text("history.attention")}</label>
        </div>
        <p class="buttons">
          <button class="ds-button" data-color="accent">${text("history.show")}</button>
          ${this.#isFiltered
            ? html`<button type="button" class="ds-button" data-variant="tertiary" @click=${() => this.#clear()}>${text("history.clear")}</button>`
            : nothing}
        </p>
      </form>
    `;
  }

  /** @param {"who" | "status"} name @param {string} label @param {[string, string][]} choices */
  #choice(name, label, choices) {
    return html`
      <div class="ds-field">
        <label class="ds-label" for=${name}>${label}</label>
        <select
          class="ds-input" id=${name}
          @change=${(/** @type {any} */ event) => { this.filters[name] = event.target.value; }}
        >
          ${choices.map(([value, shown]) => html`<option value=${value} .selected=${value === this.filters[name]}>${shown}</option>`)}
        </select>
      </div>
    `;
  }

  /** @param {"from" | "to" | "q"} name @param {string} label @param {string} [hint] */
  #input(name, label, hint) {
    const change = (/** @type {string} */ value) => { this.filters[name] = value; };
    return field({ id: name, label, hint, value: this.filters[name], mistake: this.#mistakes[name], change });
  }

  #empty() {
    if (this.#isFiltered) {
      return html`<p class="ds-paragraph">${text("history.none_found")}</p>`;
    }
    return html`
      <p class="ds-paragraph">${text("history.empty")}</p>
      ${this.context.me.role === "auditor"
        ? nothing
        : html`<p><a class="ds-button" data-color="accent" href="/console/new">${text("nav.new")}</a></p>`}
    `;
  }

  #table() {
    return batchTable(this.#found.data, { me: this.context.me, nameOf: this.nameOf, caption: text("history.heading") });
  }

  /** Shows another page, from its beginning. @param {(string | null)[]} cursors */
  #turn(cursors) {
    this.loading.run(async () => {
      await this.#load(cursors);
      this.context.redraw();
      focusOn("count");
    });
  }

  #turning() {
    const next = this.#found.pagination.next_cursor;
    if (this.#cursors.length === 1 && next === null) {
      return nothing;
    }
    const first = (this.#cursors.length - 1) * SHOWN + 1;
    const values = { first, last: first + this.#found.data.length - 1, total: this.#found.pagination.total };
    return html`
      <nav class="turning" data-repeatable aria-label=${text("history.heading")}>
        <button
          type="button" class="ds-button" data-variant="secondary" ?disabled=${this.#cursors.length === 1}
          @click=${() => this.#turn(this.#cursors.slice(0, -1))}
        >
          ${text("batch.previous")}
        </button>
        <span>${text("batch.rows", values)}</span>
        <button
          type="button" class="ds-button" data-variant="secondary" ?disabled=${next === null}
          @click=${() => this.#turn([...this.#cursors, next])}
        >
          ${text("batch.next")}
        </button>
      </nav>
    `;
  }
}
