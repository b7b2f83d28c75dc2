// Keeps the focus on the page when what had it goes away: a row, or a button for which it is too late.

/**
 * Runs what draws the page. If the element with the focus is gone afterwards, the focus moves to the heading of the nearest part of the page
 * that is still there, unless it was moved elsewhere meanwhile. Otherwise a person without a mouse would begin again at the top.
 *
 * @param {() => void} draw
 */
export function keepingFocus(draw) {
  const focused = document.activeElement;
  /** @type {Element[]} */
  const around = [];
  for (let each = focused?.parentElement ?? null; each !== null && each !== document.body; each = each.parentElement) {
    around.push(each);
  }
  draw();
  if (focused === null || around.length === 0 || !isGone(focused)) {
    return;
  }
  // What drew the page may move the focus itself right after this.
  setTimeout(() => {
    const now = document.activeElement;
    if (now === null || now === document.body || isGone(now)) {
      focusOnHeading(around);
    }
  });
}

/** Moves the focus to the first heading of a part of the page, or of the page. @param {Element[]} [around] the parts, the nearest first */
export function focusOnHeading(around = []) {
  const heading = nearestHeading(around);
  heading?.setAttribute("tabindex", "-1");
  heading?.focus({ preventScroll: true });
}

/** Whether an element can't have the focus any more. Asks for no layout, because this is asked each time the page is drawn. @param {Element} element */
const isGone = (element) => !element.isConnected || element.matches(":disabled") || element.closest("[hidden]") !== null;

/** @param {Element} element */
const isShown = (element) => element.getClientRects().length > 0;

/** @param {Element[]} around the nearest first */
function nearestHeading(around) {
  for (const part of [...around.filter((each) => each.isConnected), document.body]) {
    const found = [.../** @type {NodeListOf<HTMLElement>} */ (part.querySelectorAll("h1, h2, h3, legend"))].find(isShown);
    if (found !== undefined) {
      return found;
    }
  }
  return undefined;
}
