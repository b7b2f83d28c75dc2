// Checkpoints and the keys that sign them (C2SP tlog-checkpoint and signed-note), as `orchestrator/receipts` writes them.

import { MalformedError, fromBase64, hex, joined, sha256, utf8 } from "/console/static/receipts/bytes.js";

/** @typedef {import("/console/static/receipts/bytes.js").Bytes} Bytes */
/** @typedef {{ name: string, id: string, public: Bytes, text: string, fingerprint: string }} Key */
/** @typedef {{ origin: string, size: number, root: string, text: string, signatures: { name: string, id: string, value: Bytes }[] }} Checkpoint */

const ED25519 = 1;

/** A public key. Throws a MalformedError for a text that is none. @param {string} text @returns {Promise<Key>} */
export async function readKey(text) {
  const match = /^([^+\s]+)\+([0-9a-f]{8})\+(.+)$/.exec(text);
  const typed = match === null ? new Uint8Array() : fromBase64(match[3]);
  if (match === null || typed.length !== 33 || typed[0] !== ED25519) {
    throw new MalformedError("not a key");
  }
  const [, name, id] = match;
  if (hex(await sha256(joined(utf8(`${name}\n`), typed))).slice(0, 8) !== id) {
    throw new MalformedError("the id is another key's");
  }
  const bytes = typed.slice(1);
  const digits = hex(await sha256(bytes)).slice(0, 32);
  return { name, id, public: bytes, text, fingerprint: (digits.match(/.{4}/g) ?? []).join(" ") };
}

/** A signed checkpoint, not yet verified. Throws a MalformedError for a text that is none. @param {string} note @returns {Checkpoint} */
export function readCheckpoint(note) {
  const end = note.indexOf("\n\n");
  const text = note.slice(0, end + 1);
  const lines = text.split("\n");
  const signed = note.slice(end + 2);
  if (end < 0 || lines.length !== 4 || lines[0] === "" || !/^(0|[1-9][0-9]{0,15})$/.test(lines[1]) || fromBase64(lines[2]).length !== 32 || !signed.endsWith("\n")) {
    throw new MalformedError("not a checkpoint");
  }
  const signatures = signed.slice(0, -1).split("\n").map((line) => {
    const match = /^— ([^ ]+) ([^ ]+)$/.exec(line);
    const value = match === null ? new Uint8Array() : fromBase64(match[2]);
    if (match === null || value.length !== 68) {
      throw new MalformedError("not a signature");
    }
    return { name: match[1], id: hex(value.slice(0, 4)), value: value.slice(4) };
  });
  return { origin: lines[0], size: Number(lines[1]), root: lines[2], text, signatures };
}

/** Whether a log with this origin is one of the organization's. @param {string} origin @param {string} organizationId */
export function isOriginOf(origin, organizationId) {
  const encoded = encodeURIComponent(organizationId).replace(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);
  return origin.slice(origin.lastIndexOf("/") + 1).split("#")[0] === encoded;
}

/** The browser can't verify Ed25519 signatures. */
export class UnsupportedError extends Error {}

/** Whether a key has signed a text. Throws an UnsupportedError. @param {Key} key @param {string} text @param {Bytes} signature */
export async function hasSigned(key, text, signature) {
  try {
    const imported = await crypto.subtle.importKey("raw", key.public, { name: "Ed25519" }, false, ["verify"]);
    return await crypto.subtle.verify({ name: "Ed25519" }, imported, signature, utf8(text));
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotSupportedError") {
      throw new UnsupportedError();
    }
    if (error instanceof DOMException && error.name === "DataError") {
      return false; // these bytes are no key
    }
    throw error;
  }
}
