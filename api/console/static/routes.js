// Which module shows the page of a path. The paths are those of `api/console/pages.py`.

/** @typedef {{ path: RegExp, load: () => Promise<{ page: (context: any) => Promise<() => unknown> }>, isPublic?: boolean }} PageRoute */

/** @type {PageRoute[]} */
const PAGES = [
  { path: /^\/console\/$/, load: () => import("/console/static/pages/home.js") },
  { path: /^\/console\/batches$/, load: () => import("/console/static/pages/batches.js") },
  { path: /^\/console\/batches\/(?<batch_id>[0-9a-f-]+)$/, load: () => import("/console/static/pages/batch.js") },
  { path: /^\/console\/batches\/(?<batch_id>[0-9a-f-]+)\/correct$/, load: () => import("/console/static/pages/correct.js") },
  { path: /^\/console\/new$/, load: () => import("/console/static/pages/new.js") },
  { path: /^\/console\/activities(?:\/(?<activity_id>[^/]+))?$/, load: () => import("/console/static/pages/activities.js") },
  { path: /^\/console\/period$/, load: () => import("/console/static/pages/period.js") },
  { path: /^\/console\/receipts$/, load: () => import("/console/static/pages/receipts.js"), isPublic: true },
  { path: /^\/console\/help$/, load: () => import("/console/static/pages/help.js"), isPublic: true },
  { path: /^\/console\/accessibility$/, load: () => import("/console/static/pages/accessibility.js"), isPublic: true },
  { path: /^\/console\/templates$/, load: () => import("/console/static/pages/templates.js") },
];

/** The page of a path, or null for the page of a failed login. @param {string} path */
export function pageOf(path) {
  for (const { path: pattern, load, isPublic = false } of PAGES) {
    const match = pattern.exec(path);
    if (match !== null) {
      return { load, isPublic, values: { ...match.groups } };
    }
  }
  return null;
}
