"""Joining the console's modules: what stands in the script, in which order, and what can't be joined."""

import pytest

from api.console.joining import JoinError, join

MODULES = {
    "/app.js": 'import * as api from "/api.js";\nimport { draw,\n  text as words } from "/view.js";\nawait draw(words, api.last);\n',
    "/api.js": "// Talks.\n\n/**\n * When.\n */\nexport let last = 0;\nexport const ask = () => { last += 1; }; // and waits\n  /** A sum. */\n",
    "/view.js": 'import * as api from "/api.js";\nimport { html } from "/lit.js";\nexport { text } from "/texts.js";\n'
    "export async function draw() {\n  api.ask(html);\n}\nclass Hidden {}\nexport class Shown extends Hidden {}\n",
    "/texts.js": 'export { html as again } from "/vendored/lit.js";\nexport function text() {}\n',
    "/lit.js": 'export { html } from "/vendored/lit.js";\n',
    "/unused.js": "export default 1;\n",
}

JOINED = """\
// /api.js
const m0 = (() => {

let last = 0;
const ask = () => { last += 1; }; // and waits
return { get last() { return last; }, ask };
})();
import * as m1 from "/vendored/lit.js";
// /lit.js
const m2 = (() => {
const { html } = m1;
return { html };
})();
// /texts.js
const m3 = (() => {
const { html: again } = m1;
function text() {}
return { again, text };
})();
// /view.js
const m4 = (() => {
const api = m0;
const { html } = m2;
const { text } = m3;
async function draw() {
  api.ask(html);
}
class Hidden {}
class Shown extends Hidden {}
return { text, draw, Shown };
})();
// /app.js
{
const api = m0;
const { draw, text: words } = m4;
await draw(words, api.last);
}
"""


def test_each_module_stands_once_behind_those_that_it_imports() -> None:
    assert join(MODULES, "/app.js") == JOINED


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("export default draw;", "`export default draw;` can't be joined"),
        ("export * from '/api.js';", "can't be joined"),
        ('import "/api.js";', "can't be joined"),
        ('import api from "/api.js";', "can't be joined"),
        ("import { ask } from '/api.js';", "can't be joined"),
        ('import("/api.js").then(draw);', "can't be joined"),
        ("export { draw };", "can't be joined"),
        ("export const { one, other } = api;", "can't be joined"),
        ('import { ask, last } from "/api.js";', "last of /api.js may change; import the module with `import \\* as`"),
        ('import { draw } from "/view.js";', "/view.js imports itself by way of others"),
    ],
)
def test_a_form_that_could_mean_something_else_is_refused(written: str, told: str) -> None:
    with pytest.raises(JoinError, match=told):
        join(MODULES | {"/lit.js": f"{written}\n"}, "/app.js")
