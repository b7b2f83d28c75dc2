// The accessibility statement. Everybody can read it.

import { text } from "/console/static/messages.js";
import { html } from "/console/static/vendored.js";

const PARAGRAPHS = ["standard", "status", "tested", "not_tested", "known", "contact", "complaint", "date"];

export async function page() {
  return () => html`
    <h1 class="ds-heading" data-size="lg">${text("accessibility.heading")}</h1>
    <p class="ds-paragraph prose">${text("accessibility.lead")}</p>
    ${PARAGRAPHS.map(
      (name) => html`
        <section class="prose" aria-labelledby=${name}>
          <h2 class="ds-heading" data-size="sm" id=${name}>${text(`accessibility.${name}`)}</h2>
          <p class="ds-paragraph">${text(`accessibility.${name}.text`)}</p>
        </section>
      `,
    )}
  `;
}
