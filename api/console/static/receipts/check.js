// Checks a receipt in the browser alone: no request is sent. It finds what `orchestrator/receipts/receipt.py` finds, under the same names.

import { MalformedError, fromBase64, hmac } from "/console/static/receipts/bytes.js";
import { canonical } from "/console/static/receipts/canonical.js";
import { hasSigned, isOriginOf, readCheckpoint, readKey } from "/console/static/receipts/checkpoint.js";
import { Tree } from "/console/static/receipts/merkle.js";
import { isReceipt } from "/console/static/receipts/shape.js";

/** @typedef {import("/console/static/receipts/checkpoint.js").Key} Key */
/** @typedef {{ fault: string, position: number | null }} Fault of the whole receipt, or of the item at a position in its list */

/**
 * @typedef {object} Checked
 * @property {Fault[]} faults none if the receipt holds
 * @property {any} receipt null if it could not be read
 * @property {import("/console/static/receipts/checkpoint.js").Checkpoint | null} checkpoint
 * @property {Key[]} signers
 */

/**
 * @param {ArrayBuffer} raw
 * @param {(done: number, of: number) => void} [progress] called after each record
 * @returns {Promise<Checked>}
 */
export async function check(raw, progress = () => {}) {
  const text = decoded(raw);
  const receipt = parsed(text);
  if (!isReceipt(receipt)) {
    return { faults: [whole("unreadable")], receipt: null, checkpoint: null, signers: [] };
  }
  const faults = text === canonical(receipt) ? [] : [whole("rewritten")];
  /** @type {Key[]} */
  const keys = [];
  for (const each of receipt.keys) {
    const key = await unlessMalformed(() => readKey(each));
    if (key === null) {
      faults.push(whole("key_malformed"));
    } else {
      keys.push(key);
    }
  }
  const checkpoint = await unlessMalformed(() => readCheckpoint(receipt.checkpoint));
  if (checkpoint === null) {
    return { faults: [...faults, whole("checkpoint_malformed")], receipt, checkpoint, signers: [] };
  }
  const signers = [];
  for (const signature of checkpoint.signatures) {
    const named = keys.filter((key) => key.name === signature.name && key.id === signature.id);
    const signer = await first(named, (key) => hasSigned(key, checkpoint.text, signature.value));
    if (signer === undefined) {
      faults.push(whole(named.length === 0 ? "key_unknown" : "signature_wrong"));
      break;
    }
    signers.push(signer);
  }
  const items = new Items(checkpoint);
  for (const [position, item] of receipt.items.entries()) {
    faults.push(...(await items.faultsOf(item)).map((fault) => ({ fault, position })));
    progress(position + 1, receipt.items.length);
  }
  return { faults, receipt, checkpoint, signers: faults.some(({ fault }) => SIGNATURE.includes(fault)) ? [] : signers };
}

const SIGNATURE = ["key_unknown", "signature_wrong"];

class Items {
  #tree = new Tree();
  #previous = -1;
  /** The hashes of people that were computed: many records have the same coordinator. @type {Map<string, Promise<string | null>>} */
  #people = new Map();

  /** @param {import("/console/static/receipts/checkpoint.js").Checkpoint} checkpoint */
  constructor(checkpoint) {
    this.checkpoint = checkpoint;
  }

  /** @param {any} item */
  async faultsOf({ item_id, index, leaf, proof, people }) {
    const { origin, size, root } = this.checkpoint;
    const faults = [];
    if (index <= this.#previous) {
      faults.push("order_wrong");
    }
    this.#previous = index;
    const reached = await unlessMalformed(() => {
      proof.forEach(fromBase64);
      return this.#tree.rootOf(canonical(leaf), index, size, proof);
    });
    if (reached !== root) {
      faults.push(reached === null ? "proof_malformed" : "record_changed");
    }
    if (item_id !== leaf.item_id || !isOriginOf(origin, leaf.organization_id)) {
      faults.push("item_changed");
    }
    for (const role of ["mentor", "by"]) {
      if (people[role] !== undefined && (await this.#hashOf(people[role])) !== leaf[role]) {
        faults.push("person_changed");
      }
    }
    return faults;
  }

  /** @param {{ id: string, salt: string }} person */
  #hashOf({ id, salt }) {
    const key = `${salt} ${id}`;
    const known = this.#people.get(key) ?? personHash(salt, id);
    this.#people.set(key, known);
    return known;
  }
}

/** How a leaf writes a person, or null if the salt is none. @param {string} salt @param {string} id */
const personHash = (salt, id) => unlessMalformed(() => hmac(fromBase64(salt), id));

/** The result of a function, or null if it throws a MalformedError. @template T @param {() => T | Promise<T>} read @returns {Promise<T | null>} */
async function unlessMalformed(read) {
  try {
    return await read();
  } catch (error) {
    if (error instanceof MalformedError) {
      return null;
    }
    throw error;
  }
}

/** @param {string} fault @returns {Fault} */
const whole = (fault) => ({ fault, position: null });

/** @template T @param {T[]} candidates @param {(candidate: T) => Promise<boolean>} test @returns {Promise<T | undefined>} */
async function first(candidates, test) {
  for (const candidate of candidates) {
    if (await test(candidate)) {
      return candidate;
    }
  }
  return undefined;
}

/** The text of a file, or null if it is not UTF-8. @param {ArrayBuffer} raw */
function decoded(raw) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw);
  } catch {
    return null;
  }
}

/** @param {string | null} text @returns {any} */
function parsed(text) {
  try {
    return text === null ? null : JSON.parse(text);
  } catch {
    return null;
  }
}
