// The page of one batch.

import { BatchPage } from "/console/static/components/batch-page.js";
import { namesOfPeople } from "/console/static/components/people.js";

/** @param {import("/console/static/app.js").Context} context */
export async function page(context) {
  const batchPage = new BatchPage(context, await namesOfPeople(context.me));
  await batchPage.start();
  return () => batchPage.draw();
}
