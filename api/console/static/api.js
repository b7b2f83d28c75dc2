// Talks to the HTTP API. No other module sends requests to it.

import { reading } from "/console/static/reading.js";

const API = "/api/v1";
const BATCHES = `${API}/bulk-registrations`;

// The API accepts the session's cookie only with this header.
const HEADERS = { "X-Bulkreg-Console": "1", Accept: "application/json" };

// Without a Retry-After the action is repeated after this time.
const DEFAULT_RETRY_S = 5;

/** The reason that the API gives for refusing a request. The code `offline` is ours and means that no response came. */
export class Problem extends Error {
  /** @param {string} code @param {number} status @param {any} [body] the problem details @param {number} [retryAfter] in seconds */
  constructor(code, status, body = {}, retryAfter = DEFAULT_RETRY_S) {
    super(code);
    this.code = code;
    this.status = status;
    this.values = body;
    this.retryAfter = retryAfter;
  }

  /** Whether the person has to log in. */
  get needsLogin() {
    return this.status === 401;
  }

  /** Whether the same request may succeed later. */
  get mayPass() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500 && this.status !== 501;
  }
}

/** When the last response to a person came, in milliseconds since 1970. The session's idle time began then. */
export let lastUse = 0;

/** How far the clock of this device is ahead of the server's, in milliseconds. */
let ahead = 0;

/** The server's time, in milliseconds since 1970. The clock of a device may be hours wrong. */
export const now = () => Date.now() - ahead;

/**
 * @typedef {object} Options
 * @property {Record<string, unknown>} [query] parameters; undefined and null ones are left out, lists are repeated
 * @property {unknown} [json] the body
 * @property {Blob | string} [file] a body that is a file
 * @property {string} [type] the file's content type
 * @property {string} [key] the Idempotency-Key
 * @property {string | null} [match] the ETag that the resource must still have
 * @property {string | null} [known] the ETag that the page already has
 * @property {AbortSignal} [signal]
 * @property {boolean} [reads] whether it changes nothing: a GET, unless this says otherwise
 * @property {boolean} [asFile] whether the body is returned as it came, as a Blob
 * @property {boolean} [unattended] whether the page sends it by itself, so that it does not keep the session alive
 */

/**
 * Sends a request. Returns the body and the ETag; the body is null for 304 and for responses without one, and a Blob for
 * a file. Throws a `Problem`.
 *
 * @param {string} method @param {string} path @param {Options} [options] @returns {Promise<{ body: any, tag: string | null }>}
 */
async function send(method, path, { query = {}, json, file, type, key, match, known, signal, unattended = false, asFile = false, reads = method === "GET" } = {}) {
  /** @type {Record<string, string>} */
  const headers = { ...HEADERS };
  if (json !== undefined) {
    headers["Content-Type"] = "application/json";
  }
  if (type !== undefined) {
    headers["Content-Type"] = type;
  }
  if (key !== undefined) {
    headers["Idempotency-Key"] = key;
  }
  if (match) {
    headers["If-Match"] = match;
  }
  if (known) {
    headers["If-None-Match"] = known;
  }
  if (unattended) {
    headers["X-Bulkreg-Unattended"] = "1";
  }
  const ask = async () => {
    const response = await fetch(path + search(query), {
      method, headers, signal, cache: "no-store", credentials: "same-origin", body: json === undefined ? file : JSON.stringify(json),
    });
    const kind = response.headers.get("Content-Type") ?? "";
    const isFile = kind.startsWith("text/csv") || asFile && response.ok;
    const body = isFile ? await response.blob() : kind.includes("json") ? await response.json() : null;
    return { response, body };
  };
  let response;
  let body;
  try {
    ({ response, body } = await (reads ? reading(ask) : ask()));
  } catch (error) {
    if (signal?.aborted) {
      throw error;
    }
    throw new Problem("offline", 0);
  }
  if (!response.ok && response.status !== 304) {
    const seconds = Number(response.headers.get("Retry-After") ?? DEFAULT_RETRY_S);
    throw new Problem(body?.code ?? "internal_error", response.status, body ?? {}, Number.isFinite(seconds) ? Math.max(1, seconds) : DEFAULT_RETRY_S);
  }
  const said = Date.parse(response.headers.get("Date") ?? "");
  if (!Number.isNaN(said)) {
    ahead = Date.now() - said;
  }
  if (!unattended) {
    lastUse = Date.now();
  }
  return { body, tag: response.headers.get("ETag") };
}

/** @param {Record<string, unknown>} query */
function search(query) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null && each !== "") {
        parameters.append(name, String(each));
      }
    }
  }
  const all = parameters.toString();
  return all === "" ? "" : `?${all}`;
}

/** All pages of a list. @param {string} path @param {Record<string, unknown>} query */
async function everything(path, query) {
  const found = [];
  let cursor;
  do {
    const { body } = await send("GET", path, { query: { ...query, cursor } });
    found.push(...body.data);
    cursor = body.next_cursor;
  } while (cursor !== null);
  return found;
}

/** A new Idempotency-Key. */
export const newKey = () => crypto.randomUUID();

/** Who is logged in, and what applies to them. @param {Options} [options] */
export const me = async (options) => (await send("GET", `${API}/me`, options)).body;

/** Ends the session. Returns the address that ends the provider's own session, or null. @returns {Promise<string | null>} */
export const logOut = async () => (await send("POST", "/console/logout")).body.continue_at;

// The directory.

const DIRECTORY_PAGE = 1000;

/** Every mentor of a scope. Names are never part of an address. @param {{ coordinator_id?: string, active_on?: string }} query */
export const mentors = (query) => everything(`${API}/directory/mentors`, { ...query, limit: DIRECTORY_PAGE });

/** @param {{ coordinator_id?: string }} [query] */
export const chapters = (query = {}) => everything(`${API}/directory/chapters`, { ...query, limit: DIRECTORY_PAGE });

export const activityTypes = () => everything(`${API}/directory/activity-types`, { limit: DIRECTORY_PAGE });

/** For administrators and auditors. */
export const coordinators = () => everything(`${API}/directory/coordinators`, { limit: DIRECTORY_PAGE });

// Batches.

/** One page of batches, newest first. @param {Record<string, unknown>} query */
export const batches = async (query) => (await send("GET", BATCHES, { query })).body;

/** One batch and a page of its items. @param {string} batchId @param {Record<string, unknown>} [query] @param {Options} [options] */
export const batch = (batchId, query = {}, options = {}) => send("GET", `${BATCHES}/${batchId}`, { ...options, query });

/** @param {string} batchId @param {string} itemId */
export const item = async (batchId, itemId) =>
  (await send("GET", `${BATCHES}/${batchId}/items/${itemId}`, { query: { names: true } })).body;

/** @param {unknown} submission @param {AbortSignal} [signal] */
export const preview = async (submission, signal) =>
  (await send("POST", `${BATCHES}/preview`, { json: submission, query: { names: true }, signal, reads: true })).body;

/** @param {unknown} submission @param {string} key */
export const submit = async (submission, key) => (await send("POST", BATCHES, { json: submission, key })).body;

/** @param {Blob | string} file @param {string} type */
export const readFile = async (file, type) => (await send("POST", `${BATCHES}/read-file`, { file, type, reads: true })).body;

/** @param {string} batchId @param {string | null} label @param {string | null} match */
export const rename = async (batchId, label, match) => (await send("PUT", `${BATCHES}/${batchId}`, { json: { label }, match })).body;

/** @param {string} batchId @param {string | null} match */
export const deleteBatch = (batchId, match) => send("DELETE", `${BATCHES}/${batchId}`, { match });

/** @param {string} batchId @param {unknown} retry @param {string} key */
export const retry = async (batchId, retry, key) => (await send("POST", `${BATCHES}/${batchId}/retry`, { json: retry, key })).body;

/** @param {string} batchId @param {string | null} reason @param {string} key */
export const cancel = async (batchId, reason, key) =>
  (await send("POST", `${BATCHES}/${batchId}/cancel`, { json: reason === null ? {} : { cancellation_reason: reason }, key })).body;

/** @param {string} batchId @param {unknown} revocation @param {string} key */
export const revoke = async (batchId, revocation, key) =>
  (await send("POST", `${BATCHES}/${batchId}/revoke`, { json: revocation, key })).body;

/** @param {string} batchId @param {string} itemId */
export const eraseNotes = (batchId, itemId) => send("DELETE", `${BATCHES}/${batchId}/items/${itemId}/notes`);

/** "Done with it". @param {string} batchId @param {string} key */
export const dismiss = async (batchId, key) => (await send("POST", `${BATCHES}/${batchId}/dismiss`, { key })).body;

/** The address of a ticket's event stream. @param {string} batchId @param {Record<string, unknown>} query */
export async function eventsAddress(batchId, query) {
  const { ticket } = (await send("POST", `${BATCHES}/${batchId}/events`, { unattended: true })).body;
  return `${BATCHES}/${batchId}/events${search({ ...query, ticket })}`;
}

/** The address of a batch's results as a file. @param {string} batchId @param {Record<string, unknown>} [query] */
export const resultsAddress = (batchId, query = {}) => `${BATCHES}/${batchId}/results.csv${search(query)}`;

// Templates.

export const templates = () => everything(`${API}/templates`, { limit: 200 });

/** @param {string} templateId */
export const template = (templateId) => send("GET", `${API}/templates/${templateId}`);

/** @param {unknown} template @param {string} key */
export const createTemplate = async (template, key) => (await send("POST", `${API}/templates`, { json: template, key })).body;

/** @param {string} templateId @param {unknown} template @param {string | null} match */
export const replaceTemplate = async (templateId, template, match) =>
  (await send("PUT", `${API}/templates/${templateId}`, { json: template, match })).body;

/** @param {string} templateId @param {string | null} match */
export const deleteTemplate = (templateId, match) => send("DELETE", `${API}/templates/${templateId}`, { match });

// Activities.

const ACTIVITIES = `${API}/activities`;

/** One page of activities, latest date first. @param {Record<string, unknown>} query */
export const activities = async (query) => (await send("GET", ACTIVITIES, { query })).body;

/** @param {Record<string, unknown>} query */
export const activitySummary = async (query) => (await send("GET", `${ACTIVITIES}/summary`, { query })).body;

/** @param {string} activityId */
export const activity = async (activityId) => (await send("GET", `${ACTIVITIES}/${activityId}`)).body;

/** @param {string} activityId @param {string} reason @param {string} key */
export const revokeActivity = async (activityId, reason, key) =>
  (await send("POST", `${ACTIVITIES}/${activityId}/revoke`, { json: { reason }, key })).body;

/** All activities of a query as CSV. @param {Record<string, unknown>} query @returns {Promise<Blob>} */
export const activitiesFile = async (query) => (await send("GET", `${ACTIVITIES}.csv`, { query })).body;

// Webhooks.

const WEBHOOKS = `${API}/webhooks`;

/** All webhooks of the organization. */
export const webhooks = async () => (await send("GET", WEBHOOKS)).body;

/** The newest changes of webhooks: who did what. */
export const webhookChanges = async () => (await send("GET", `${API}/webhook-changes`, { query: { limit: 20 } })).body;

/** @param {{ url: string, events: string[] }} webhook @param {string} key */
export const createWebhook = async (webhook, key) => (await send("POST", WEBHOOKS, { json: webhook, key })).body;

/** @param {string} webhookId @param {string} key */
export const rotateWebhookSecret = async (webhookId, key) => (await send("POST", `${WEBHOOKS}/${webhookId}/rotate-secret`, { key })).body;

/** @param {string} webhookId */
export const enableWebhook = (webhookId) => send("POST", `${WEBHOOKS}/${webhookId}/enable`);

/** @param {string} webhookId */
export const testWebhook = (webhookId) => send("POST", `${WEBHOOKS}/${webhookId}/test`);

/** @param {string} webhookId */
export const deleteWebhook = (webhookId) => send("DELETE", `${WEBHOOKS}/${webhookId}`);

/** One page of deliveries, newest first. @param {string} webhookId @param {Record<string, unknown>} query @param {boolean} [unattended] */
export const deliveries = async (webhookId, query, unattended = false) =>
  (await send("GET", `${WEBHOOKS}/${webhookId}/deliveries`, { query, unattended })).body;

/** @param {string} webhookId @param {string} eventId */
export const redeliver = (webhookId, eventId) => send("POST", `${WEBHOOKS}/${webhookId}/deliveries/${eventId}/redeliver`);

// The closed period.

const PERIOD = `${API}/organization/closed-period`;

/** The closed period and its latest changes, with the ETag. */
export const closedPeriod = () => send("GET", PERIOD);

/** @param {{ closed_through: string | null, reason: string }} change @param {string} key @param {string | null} match */
export const changePeriod = async (change, key, match) => (await send("PUT", PERIOD, { json: change, key, match })).body;

// Forgetting a mentor.

const FORGETTINGS = `${API}/directory/forgettings`;

/** @param {string} mentorId */
export const forgetMentor = async (mentorId) => (await send("POST", FORGETTINGS, { json: { mentor_id: mentorId } })).body;

/** What has become of a request. @param {string} forgettingId */
export const forgetting = async (forgettingId) => (await send("GET", `${FORGETTINGS}/${forgettingId}`)).body;

// Receipts.

/** A batch's receipt. Its bytes must not change, so it is not read as JSON. @param {string} batchId @returns {Promise<Blob>} */
export const receipt = async (batchId) => (await send("GET", `${BATCHES}/${batchId}/receipt`, { asFile: true })).body;

/** The keys that sign receipts, or did so: `{ key, current }`. @returns {Promise<{ key: string, current: boolean }[]>} */
export const receiptKeys = async () => (await send("GET", `${API}/receipts/keys`)).body.keys;
