// What the answer looks like.

import { codePoints } from "./text.js";

const $ = (id) => document.getElementById(id);

/** An element with properties and children; strings become text nodes. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const span = (className, ...children) => element("span", { className }, ...children);
const words = (className, text, lang) =>
  element("span", { className, dir: "auto", lang: lang && lang !== "und" ? lang : "" }, text);

/** A problem (RFC 9457), or one of the page's own, as text. */
export function showProblem({ title, detail, errors = [], request_id }) {
  const list = errors.map(({ pointer, detail: why }) =>
    element("li", {}, element("code", {}, pointer || "/"), " ", why),
  );
  $("problem").replaceChildren(
    element("p", { className: "bad" }, element("strong", {}, title), ": ", detail),
    ...(list.length ? [element("ul", {}, ...list)] : []),
    ...(request_id ? [element("p", { className: "quiet small" }, `Request ${request_id}`)] : []),
  );
}

/** The document's text with its mentions, then a card for each mention. */
export function showAnswer(text, document_, body) {
  $("shown").replaceChildren(...marked(text, document_.mentions));
  $("shown").hidden = false;
  $("mentions").replaceChildren(...document_.mentions.map((m, i) => card(m, i, document_.lang)));
  for (const why of body.degraded) $("problem").append(element("p", {}, `Degraded: ${why}`));
  const sources = body.model.kb.map(({ id, version }) => `${id} ${version}`.trim()).join(", ");
  $("model").textContent = `Index ${body.model.index_version.slice(0, 19)} · ${sources}`;
}

function* marked(text, mentions) {
  const points = codePoints(text);
  const slice = (from, to) => points.slice(from, to).join("");
  const order = mentions.map((mention, i) => ({ ...mention, i })).sort((a, b) => a.start - b.start);
  let at = 0;
  for (const { start, end, nil, i } of order) {
    if (start < at) continue; // lies inside the mention before
    yield slice(at, start);
    const link = { href: `#m${i}`, className: nil ? "mention nil" : "mention" };
    yield element("a", link, slice(start, end));
    at = end;
  }
  yield slice(at);
}

function card(mention, i, lang) {
  const head = element(
    "h3",
    {},
    words("surface", mention.text, lang),
    mention.nil ? span("tag", "no concept fits") : null,
  );
  const why = mention.nil && mention.candidates.length ? `Nearest, but ${mention.reason}.` : null;
  return element(
    "li",
    { id: `m${i}`, className: "card", tabIndex: -1 },
    head,
    why && element("p", { className: "quiet small" }, why),
    element("ol", { className: "candidates" }, ...mention.candidates.map(candidate)),
  );
}

function candidate(found) {
  const meter = element("meter", { min: 0, max: 1, value: Math.max(0, found.score) });
  meter.setAttribute("aria-hidden", "true");
  const home = element("a", {
    className: "curie",
    href: `https://bioregistry.io/${encodeURI(found.id)}`,
    rel: "noreferrer noopener",
    target: "_blank",
    textContent: found.id,
  });
  const line = element(
    "div",
    { className: "line" },
    words("name", found.name),
    home,
    span("score", meter, element("span", { title: "score" }, found.score.toFixed(3))),
  );
  const via = element(
    "div",
    { className: "quiet small" },
    "matched ",
    words("alias", found.matched_alias, found.matched_lang),
    " ",
    span("tag", found.matched_lang),
  );
  return element("li", {}, line, via, details(found));
}

function details({ id, name }) {
  const summary = element("summary", {}, "Details");
  summary.setAttribute("aria-label", `Details of ${name}`);
  const box = element("details", { className: "small" }, summary);
  box.addEventListener("toggle", () => fill(box, id), { once: true });
  return box;
}

async function fill(box, id) {
  const body = element("div", { className: "facts" }, "Loading …");
  box.append(body);
  try {
    const response = await fetch(`../v1/concepts/${encodeURIComponent(id)}`);
    const concept = await response.json();
    body.replaceChildren(...(response.ok ? facts(concept) : [concept.detail]));
  } catch {
    body.replaceChildren("The server cannot be reached.");
  }
}

function facts({ definition, semantic_types: types, xrefs }) {
  const row = (label, value) =>
    value ? [element("dt", {}, label), element("dd", { dir: "auto" }, value)] : [];
  const rows = [
    ...row("Definition", definition),
    ...row("Types", types.join(", ")),
    ...row("Cross-references", xrefs.join(", ")),
  ];
  return rows.length ? [element("dl", {}, ...rows)] : ["The knowledge base says no more of it."];
}
