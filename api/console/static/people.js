// Names of people: how they are sorted and searched, and who a name means.

const COLLATOR = new Intl.Collator("nb");

// Letters that have no decomposed form.
/** @type {Record<string, string>} */
const FOLDED = { ø: "o", æ: "ae", đ: "d", ð: "d", þ: "th", ß: "ss", ł: "l" };

/** A name without case, accents and repeated spaces, so that "bjorn" finds Bjørn. @param {string} name */
export function fold(name) {
  return name
    .toLowerCase()
    .normalize("NFD")
    .replace(/\p{M}/gu, "")
    .replace(/[øæđðþßł]/g, (letter) => FOLDED[letter])
    .replace(/\s+/g, " ")
    .trim();
}

/** @param {{ name: string }} one @param {{ name: string }} other */
export const byName = (one, other) => COLLATOR.compare(one.name, other.name);
