// The only module that names lit-html's address, which contains its version.
export { html, nothing, render } from "/vendored/lit-html/3.3.3/lit-html.js";
