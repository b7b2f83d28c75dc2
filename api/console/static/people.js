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

// As many names as a person reads while typing. A scope can have thousands.
const PROPOSED = 20;

/** People of whom one is chosen by typing the name. Two people of one name are told apart by their ids. */
export class Names {
  /** @type {Map<string, string>} */
  #ids = new Map();

  /** @type {Map<string, string>} */
  #labels = new Map();

  /** @type {{ label: string, folded: string, id: string }[]} */
  #searched = [];

  /** @param {{ mentor_id: string, name: string }[]} people */
  constructor(people) {
    const counts = new Map();
    for (const { name } of people) {
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    for (const { mentor_id, name } of people) {
      const label = counts.get(name) > 1 ? `${name} (${mentor_id})` : name;
      this.#ids.set(label, mentor_id);
      this.#labels.set(mentor_id, label);
      this.#searched.push({ label, folded: fold(label), id: mentor_id });
    }
  }

  /** @param {string} id */
  labelOf(id) {
    return this.#labels.get(id);
  }

  /** Who is meant: the person with this name, or the only one with it but for case and accents. @param {string} typed @returns {string | undefined} */
  idOf(typed) {
    const wanted = fold(typed);
    const found = this.#ids.get(typed.trim());
    const meant = found === undefined ? this.#searched.filter(({ folded }) => folded === wanted) : [];
    return meant.length === 1 ? meant[0].id : found;
  }

  /** The first names that contain what is typed. @param {string} typed @param {(id: string) => boolean} [isOffered] */
  proposed(typed, isOffered = () => true) {
    const wanted = fold(typed);
    const found = [];
    for (const { label, folded, id } of this.#searched) {
      if (folded.includes(wanted) && isOffered(id) && found.push(label) === PROPOSED) {
        break;
      }
    }
    return found;
  }
}
