// The rows of a file or of pasted cells: what is typed in each cell, what it means, and what is wrong with it.

import { shownDate } from "/console/static/dates.js";
import { checkedDate, checkedMinutes } from "/console/static/registering/draft.js";

/** @typedef {{ code: string, rows: number[], names: string[], count: number }} Remark on a list, with rows as the spreadsheet program shows them */

/** @typedef {"mentor" | "type" | "date" | "minutes" | "notes"} ColumnName */

/** @type {Record<string, ColumnName>} */
const COLUMN_OF = {
  mentor_id: "mentor", mentor_name: "mentor", activity_type: "type", activity_date: "date", duration_minutes: "minutes", notes: "notes",
};

/** One row. A cell that is empty means what the form says, except for the mentor's. */
export class Row {
  /** What the reader of files has found, until the cell is changed. @type {Map<ColumnName, string>} */
  refused = new Map();

  /** What is wrong, by column. @type {Map<ColumnName, string>} */
  mistakes = new Map();

  /** Chosen among several mentors of the same name. @type {string | null} */
  mentorId = null;

  /** Mentors whom the name may mean. @type {import("/console/static/registering/scope.js").Mentor[]} */
  candidates = [];

  /** @type {import("/console/static/registering/draft.js").Item | null} */
  item = null;

  /** For which name, and in which scope, the candidates were found. @type {{ typed: string, scope: unknown }} */
  #found = { typed: "", scope: null };

  /** @param {number} number as the spreadsheet program shows it @param {Record<ColumnName, string>} cells as typed */
  constructor(number, cells) {
    this.number = number;
    this.cells = cells;
  }

  /** @param {ColumnName} column @param {string} value */
  type(column, value) {
    this.cells[column] = value;
    this.refused.delete(column);
    if (column === "mentor") {
      this.mentorId = null;
    }
  }

  /**
   * @param {import("/console/static/registering/draft.js").Draft} draft
   * @param {import("/console/static/registering/scope.js").Scope} scope
   */
  check(draft, scope) {
    const { rules } = draft;
    this.mistakes = new Map(this.refused);
    const mentorId = this.#mentor(scope);
    const type = this.cells.type.trim() === "" ? draft.type : this.#type(scope);
    const date = this.cells.date.trim() === "" ? draft.day : this.#take("date", checkedDate(this.cells.date, rules), "date");
    const typed = this.cells.minutes.trim() === "" ? draft.minutes : this.cells.minutes;
    const read = checkedMinutes(typed, rules);
    const minutes = this.cells.minutes.trim() === "" ? ("minutes" in read ? read.minutes : null) : this.#take("minutes", read, "minutes");
    const notes = this.cells.notes.trim() || draft.notes.trim();
    this.item = this.mistakes.size > 0 || mentorId === null || type === "" || type === null || date === null || minutes === null ? null : {
      mentor_id: mentorId, activity_type: type, activity_date: date, duration_minutes: minutes, ...(notes === "" ? {} : { notes }),
      client_reference: `row ${this.number}`,
    };
  }

  /** @param {ColumnName} column @param {any} read @param {string} name */
  #take(column, read, name) {
    if (name in read) {
      return read[name];
    }
    if (!this.mistakes.has(column)) {
      this.mistakes.set(column, read.mistake);
    }
    return null;
  }

  /** @param {import("/console/static/registering/scope.js").Scope} scope */
  #type(scope) {
    const found = scope.typeNamed(this.cells.type);
    if (found === undefined && !this.mistakes.has("type")) {
      this.mistakes.set("type", "unknown_type");
    }
    return found?.activity_type ?? null;
  }

  /** The mentor of a row without mistakes. @param {import("/console/static/registering/scope.js").Scope} scope @returns {string} */
  mentorOf(scope) {
    return this.mentorId ?? (scope.byId.has(this.cells.mentor.trim()) ? this.cells.mentor.trim() : this.candidates[0].mentor_id);
  }

  /** The mentor, if exactly one is meant. @param {import("/console/static/registering/scope.js").Scope} scope */
  #mentor(scope) {
    const typed = this.cells.mentor.trim();
    if (this.mentorId !== null || scope.byId.has(typed)) {
      return this.mentorId ?? typed;
    }
    if (this.#found.typed !== typed || this.#found.scope !== scope) {
      this.candidates = scope.named(typed);
      this.#found = { typed, scope };
    }
    if (this.candidates.length === 1) {
      return this.candidates[0].mentor_id;
    }
    if (!this.mistakes.has("mentor")) {
      this.mistakes.set("mentor", typed === "" ? "empty" : this.candidates.length === 0 ? "nobody_named" : "several_named");
    }
    return null;
  }
}

/** All rows of a list. */
export class Rows {
  /** The rows in the order in which they are shown. @type {Row[]} */
  shown;

  /**
   * @param {Row[]} rows
   * @param {string[]} ignored titles of columns that were not read
   * @param {Remark[]} remarks on what was read with a doubt, or not read
   */
  constructor(rows, ignored, remarks) {
    this.shown = rows;
    this.ignored = ignored;
    this.remarks = remarks;
  }

  /** Finds out what the cells mean now. @param {import("/console/static/registering/draft.js").Draft} draft @param {import("/console/static/registering/scope.js").Scope} scope */
  check(draft, scope) {
    for (const row of this.shown) {
      row.check(draft, scope);
    }
    this.#findRepeated();
  }

  /** All but the first row of a mentor with the same type and date. */
  #findRepeated() {
    const seen = new Set();
    for (const row of [...this.shown].sort((one, other) => one.number - other.number)) {
      if (row.item === null) {
        continue;
      }
      const { mentor_id, activity_type, activity_date } = row.item;
      const key = `${activity_date} ${activity_type} ${mentor_id}`;
      if (seen.has(key)) {
        row.mistakes.set("mentor", "duplicate_mentor");
        row.item = null;
      }
      seen.add(key);
    }
  }

  get wrong() {
    return this.shown.filter((row) => row.mistakes.size > 0);
  }

  /** @returns {import("/console/static/registering/draft.js").Item[]} */
  get items() {
    return this.shown.flatMap((row) => (row.item === null ? [] : [row.item]));
  }

  /** Whether each row only says who. */
  get isNamesOnly() {
    return this.shown.every((row) => row.mistakes.size === 0 && !row.cells.type && !row.cells.date && !row.cells.minutes && !row.cells.notes);
  }

  /** Whether a row needs what the form says. @param {ColumnName} column */
  needs(column) {
    return this.shown.some((row) => row.cells[column].trim() === "");
  }

  mistakesFirst() {
    this.shown.sort((one, other) => Number(other.mistakes.size > 0) - Number(one.mistakes.size > 0) || one.number - other.number);
  }

  /** Removes a row. Another one may no longer be there twice. @param {Row} row @param {import("/console/static/registering/draft.js").Draft} draft @param {import("/console/static/registering/scope.js").Scope} scope */
  remove(row, draft, scope) {
    this.shown = this.shown.filter((each) => each !== row);
    for (const each of this.shown) {
      if (each.mistakes.get("mentor") === "duplicate_mentor") {
        each.check(draft, scope);
      }
    }
    this.#findRepeated();
  }
}

/** The items of a batch as rows, for another date. @param {any} batch with all its items */
export function rowsAgain({ items }) {
  return new Rows(
    items.map((/** @type {any} */ item) => new Row(item.position + 1, {
      mentor: item.mentor_id, type: item.activity_type, date: "", minutes: String(item.duration_minutes), notes: "",
    })),
    [],
    [],
  );
}

/** The rows of a file that the server has read. @param {any} read its response @param {number} firstRow the number of the first row of what the person sees */
export function rowsOf(read, firstRow) {
  /** @type {Map<number, Row>} */
  const byNumber = new Map();
  for (const item of read.items) {
    const cells = {
      mentor: item.mentor_name ?? item.mentor_id ?? "", type: item.activity_type ?? "", notes: item.notes ?? "",
      date: item.activity_date === undefined ? "" : shownDate(item.activity_date),
      minutes: item.duration_minutes === undefined ? "" : String(item.duration_minutes),
    };
    byNumber.set(item.row, new Row(item.row + firstRow - 1, cells));
  }
  for (const { row, field, code, value } of read.mistakes) {
    const found = byNumber.get(row);
    const column = COLUMN_OF[field] ?? "mentor";
    // Rows that are there twice are found again, and rightly even after a change.
    if (found !== undefined && code !== "duplicate_mentor") {
      found.cells[column] = found.cells[column] || (value ?? "");
      found.refused.set(column, code);
    }
  }
  const remarks = read.remarks.map((/** @type {Remark} */ each) => ({ ...each, rows: each.rows.map((row) => row + firstRow - 1) }));
  return new Rows([...byNumber.values()], read.ignored_columns, remarks);
}
