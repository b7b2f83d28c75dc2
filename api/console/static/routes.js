// Which module shows the page of a path. The paths are those of `api/console/pages.py`.

import { page as accessibility } from "/console/static/pages/accessibility.js";
import { page as activities } from "/console/static/pages/activities.js";
import { page as batch } from "/console/static/pages/batch.js";
import { page as batches } from "/console/static/pages/batches.js";
import { page as correct } from "/console/static/pages/correct.js";
import { page as forget } from "/console/static/pages/forget.js";
import { page as help } from "/console/static/pages/help.js";
import { page as home } from "/console/static/pages/home.js";
import { page as newRegistration } from "/console/static/pages/new.js";
import { page as period } from "/console/static/pages/period.js";
import { page as receipts } from "/console/static/pages/receipts.js";
import { page as templates } from "/console/static/pages/templates.js";
import { page as webhooks } from "/console/static/pages/webhooks.js";

/** @typedef {{ path: RegExp, page: (context: any) => Promise<() => unknown>, isPublic?: boolean }} PageRoute */

/** @type {PageRoute[]} */
const PAGES = [
  { path: /^\/console\/$/, page: home },
  { path: /^\/console\/batches$/, page: batches },
  { path: /^\/console\/batches\/(?<batch_id>[0-9a-f-]+)$/, page: batch },
  { path: /^\/console\/batches\/(?<batch_id>[0-9a-f-]+)\/correct$/, page: correct },
  { path: /^\/console\/new$/, page: newRegistration },
  { path: /^\/console\/activities(?:\/(?<activity_id>[^/]+))?$/, page: activities },
  { path: /^\/console\/period$/, page: period },
  { path: /^\/console\/forget$/, page: forget },
  { path: /^\/console\/receipts$/, page: receipts, isPublic: true },
  { path: /^\/console\/help$/, page: help, isPublic: true },
  { path: /^\/console\/accessibility$/, page: accessibility, isPublic: true },
  { path: /^\/console\/templates$/, page: templates },
  { path: /^\/console\/webhooks$/, page: webhooks },
];

/** The page of a path, or null for the page of a failed login. @param {string} path */
export function pageOf(path) {
  for (const { path: pattern, page, isPublic = false } of PAGES) {
    const match = pattern.exec(path);
    if (match !== null) {
      return { page, isPublic, values: { ...match.groups } };
    }
  }
  return null;
}
