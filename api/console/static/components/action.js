// Something that a person asks of the server, like "Register 22". Whatever goes wrong, the page keeps what the person has typed.

import * as api from "/console/static/api.js";
import { problemAlert } from "/console/static/components/problem.js";
import { problemText, text } from "/console/static/messages.js";
import { html, nothing } from "/console/static/vendored.js";

// These pass by themselves, so the action is repeated after the time that the API names.
const PASSING = [429, 503];

/**
 * One action at a time. After a lost connection, an overload or a new login it is repeated as it was, with its Idempotency-Key, so nothing is
 * done twice. What the person has left is not repeated.
 */
export class Action {
  /** @type {"idle" | "running" | "waiting"} */
  state = "idle";

  /** @type {api.Problem | null} */
  problem = null;

  /** Seconds until the action is repeated. */
  seconds = 0;

  /** What is repeated. Null: nothing is. @type {(() => Promise<void>) | null} */
  #work = null;

  /** @type {ReturnType<typeof setInterval> | undefined} */
  #countdown;

  /** The Idempotency-Keys of what was asked for and has not succeeded yet. @type {Map<string, string>} */
  #keys = new Map();

  /** What `runLast` was asked for while something ran. @type {(() => Promise<void>) | null} */
  #next = null;

  /** @param {any} context the page's context */
  constructor(context) {
    this.context = context;
    window.addEventListener("online", () => {
      if (this.problem?.code === "offline") {
        this.repeat();
      }
    });
  }

  get isBusy() {
    return this.state !== "idle";
  }

  /** Runs the work, unless the last one still runs. Problems are kept for `view`. @param {() => Promise<void>} work */
  async run(work) {
    if (this.state === "running") {
      return;
    }
    clearInterval(this.#countdown);
    this.#work = work;
    this.state = "running";
    this.problem = null;
    this.context.redraw();
    try {
      // The browser first shows that it is under way: work on 10,000 people takes a while before its request.
      await new Promise((resolve) => setTimeout(resolve));
      await work();
      this.state = "idle";
    } catch (error) {
      this.state = "idle";
      if (!(error instanceof api.Problem)) {
        throw error;
      }
      if (error.needsLogin) {
        this.context.ended(() => this.repeat());
        return;
      }
      this.problem = error;
      if (this.#work !== null && PASSING.includes(error.status)) {
        this.#wait(error.retryAfter);
      }
    } finally {
      this.context.redraw();
      await this.#runNext();
    }
  }

  /**
   * Runs work that sends a request with an Idempotency-Key. The same intention has the same key until it has succeeded, so a person who presses the
   * button again after a lost response does nothing twice.
   *
   * @param {unknown} intention whatever would make it another request
   * @param {(key: string) => Promise<void>} work
   */
  async send(intention, work) {
    const wanted = JSON.stringify(intention);
    await this.run(async () => {
      const key = this.#keys.get(wanted) ?? api.newKey();
      this.#keys.set(wanted, key);
      await work(key);
      this.#keys.delete(wanted);
    });
  }

  /**
   * Runs work that only reads. If something runs, the work is run after it, and of several that wait only the newest: the page shows what the
   * person asked for last.
   *
   * @param {() => Promise<void>} work
   */
  async runLast(work) {
    if (this.state === "running") {
      this.#next = work;
    } else {
      await this.run(work);
    }
  }

  async #runNext() {
    const next = this.#next;
    if (next !== null) {
      this.#next = null;
      await this.run(next);
    }
  }

  /** Runs the last work again. */
  async repeat() {
    if (this.#work !== null) {
      await this.run(this.#work);
    }
  }

  /** Forgets the problem, because the person has changed the form or has left the question. What still runs is not repeated if it fails. */
  clear() {
    this.#work = null;
    clearInterval(this.#countdown);
    if (this.state !== "running") {
      this.state = "idle";
      this.problem = null;
    }
  }

  /** @param {number} seconds */
  #wait(seconds) {
    this.state = "waiting";
    this.seconds = seconds;
    this.#countdown = setInterval(() => {
      this.seconds -= 1;
      if (this.seconds <= 0) {
        this.repeat();
      }
      this.context.redraw();
    }, 1000);
  }

  /** The problem, if there is one. Draw it beside the button of the action. */
  view() {
    const problem = this.problem;
    if (problem === null) {
      return nothing;
    }
    if (this.state === "waiting") {
      return html`
        <div class="ds-alert" data-color="warning" role="alert">
          <p class="ds-paragraph">${problemText(problem.code, problem.values)}</p>
          <p class="ds-paragraph" aria-live="off">${text("repeats_in", { seconds: this.seconds })}</p>
        </div>
      `;
    }
    return problemAlert(problem, problem.mayPass && this.#work !== null ? { label: text("try_again"), act: () => this.repeat() } : null);
  }
}
