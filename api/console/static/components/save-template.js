// Saving what was chosen as a template, to register it again with two clicks.

import * as api from "/console/static/api.js";
import { Action } from "/console/static/components/action.js";
import { field } from "/console/static/components/field.js";
import { weekdayField } from "/console/static/components/weekday-field.js";
import { readMinutes } from "/console/static/dates.js";
import { text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

/** The part of a page that saves a draft as a template. */
export class SaveTemplate {
  #name = "";

  /** @type {number | null} */
  #weekday = null;

  #said = "";

  /** @param {import("/console/static/app.js").Context} context */
  constructor(context) {
    this.context = context;
    this.action = new Action(context);
  }

  /** @param {import("/console/static/registering/draft.js").Draft} draft @param {string | null} coordinatorId */
  view(draft, coordinatorId) {
    const minutes = readMinutes(draft.minutes);
    const isReady = this.#name.trim() !== "" && draft.type !== "" && minutes !== null;
    return html`
      <details class="ds-details">
        <summary>${text("template.save_as")}</summary>
        <div class="stack">
          <p class="ds-paragraph">${text("template.save_how")}</p>
          <div class="side-by-side">
            ${field({
              id: "template-name", label: text("template.name"), value: this.#name, longest: 200,
              change: (value) => {
                this.#name = value;
                this.#said = "";
                this.action.clear();
                this.context.redraw();
              },
            })}
            ${weekdayField(this.#weekday, (weekday) => {
              this.#weekday = weekday;
              this.action.clear();
              this.context.redraw();
            })}
          </div>
          ${this.action.view()}
          <div class="buttons">
            <button type="button" class="ds-button" data-variant="secondary" aria-disabled=${this.action.isBusy || !isReady}
              @click=${() => (isReady ? this.#save(draft, coordinatorId, minutes) : this.#missing())}>
              ${text("template.save")}
            </button>
            <span role="status">${this.#said === "" ? nothing : this.#said}</span>
          </div>
        </div>
      </details>
    `;
  }

  #missing() {
    this.#said = text("template.missing");
    this.context.redraw();
  }

  /** @param {import("/console/static/registering/draft.js").Draft} draft @param {string | null} coordinatorId @param {number} minutes */
  #save(draft, coordinatorId, minutes) {
    const template = {
      name: this.#name.trim(), mentor_ids: [...draft.chosen], activity_type: draft.type, duration_minutes: minutes, weekday: this.#weekday,
      ...(coordinatorId === null ? {} : { coordinator_id: coordinatorId }),
    };
    this.action.send(template, async (key) => {
      await api.createTemplate(template, key);
      this.#said = text("template.saved", { name: template.name });
      this.#name = "";
    });
  }
}
