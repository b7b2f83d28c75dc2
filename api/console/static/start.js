// Starts the page. A module may not arrive, for example because the network changed: then the page is loaded once more, and otherwise says so.

import("/console/static/app.js").catch((error) => {
  const [visit] = performance.getEntriesByType("navigation");
  if (visit instanceof PerformanceNavigationTiming && visit.type !== "reload") {
    location.reload();
    return;
  }
  document.getElementById("not-loaded")?.removeAttribute("hidden");
  throw error;
});
