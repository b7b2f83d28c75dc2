// Ignores what a person does not mean twice: the second click of a double click, and the repetitions of Enter while it is held down. Between the
// two the page may have put another button in the place of the first, like "Register 25" in the place of "Review 25". Buttons in an element with
// `data-repeatable`, like those that turn pages, only read and stay where they are: people click them fast, and each click counts.

// Browsers count the clicks of a mouse, with the time that the person has set. Those of phones do not count taps: these are the time and the distance of a double tap.
const DOUBLE_TAP_MS = 500;
const DOUBLE_TAP_PX = 24;

/** The last press. */
let press = { isTouch: false, at: -Infinity, x: 0, y: 0 };

/** The last press of a finger that became a click. A finger that scrolls, or stops what scrolls, has not tapped. */
let tap = press;

/** Begins to ignore them, on the whole page. */
export function ignoreRepeats() {
  window.addEventListener("pointerdown", pressed, { capture: true });
  window.addEventListener("click", onClick, { capture: true });
  window.addEventListener("keydown", onKey, { capture: true });
}

/** @param {PointerEvent} event */
function pressed(event) {
  press = { isTouch: event.pointerType === "touch", at: event.timeStamp, x: event.clientX, y: event.clientY };
}

/** @param {MouseEvent} event */
function onClick(event) {
  // Clicks by keyboard have no count, and neither have those that follow a click on a label.
  if (!event.isTrusted || event.detail === 0) {
    return;
  }
  const isRepeated = event.detail > 1 || isSecondTap();
  if (press.isTouch) {
    tap = press;
  }
  if (isRepeated && !isRepeatable(event.target)) {
    stop(event);
  }
}

/** Whether the press that became a click is the second of a double tap. One press can become two clicks: on a label, and on what it names. */
function isSecondTap() {
  return press.isTouch && press !== tap && press.at - tap.at < DOUBLE_TAP_MS && Math.hypot(press.x - tap.x, press.y - tap.y) < DOUBLE_TAP_PX;
}

/** @param {EventTarget | null} target */
const isRepeatable = (target) => target instanceof Element && target.closest("[data-repeatable]") !== null;

/** @param {KeyboardEvent} event */
function onKey(event) {
  const isNewLine = event.target instanceof HTMLTextAreaElement && !event.ctrlKey && !event.metaKey;
  if (event.repeat && event.key === "Enter" && !isNewLine) {
    stop(event);
  }
}

/** @param {Event} event */
function stop(event) {
  event.preventDefault();
  event.stopImmediatePropagation();
}
