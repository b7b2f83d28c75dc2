// The one place that names lit-html's address, which has its version in it.
export { html, nothing, render } from "/vendored/lit-html/3.3.3/lit-html.js";
