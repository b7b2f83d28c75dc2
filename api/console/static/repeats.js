// Ignores what a person does not mean twice: the second click of a double click, and the repetitions of Enter while it is held down. Between the
// two the page may have put another button in the place of the first, like "Register 25" in the place of "Review 25".

// Browsers count the clicks of a mouse, with the time that the person has set. Those of phones do not count taps: these are the time and the distance of a double tap.
const DOUBLE_TAP_MS = 500;
const DOUBLE_TAP_PX = 24;

/** The last press of a finger. */
let tap = { at: -Infinity, x: 0, y: 0 };

let isSecondTap = false;

/** Begins to ignore them, on the whole page. */
export function ignoreRepeats() {
  window.addEventListener("pointerdown", pressed, { capture: true });
  window.addEventListener("click", onClick, { capture: true });
  window.addEventListener("keydown", onKey, { capture: true });
}

/** @param {PointerEvent} event */
function pressed(event) {
  const { pointerType, timeStamp: at, clientX: x, clientY: y } = event;
  isSecondTap = pointerType === "touch" && at - tap.at < DOUBLE_TAP_MS && Math.hypot(x - tap.x, y - tap.y) < DOUBLE_TAP_PX;
  if (pointerType === "touch") {
    tap = { at, x, y };
  }
}

/** @param {MouseEvent} event */
function onClick(event) {
  // Clicks by keyboard have no count, and neither have those that follow a click on a label.
  if (event.isTrusted && (event.detail > 1 || event.detail === 1 && isSecondTap)) {
    stop(event);
  }
}

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
