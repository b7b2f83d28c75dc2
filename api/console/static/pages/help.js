// How the console works, on one page. Everybody can read it; those who are logged in see what concerns their role.

import { text } from "/console/static/messages.js";
import { html } from "/console/static/vendored.js";

const REGISTERING = ["coordinator", "admin"];

/** @type {{ name: string, points: number, isSequence?: boolean, roles?: string[] }[]} a section without roles is for everybody */
const SECTIONS = [
  { name: "register", points: 5, isSequence: true, roles: REGISTERING },
  { name: "again", points: 2, roles: REGISTERING },
  { name: "file", points: 4, roles: REGISTERING },
  { name: "failed", points: 4, roles: REGISTERING },
  { name: "undo", points: 3, roles: REGISTERING },
  { name: "admin", points: 3, roles: ["admin"] },
  { name: "read", points: 3 },
  { name: "receipt", points: 3 },
  { name: "privacy", points: 4 },
  { name: "keys", points: 2 },
];

/** @param {import("/console/static/app.js").Context} context */
export async function page({ me }) {
  const sections = SECTIONS.filter(({ roles }) => me === null || roles === undefined || roles.includes(me.role));
  return () => html`
    <h1 class="ds-heading" data-size="lg">${text("help.heading")}</h1>
    <p class="ds-paragraph prose">${text("help.lead")}</p>
    <nav class="contents" aria-labelledby="contents">
      <h2 class="ds-heading" data-size="2xs" id="contents">${text("help.contents")}</h2>
      <ul>${sections.map(({ name }) => html`<li><a class="ds-link" href="#${name}">${text(`help.${name}`)}</a></li>`)}</ul>
    </nav>
    <div class="topics">
      ${sections.map(
        ({ name, points, isSequence = false }) => html`
          <section aria-labelledby=${name}>
            <h2 class="ds-heading" data-size="sm" id=${name} tabindex="-1">${text(`help.${name}`)}</h2>
            ${list(isSequence, numbers(points).map((number) => html`<li>${text(`help.${name}.${number}`)}</li>`))}
          </section>
        `,
      )}
    </div>
  `;
}

/** 1, 2, 3 … @param {number} count */
const numbers = (count) => Array.from({ length: count }, (_, index) => index + 1);

/** @param {boolean} isSequence @param {unknown[]} points */
const list = (isSequence, points) => (isSequence ? html`<ol class="points">${points}</ol>` : html`<ul class="points">${points}</ul>`);
