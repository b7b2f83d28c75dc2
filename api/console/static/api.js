// Talks to the HTTP API. No other module sends requests to it.

const API = "/api/v1";

// The API accepts the session's cookie only with this header.
const HEADERS = { "X-Bulkreg-Console": "1", Accept: "application/json" };

/** The reason that the API gives for refusing a request. The code `offline` is ours and means that no response came. */
export class Problem extends Error {
  /** @param {string} code @param {number} status */
  constructor(code, status) {
    super(code);
    this.code = code;
    this.status = status;
  }

  /** Whether the person has to log in. */
  get needsLogin() {
    return this.status === 401;
  }
}

/** When the last response came, in milliseconds since 1970. The session's idle time began then. */
export let lastUse = 0;

/** @param {string} path @param {RequestInit} [options] @returns {Promise<any>} */
async function send(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: HEADERS, cache: "no-store", credentials: "same-origin" });
  } catch {
    throw new Problem("offline", 0);
  }
  const isJson = (response.headers.get("Content-Type") ?? "").includes("json");
  const body = isJson ? await response.json() : null;
  if (!response.ok) {
    throw new Problem(body?.code ?? "internal_error", response.status);
  }
  lastUse = Date.now();
  return body;
}

/** Who is logged in, and what applies to them. */
export const me = () => send(`${API}/me`);

/** The newest batches. @param {number} limit */
export const newestBatches = (limit) => send(`${API}/bulk-registrations?limit=${limit}`);

/** Ends the session. Returns the address that ends the provider's own session, or null. @returns {Promise<string | null>} */
export const logOut = async () => (await send("/console/logout", { method: "POST" })).continue_at;
