// The frame of every page: the bar with the pages, who is logged in, the warning before the session ends, and the footer.

import * as messages from "/console/static/messages.js";
import { LANGUAGES, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

const EVERYBODY = ["coordinator", "admin", "auditor"];
const SUBMITTERS = ["coordinator", "admin"];

// `also`: pages that are reached by way of this one.
/** @type {{ path: string, name: string, roles: string[], also?: string[] }[]} */
const LINKS = [
  { path: "/console/", name: "home", roles: EVERYBODY },
  { path: "/console/new", name: "new", roles: SUBMITTERS },
  { path: "/console/batches", name: "batches", roles: EVERYBODY },
  { path: "/console/templates", name: "templates", roles: SUBMITTERS },
  { path: "/console/activities", name: "activities", roles: EVERYBODY, also: ["/console/period", "/console/forget"] },
  { path: "/console/receipts", name: "receipts", roles: ["admin", "auditor"] },
  { path: "/console/webhooks", name: "webhooks", roles: ["admin", "auditor"] },
  { path: "/console/help", name: "help", roles: EVERYBODY },
];

/**
 * @param {{
 *   me: any, endsSoon: boolean, isBroken: boolean, isEnded: boolean, page: () => unknown,
 *   speak: (language: string) => void, extend: () => void, logOut: () => void, comeBack: () => void, calmDown: () => void,
 * }} parts
 */
export function frame({ me, endsSoon, isBroken, isEnded, page, speak, extend, logOut, comeBack, calmDown }) {
  return html`
    <a class="skip ds-link" href="#content">${text("skip")}</a>
    <div class="frame">
      <header class="bar">
        <a class="name" href="/console/">${text("title")}</a>
        ${me === null ? nothing : who(me)}
        ${LANGUAGES.filter((each) => each !== messages.language).map(
          (each) => html`<button type="button" class="ds-button" data-variant="tertiary" lang=${each} @click=${() => speak(each)}>
            ${text(`language.${each}`)}
          </button>`,
        )}
        ${me === null
          ? nothing
          : html`<button type="button" class="ds-button" data-variant="secondary" @click=${logOut}>${text("log_out")}</button>`}
      </header>
      ${me === null ? nothing : pages(me.role)}
      <div role="status">${endsSoon ? warning(extend) : nothing}</div>
      ${isBroken ? unexpected(2, calmDown) : nothing}
      ${isEnded ? html`<main>${sessionEnded(comeBack)}</main>` : nothing}
      <main id="content" tabindex="-1" ?hidden=${isEnded}>${page()}</main>
      <footer class="foot">
        <a class="ds-link" href="/console/receipts">${text("receipt.heading")}</a>
        <a class="ds-link" href="/console/accessibility">${text("nav.accessibility")}</a>
      </footer>
    </div>
  `;
}

/** @param {any} me */
function who(me) {
  return html`
    <div class="who">
      <span>${me.name ?? me.subject}</span>
      <small>${text(`role.${me.role}`)}, ${me.organization.name}</small>
    </div>
  `;
}

/** @param {string} role */
function pages(role) {
  return html`
    <nav class="pages" aria-label=${text("nav")}>
      ${LINKS.filter((link) => link.roles.includes(role)).map(
        ({ path, name, also }) =>
          html`<a href=${path} aria-current=${current(path, also) ?? nothing}>${text(`nav.${name}`)}</a>`,
      )}
    </nav>
  `;
}

/** Whether a link leads to this page, or to one that this page belongs to. @param {string} path @param {string[]} [also] */
function current(path, also = []) {
  if (path === location.pathname) {
    return "page";
  }
  return also.includes(location.pathname) || path !== "/console/" && location.pathname.startsWith(`${path}/`) ? "true" : null;
}

/** @param {() => void} extend */
function warning(extend) {
  return html`
    <div class="ds-alert" data-color="warning">
      <p class="ds-paragraph">${text("session.ends_soon")}</p>
      <button type="button" class="ds-button" @click=${extend}>${text("session.extend")}</button>
    </div>
  `;
}

/**
 * That something failed which no part of the page expected: in place of the page (1), or above it with all that was typed (2).
 *
 * @param {1 | 2} level @param {() => void} [close]
 */
export function unexpected(level, close) {
  const heading = text("problem");
  return html`
    <div class="ds-alert" data-color="danger" role="alert">
      ${level === 1 ? html`<h1 class="ds-heading" data-size="sm">${heading}</h1>` : html`<h2 class="ds-heading" data-size="xs">${heading}</h2>`}
      <p class="ds-paragraph">${level === 1 ? text("unexpected.page") : text("unexpected")}</p>
      <p class="buttons">
        <button type="button" class="ds-button" data-variant=${level === 1 ? "primary" : "secondary"} @click=${() => location.reload()}>${text("unexpected.reload")}</button>
        ${close === undefined ? nothing : html`<button type="button" class="ds-button" data-variant="tertiary" @click=${close}>${text("close")}</button>`}
      </p>
    </div>
  `;
}

/** @param {() => void} comeBack */
function sessionEnded(comeBack) {
  return html`
    <div class="ds-alert" data-color="warning" role="alert">
      <h1 class="ds-heading" data-size="sm">${text("session.ended")}</h1>
      <p class="ds-paragraph">${text("session.nothing_lost")}</p>
      <p class="buttons">
        <a class="ds-button" href="/console/login" target="_blank" rel="noopener">${text("session.log_in_new_tab")}</a>
        <button type="button" class="ds-button" data-variant="secondary" @click=${comeBack}>${text("session.continue")}</button>
      </p>
    </div>
  `;
}
