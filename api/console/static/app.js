// Starts the page: the language, who is logged in, and the module of the page's path.

import * as api from "/console/static/api.js";
import { choose, LANGUAGES, language, preferred, problemText, text, use } from "/console/static/messages.js";
import { home } from "/console/static/pages/home.js";
import { loggedOut } from "/console/static/pages/logged-out.js";
import { html, nothing, render } from "/console/static/vendored.js";

const WARN_BEFORE_END_MS = 2 * 60 * 1000;

const LOGIN_FAILED = "/console/login-failed";

/** The state of the page. `page` returns its content in the current language. */
const state = {
  /** @type {any} */
  me: null,
  endsSoon: false,
  /** @type {() => unknown} */
  page: () => nothing,
};

/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

function draw() {
  const root = document.getElementById("app");
  if (root !== null) {
    render(frame(), root);
  }
}

function frame() {
  return html`
    <div class="frame">
      <header class="bar">
        <a class="name" href="/console/">${text("title")}</a>
        ${state.me === null ? nothing : who(state.me)}
        ${LANGUAGES.filter((each) => each !== language).map(
          (each) => html`<button type="button" class="ds-button" data-variant="tertiary" lang=${each} @click=${() => speak(each)}>
            ${text(`language.${each}`)}
          </button>`,
        )}
        ${state.me === null
          ? nothing
          : html`<button type="button" class="ds-button" data-variant="secondary" @click=${logOut}>${text("log_out")}</button>`}
      </header>
      <div role="status">${state.endsSoon ? warning() : nothing}</div>
      <main>${state.page()}</main>
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

function warning() {
  return html`
    <div class="ds-alert" data-color="warning">
      <p class="ds-paragraph">${text("session.ends_soon")}</p>
      <button type="button" class="ds-button" @click=${extend}>${text("session.extend")}</button>
    </div>
  `;
}

/** @param {string} wanted */
async function speak(wanted) {
  await choose(wanted);
  draw();
}

async function extend() {
  try {
    remember(await api.me());
  } catch (error) {
    failed(error);
  }
}

async function logOut() {
  try {
    const next = await api.logOut();
    // Replaces this page in the history, so that Back does not lead to it.
    location.replace(next ?? "/console/");
  } catch (error) {
    failed(error);
  }
}

/** Keeps who is logged in, and warns two minutes before the session ends. @param {any} me */
function remember(me) {
  const knownAt = Date.now();
  state.me = me;
  state.endsSoon = false;
  clearTimeout(timer);
  if (me.session_ends_at !== null) {
    timer = setTimeout(() => {
      if (api.lastUse > knownAt) {
        extend(); // the session was used meanwhile, so it ends later
      } else {
        state.endsSoon = true;
        timer = setTimeout(() => showLoggedOut("session_ended"), WARN_BEFORE_END_MS);
        draw();
      }
    }, Math.max(0, Date.parse(me.session_ends_at) - knownAt - WARN_BEFORE_END_MS));
  }
  draw();
}

/** @param {string | null} reason */
function showLoggedOut(reason) {
  clearTimeout(timer);
  state.me = null;
  state.endsSoon = false;
  state.page = () => loggedOut(reason === null ? null : text(`logged_out.${reason}`));
  draw();
}

/** @param {unknown} error */
function failed(error) {
  if (!(error instanceof api.Problem)) {
    throw error;
  }
  if (error.needsLogin) {
    showLoggedOut(error.code === "session_ended" ? "session_ended" : null);
    return;
  }
  state.page = () => html`
    <div class="ds-alert" data-color="danger" role="alert">
      <h1 class="ds-heading" data-size="sm">${text("problem")}</h1>
      <p class="ds-paragraph">${problemText(error.code)}</p>
      <button type="button" class="ds-button" @click=${start}>${text("try_again")}</button>
    </div>
  `;
  draw();
}

async function start() {
  if (location.pathname === LOGIN_FAILED) {
    showLoggedOut(new URLSearchParams(location.search).get("reason"));
    return;
  }
  try {
    remember(await api.me());
    state.page = await home(state.me);
    draw();
  } catch (error) {
    failed(error);
  }
}

// A page that Back restores from the browser's memory may belong to a session that has ended.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) {
    location.reload();
  }
});

await use(preferred());
await start();
