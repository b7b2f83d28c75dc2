// What the check of a receipt found: the verdict, what the receipt says, and its records.

import { icon } from "/console/static/components/icon.js";
import { shownDate, shownMinutes } from "/console/static/dates.js";
import { counted, moment, number, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

const ROWS = 100;

/** @typedef {"published" | "former" | "unknown" | "not_compared"} KeyState */

export class ReceiptView {
  #page = 0;

  /**
   * @param {import("/console/static/app.js").Context} context
   * @param {import("/console/static/receipts/check.js").Checked} checked
   * @param {{ key: string, current: boolean }[] | null} published the keys of this service, null if it could not be asked
   */
  constructor(context, checked, published) {
    this.context = context;
    this.checked = checked;
    this.published = published;
    /** @type {Map<number | null, string[]>} */
    this.faults = new Map();
    for (const { fault, position } of checked.faults) {
      this.faults.set(position, [...(this.faults.get(position) ?? []), fault]);
    }
  }

  get holds() {
    return this.checked.faults.length === 0;
  }

  /** @param {import("/console/static/receipts/checkpoint.js").Key} key @returns {KeyState} */
  #stateOf(key) {
    if (this.published === null) {
      return "not_compared";
    }
    const found = this.published.find((each) => each.key === key.text);
    return found === undefined ? "unknown" : found.current ? "published" : "former";
  }

  /** The state of the key on which the receipt rests: the best of those that signed. @returns {KeyState} */
  get #key() {
    const states = this.checked.signers.map((key) => this.#stateOf(key));
    return /** @type {KeyState[]} */ (["published", "former", "unknown"]).find((state) => states.includes(state)) ?? "not_compared";
  }

  view() {
    const { receipt } = this.checked;
    return html`
      <section class="receipt" aria-labelledby="verdict-title" data-color="neutral">
        ${this.#verdict()}
        ${receipt === null ? nothing : html`${this.#facts()} ${receipt.items.length === 0 ? nothing : this.#records()}`}
      </section>
    `;
  }

  #verdict() {
    const { receipt } = this.checked;
    if (receipt === null) {
      return alert("danger", text("receipt.not_one"), [text("receipt.fault.unreadable")]);
    }
    if (!this.holds) {
      const records = [...this.faults.keys()].filter((position) => position !== null).length;
      const ofRecords = sentenceOf("wrong_records", records, { of: number(receipt.items.length) });
      return alert("danger", text("receipt.broken"), [
        ...new Set((this.faults.get(null) ?? []).map((fault) => text(`receipt.fault.${fault}`))), ...(records === 0 ? [] : [ofRecords]), text("receipt.broken_next"),
      ]);
    }
    const key = this.#key;
    const isKnown = isOurs(key);
    return alert(isKnown ? "success" : "warning", isKnown ? text("receipt.holds") : text(`receipt.holds.${key}`), [
      this.#sentence(), ...(isKnown ? [] : [text(`receipt.key.${key}.how`)]),
    ]);
  }

  /** How many records, of which dates. */
  #sentence() {
    const dates = this.checked.receipt.items.map((/** @type {any} */ item) => item.leaf.activity_date).sort();
    const revoked = this.checked.receipt.items.filter((/** @type {any} */ item) => item.leaf.change === "revoked").length;
    if (dates.length === 0) {
      return text("receipt.no_records");
    }
    const [first, last] = [shownDate(dates[0]), shownDate(dates[dates.length - 1])];
    const registered = dates.length - revoked;
    const records = sentenceOf("records", registered);
    const period = first === last ? text("receipt.on", { records, first }) : text("receipt.between", { records, first, last });
    return revoked === 0 ? period : `${period} ${sentenceOf("revoked", revoked)}`;
  }

  #facts() {
    const { receipt, checkpoint, signers } = this.checked;
    const organizations = new Set(receipt.items.map((/** @type {any} */ item) => item.leaf.organization_id));
    return html`
      <dl class="receipt-facts panel">
        ${organizations.size === 0 ? nothing : fact(text("receipt.organization"), [...organizations].join(", "))}
        ${checkpoint === null
          ? nothing
          : html`
              ${fact(text("receipt.origin"), checkpoint.origin)}
              ${fact(text("receipt.size"), sentenceOf("entries", checkpoint.size))}
            `}
        ${signers.map((signer) => html`
          ${fact(text("receipt.signed_by"), this.#signer(signer))}
          ${fact(text("receipt.fingerprint"), fingerprint(signer))}
        `)}
      </dl>
    `;
  }

  /** @param {import("/console/static/receipts/checkpoint.js").Key} key */
  #signer(key) {
    const state = this.#stateOf(key);
    return html`${key.name} ${outcome(isOurs(state) ? "success" : "failed", text(`receipt.key.${state}`))}`;
  }

  #records() {
    const { items } = this.checked.receipt;
    const first = this.#page * ROWS;
    const shown = items.slice(first, first + ROWS);
    return html`
      <h2 class="ds-heading" data-size="xs" id="records" tabindex="-1">${text("receipt.list")}</h2>
      <table class="ds-table narrow-rows receipt-records" aria-labelledby="records">
        <thead>
          <tr>
            <th scope="col">${text("activity.date")}</th>
            <th scope="col">${text("activity.mentor")}</th>
            <th scope="col">${text("activity.type")}</th>
            <th scope="col">${text("activity.duration")}</th>
            <th scope="col">${text("receipt.what")}</th>
            <th scope="col">${text("receipt.by")}</th>
            <th scope="col">${text("receipt.check")}</th>
          </tr>
        </thead>
        <tbody>
          ${shown.map((/** @type {any} */ item, /** @type {number} */ row) => this.#record(item, first + row))}
        </tbody>
      </table>
      ${items.length <= ROWS ? nothing : this.#pager(first, first + shown.length, items.length)}
    `;
  }

  /** @param {any} item @param {number} position */
  #record({ index, leaf, people }, position) {
    const at = { at: moment(leaf.at, "UTC"), number: number(index + 1) };
    return html`
      <tr>
        <td class="tabular">${shownDate(leaf.activity_date)}</td>
        <td>${person(people.mentor)}</td>
        <td>${leaf.activity_type}</td>
        <td class="tabular">${shownMinutes(leaf.duration_minutes, text("hour"))}</td>
        <td>
          ${text(`activity.${leaf.change}`)}
          <small class="subtle">${leaf.before_log ? text("receipt.at_before_log", at) : text("receipt.at", at)}</small>
        </td>
        <td class="named" data-name=${text("receipt.by")}>${person(people.by)}</td>
        <td>${this.#outcome(this.faults.get(position))}</td>
      </tr>
    `;
  }

  /** @param {string[] | undefined} faults */
  #outcome(faults) {
    if (faults !== undefined) {
      return outcome("failed", faults.map((fault) => html`<span class="fault">${text(`receipt.fault.${fault}`)}</span>`));
    }
    // Without a checkpoint that holds, a proof leads to a root that somebody may have made up.
    return this.faults.has(null)
      ? html`<span class="subtle">${text("receipt.not_proved")}</span>`
      : outcome("success", text("receipt.record_holds"));
  }

  /** @param {number} first @param {number} last @param {number} total */
  #pager(first, last, total) {
    /** @param {number} page */
    const turn = (page) => {
      this.#page = page;
      this.context.redraw();
      document.getElementById("records")?.focus();
    };
    return html`
      <nav class="pager" data-repeatable aria-label=${text("pager")}>
        <button type="button" class="ds-button" data-variant="secondary" ?disabled=${first === 0} @click=${() => turn(this.#page - 1)}>${text("pager.previous")}</button>
        <span>${text("batch.rows", { first: number(first + 1), last: number(last), total: number(total) })}</span>
        <button type="button" class="ds-button" data-variant="secondary" ?disabled=${last === total} @click=${() => turn(this.#page + 1)}>${text("pager.next")}</button>
      </nav>
    `;
  }
}

/** A sentence with a number, which is also the name of its place. @param {string} name @param {number} count @param {Record<string, unknown>} [values] */
const sentenceOf = (name, count, values = {}) => counted(`receipt.${name}`, count, { [name]: number(count), ...values });

/** @param {KeyState} state */
const isOurs = (state) => state === "published" || state === "former";

/** @param {"success" | "failed"} state @param {unknown} content */
const outcome = (state, content) => html`<span class="receipt-outcome" data-state=${state}>${icon(state)}<span>${content}</span></span>`;

/** @param {string} colour @param {string} title @param {string[]} sentences */
function alert(colour, title, sentences) {
  return html`
    <div class="ds-alert" data-color=${colour} id="verdict" tabindex="-1">
      <h2 class="ds-heading" data-size="sm" id="verdict-title">${title}</h2>
      ${sentences.map((sentence) => html`<p class="ds-paragraph">${sentence}</p>`)}
    </div>
  `;
}

/** @param {import("/console/static/receipts/checkpoint.js").Key} key */
const fingerprint = (key) => html`
  <span class="fingerprint">${key.fingerprint}</span>
  <details class="whole-key"><summary>${text("receipt.whole_key")}</summary><code>${key.text}</code></details>
`;

/** @param {string} name @param {unknown} value */
const fact = (name, value) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`;

/** @param {{ id: string } | undefined} disclosed */
const person = (disclosed) => disclosed?.id ?? html`<span class="subtle">${text("receipt.not_disclosed")}</span>`;
