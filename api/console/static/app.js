// Starts the page: the language, who is logged in, and the module of the page's path.

import * as api from "/console/static/api.js";
import { putAway, takeOut } from "/console/static/components/dialog.js";
import { frame, unexpected } from "/console/static/components/frame.js";
import { problemAlert } from "/console/static/components/problem.js";
import { addDays, startOfDay } from "/console/static/dates.js";
import { keepingFocus } from "/console/static/focus.js";
import { choose, preferred, text, use } from "/console/static/messages.js";
import { loggedOut } from "/console/static/pages/logged-out.js";
import { ignoreRepeats } from "/console/static/repeats.js";
import { pageOf } from "/console/static/routes.js";
import { html, nothing, render } from "/console/static/vendored.js";

/**
 * What a page gets. A page is a function of it that loads what the page shows and returns the function that draws it.
 *
 * @typedef {object} Context
 * @property {any} me who is logged in, and what applies to them; null on pages that need no login
 * @property {Record<string, string>} values the values in the path, like `batch_id`
 * @property {URLSearchParams} query
 * @property {() => void} redraw draws the page again, after its state has changed
 * @property {(error: unknown) => void} fail shows a problem in place of the page
 * @property {(resume: () => void) => void} ended hides the page until the same person has logged in again, and then calls `resume`
 *
 * @typedef {() => unknown} Drawing
 */

// A page that is there sooner says nothing of loading.
const LOADING_AFTER_MS = 300;

const WARN_BEFORE_END_MS = 2 * 60 * 1000;

// Midnight may come a little later than this device believes.
const ASK_AGAIN_MS = 60 * 1000;

/** The state of the page. `page` returns its content in the current language. */
const state = {
  /** @type {any} */
  me: null,
  endsSoon: false,
  /** Whether something happened that no part of the page expected. */
  isBroken: false,
  /** @type {(() => void) | null} what to do once the person has logged in again; null while the session lasts */
  resume: null,
  /** @type {Drawing} */
  page: () => nothing,
};

/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** @type {ReturnType<typeof setTimeout> | undefined} */
let midnight;

function draw() {
  const root = document.getElementById("app");
  if (root !== null) {
    keepingFocus(() => {
      render(frame({ ...state, page: drawn, isEnded: state.resume !== null, speak, extend, logOut, comeBack, calmDown }), root);
    });
  }
}

/** The page, or that it can't be drawn. */
function drawn() {
  try {
    return state.page();
  } catch (error) {
    console.error(error);
    return unexpected(1);
  }
}

/** Says that something in the page failed. The page stays, with what was typed. */
function failedUnexpectedly() {
  if (!state.isBroken) {
    state.isBroken = true;
    draw();
  }
}

function calmDown() {
  state.isBroken = false;
  draw();
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
    if (!(error instanceof api.Problem)) {
      throw error;
    }
    if (error.needsLogin) {
      ended(() => {});
    } // otherwise the warning stays, and its button can be tried again
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

/** Keeps who is logged in, and warns two minutes before the session ends. Pages hold the first object, so it gets what is new. @param {any} me */
function remember(me) {
  const knownAt = Date.now();
  state.me = Object.assign(state.me ?? {}, me);
  awaitMidnight();
  state.endsSoon = false;
  clearTimeout(timer);
  if (me.session_ends_at !== null) {
    timer = setTimeout(() => {
      if (api.lastUse > knownAt) {
        extend(); // the session was used meanwhile, so it ends later
      } else {
        state.endsSoon = true;
        timer = setTimeout(() => ended(() => {}), WARN_BEFORE_END_MS);
        draw();
      }
    }, Math.max(0, Date.parse(me.session_ends_at) - api.now() - WARN_BEFORE_END_MS));
  }
  draw();
}

/** When the organization's next day begins, in milliseconds since 1970. */
const nextDay = () => Date.parse(startOfDay(addDays(state.me.organization.today, 1), state.me.organization.time_zone));

function awaitMidnight() {
  clearTimeout(midnight);
  midnight = setTimeout(readToday, Math.max(ASK_AGAIN_MS, nextDay() - api.now()));
}

/** Reads what day it is: a page that is open over midnight must not take yesterday for today. */
async function readToday() {
  if (state.me === null || state.resume !== null) {
    return;
  }
  try {
    remember(await api.me({ unattended: true }));
  } catch (error) {
    if (!(error instanceof api.Problem)) {
      throw error;
    }
    awaitMidnight(); // the next request says whether the session has ended
  }
}

/** Hides the page, but loses nothing of it: a form may be half filled in. @param {() => void} resume */
function ended(resume) {
  clearTimeout(timer);
  state.endsSoon = false;
  state.resume = resume;
  putAway();
  draw();
}

/** Shows the page again, if the same person has logged in. */
async function comeBack() {
  const resume = state.resume;
  let me;
  try {
    me = await api.me();
  } catch (error) {
    if (error instanceof api.Problem) {
      draw(); // still logged out: the page stays hidden
      return;
    }
    throw error;
  }
  if (!isSame(me, state.me)) {
    location.assign("/console/"); // somebody else: what the first person typed is not for their eyes
    return;
  }
  state.resume = null;
  remember(me);
  takeOut();
  resume?.();
}

/** @param {any} one @param {any} other */
function isSame(one, other) {
  return (
    one.subject === other.subject && one.role === other.role && one.organization.organization_id === other.organization.organization_id
  );
}

/** @param {string | null} reason */
function showLoggedOut(reason) {
  clearTimeout(timer);
  state.me = null;
  state.endsSoon = false;
  state.page = () => loggedOut(reason === null ? null : text(`logged_out.${reason}`));
  draw();
}

/** Shows a problem in place of the page. @param {unknown} error */
function failed(error) {
  if (!(error instanceof api.Problem)) {
    console.error(error);
    state.page = () => unexpected(1);
    draw();
    return;
  }
  if (error.needsLogin) {
    showLoggedOut(error.code === "session_ended" ? "session_ended" : null);
    return;
  }
  state.page = () => problemAlert(error, { label: text("try_again"), act: () => location.reload() }, 1);
  draw();
}

async function start() {
  const query = new URLSearchParams(location.search);
  const found = pageOf(location.pathname);
  if (found === null) {
    showLoggedOut(query.get("reason"));
    return;
  }
  const loading = setTimeout(() => {
    state.page = () => html`<p class="ds-paragraph" role="status">${text("loading")}</p>`;
    draw();
  }, LOADING_AFTER_MS);
  try {
    await (found.isPublic ? remembered() : api.me().then(remember));
    const drawing = await found.page({ me: state.me, values: found.values, query, redraw: draw, fail: failed, ended });
    clearTimeout(loading);
    state.page = drawing;
    draw();
  } catch (error) {
    clearTimeout(loading);
    failed(error);
  }
}

/** Remembers who is logged in, if somebody is. */
async function remembered() {
  try {
    remember(await api.me());
  } catch (error) {
    if (!(error instanceof api.Problem)) {
      throw error;
    }
  }
}

// A page that Back restores from the browser's memory may belong to a session that has ended.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) {
    location.reload();
  }
});

// Timers stand still while a device sleeps.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && state.me !== null && api.now() >= nextDay()) {
    readToday();
  }
});

// Whatever no part of the page expects ends up here. The scripts of extensions are none of ours.
window.addEventListener("unhandledrejection", failedUnexpectedly);
window.addEventListener("error", (event) => {
  if (event.filename.startsWith(location.origin)) {
    failedUnexpectedly();
  }
});

ignoreRepeats();
await use(preferred());
await start();
