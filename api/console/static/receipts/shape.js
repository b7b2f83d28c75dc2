// The form of a receipt (`schemas/api/receipts.py`): which fields it has, and what their values look like.

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const PERSON = /^[0-9a-f]{64}$/;
const HASH = /^[A-Za-z0-9+/]{43}=$/;
const LONE_SURROGATE = /[\ud800-\udfff]/u;
const INT32 = 2 ** 31;

/** @typedef {(value: any) => boolean} Test */

/** @param {any} value */
const isText = (value) => typeof value === "string" && !LONE_SURROGATE.test(value);

/** @param {any} value */
const isId = (value) => isText(value) && value !== "" && [...value].length <= 100 && !value.includes("\0");

/** @param {RegExp} pattern @returns {Test} */
const matching = (pattern) => (value) => typeof value === "string" && pattern.test(value);

/** @param {any} value */
const isInt32 = (value) => Number.isSafeInteger(value) && value >= -INT32 && value < INT32;

/** @param {Test} each @returns {Test} */
const listOf = (each) => (value) => Array.isArray(value) && value.every(each);

/** An object with these fields and no others. @param {Record<string, Test>} required @param {Record<string, Test>} [optional] @returns {Test} */
const withFields = (required, optional = {}) => (value) =>
  value !== null && typeof value === "object" && !Array.isArray(value) &&
  Object.keys(required).every((name) => Object.hasOwn(value, name)) &&
  Object.entries(value).every(([name, each]) => (Object.hasOwn(required, name) ? required[name](each) : Object.hasOwn(optional, name) && optional[name](each)));

const isPerson = withFields({ id: isId, salt: matching(HASH) });

const isLeaf = withFields(
  {
    change: (value) => value === "registered" || value === "revoked",
    activity_id: matching(UUID),
    organization_id: isId,
    mentor: matching(PERSON),
    activity_type: isId,
    activity_date: matching(/^[0-9]{4}-[0-9]{2}-[0-9]{2}$/),
    duration_minutes: isInt32,
    by: matching(PERSON),
    at: matching(/^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$/),
    batch_id: matching(UUID),
    item_id: matching(UUID),
  },
  { attempt: isInt32, before_log: (value) => value === true },
);

const isItem = withFields({
  item_id: matching(UUID),
  index: (value) => Number.isSafeInteger(value) && value >= 0,
  leaf: isLeaf,
  proof: listOf(matching(HASH)),
  people: withFields({}, { mentor: isPerson, by: isPerson }),
});

/** Whether a document has the form of a receipt. */
export const isReceipt = withFields({
  version: (value) => value === 1,
  checkpoint: isText,
  keys: (value) => listOf((key) => isText(key) && key !== "")(value) && value.length > 0,
  items: listOf(isItem),
});
