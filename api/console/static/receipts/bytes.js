// Bytes, their texts, and the hashes of them that the browser computes.

const UTF8 = new TextEncoder();

/** @typedef {Uint8Array<ArrayBuffer>} Bytes */

/** A text of a receipt is not what it should be. */
export class MalformedError extends Error {}

/** @param {string} text @returns {Bytes} */
export const utf8 = (text) => UTF8.encode(text);

/** @param {(Bytes | number[])[]} parts @returns {Bytes} */
export const joined = (...parts) => new Uint8Array(parts.flatMap((part) => [...part]));

/** @param {Bytes} bytes */
export const base64 = (bytes) => btoa(String.fromCharCode(...bytes));

/** @param {Bytes} bytes */
export const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** The bytes of a text in base64. Throws a MalformedError if `base64` would have written another text. @param {string} text @returns {Bytes} */
export function fromBase64(text) {
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text)) {
    throw new MalformedError("not base64");
  }
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  if (base64(bytes) !== text) {
    throw new MalformedError("not base64 in its only form");
  }
  return bytes;
}

/** @param {Bytes} bytes @returns {Promise<Bytes>} */
export const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));

/** HMAC-SHA256 in hexadecimal digits. @param {Bytes} key @param {string} text */
export async function hmac(key, text) {
  const imported = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return hex(new Uint8Array(await crypto.subtle.sign("HMAC", imported, utf8(text))));
}
