// A text field with its label, hint and mistake.

import { hasText, mistakeText, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

/** Where the reason stands why a field's value is refused. @param {string} id @param {string | undefined} mistake the sentence */
export const mistakeOf = (id, mistake) =>
  mistake === undefined ? nothing : html`<p class="ds-validation-message" id="${id}-mistake">${mistake}</p>`;

/**
 * @param {object} field
 * @param {string} field.id
 * @param {string} field.label
 * @param {string} field.value
 * @param {(value: string) => void} field.change
 * @param {string} [field.mistake] the sentence
 * @param {unknown} [field.hint] what stands below, for example how the value is understood
 * @param {string} [field.type]
 * @param {number} [field.rows] more than one line
 * @param {number} [field.longest] in characters
 * @param {boolean} [field.labelHidden]
 * @param {(event: KeyboardEvent) => void} [field.key]
 */
export function field({ id, label, value, change, mistake, hint = nothing, type = "text", rows, longest, labelHidden = false, key }) {
  const described = [hint === nothing ? "" : `${id}-hint`, mistake === undefined ? "" : `${id}-mistake`].join(" ").trim();
  /** @param {Event} event */
  const input = (event) => change(/** @type {HTMLInputElement} */ (event.target).value);
  return html`
    <div class="ds-field">
      <label class=${labelHidden ? "ds-sr-only" : "ds-label"} for=${id}>${label}</label>
      ${rows === undefined
        ? html`<input class="ds-input" id=${id} type=${type} autocomplete="off" .value=${value} maxlength=${longest ?? nothing}
            aria-invalid=${mistake === undefined ? nothing : "true"} aria-describedby=${described || nothing} @input=${input} @keydown=${key ?? nothing}>`
        : html`<textarea class="ds-input" id=${id} rows=${rows} .value=${value} maxlength=${longest ?? nothing}
            aria-describedby=${described || nothing} @input=${input}></textarea>`}
      ${hint === nothing ? nothing : html`<div class="hint" id="${id}-hint">${hint}</div>`}
      ${mistakeOf(id, mistake)}
    </div>
  `;
}

/** The sentence for a field's mistake. @param {import("/console/static/registering/draft.js").Mistakes} mistakes @param {string} id @param {Record<string, unknown>} [values] */
export function sentence(mistakes, id, values) {
  const mistake = mistakes.get(id);
  if (mistake === undefined) {
    return undefined;
  }
  return hasText(`form.${mistake}`) ? text(`form.${mistake}`, values) : mistakeText(mistake);
}
