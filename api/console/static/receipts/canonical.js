// Canonical JSON (RFC 8785), as `orchestrator/receipts/canonical.py` writes it: each document has exactly one text.

/** The only text of a document of objects, lists, texts, integers and booleans. Throws for anything else. @param {unknown} value @returns {string} */
export function canonical(value) {
  if (Array.isArray(value)) {
    return `[${value.map(canonical).join(",")}]`;
  }
  if (value !== null && typeof value === "object") {
    const fields = Object.entries(value);
    // Texts are compared by their UTF-16 code units, which is the order of the RFC.
    fields.sort(([one], [other]) => (one < other ? -1 : 1));
    return `{${fields.map(([key, each]) => `${JSON.stringify(key)}:${canonical(each)}`).join(",")}}`;
  }
  if (typeof value === "string" || typeof value === "boolean" || Number.isSafeInteger(value)) {
    return JSON.stringify(value);
  }
  throw new TypeError("a receipt has no such value");
}
