// The Merkle tree of RFC 9162, as far as a receipt needs it: from a leaf and its proof to the root. Hashes are texts in base64.

import { MalformedError, base64, fromBase64, joined, sha256, utf8 } from "/console/static/receipts/bytes.js";

/** Computes the roots that leaves lead to. Leaves of one receipt share most of their way, so each hash is computed once. */
export class Tree {
  /** @type {Map<string, string>} */
  #known = new Map();

  /** @param {string} leaf its canonical JSON */
  async #leaf(leaf) {
    return base64(await sha256(joined([0], utf8(leaf))));
  }

  /** @param {string} left @param {string} right */
  async #node(left, right) {
    const pair = left + right;
    let hash = this.#known.get(pair);
    if (hash === undefined) {
      hash = base64(await sha256(joined([1], fromBase64(left), fromBase64(right))));
      this.#known.set(pair, hash);
    }
    return hash;
  }

  /**
   * The root that a leaf leads to. Throws a MalformedError if the proof does not fit the index and the size.
   *
   * @param {string} leaf @param {number} index @param {number} size @param {string[]} proof
   */
  async rootOf(leaf, index, size, proof) {
    if (index >= size) {
      throw new MalformedError("no such leaf");
    }
    let hash = await this.#leaf(leaf);
    // No operators on bits: they cut numbers to 32 bits.
    let [at, last] = [index, size - 1];
    const up = () => {
      at = Math.floor(at / 2);
      last = Math.floor(last / 2);
    };
    for (const sibling of proof) {
      if (last === 0) {
        throw new MalformedError("the proof is too long");
      }
      if (at % 2 === 1 || at === last) {
        hash = await this.#node(sibling, hash);
        while (at % 2 === 0 && at !== 0) {
          up();
        }
      } else {
        hash = await this.#node(hash, sibling);
      }
      up();
    }
    if (last !== 0) {
      throw new MalformedError("the proof is too short");
    }
    return hash;
  }
}
