// The page: marked text in, candidates out. Text of the user's or of the server's only ever becomes
// textContent.

import { readMarks, toggleMark } from "./text.js";
import { element, showAnswer, showProblem } from "./view.js";

const LANGS = "ar de en es fr hi it ja ko nl pl pt ru th tr zh".split(" ");
const $ = (id) => document.getElementById(id);
let running = null;
let answer = "";

function say(line) {
  $("status").textContent = line;
}

function clear() {
  for (const id of ["problem", "mentions", "model", "shown"]) $(id).replaceChildren();
  $("shown").hidden = true;
  $("copy").hidden = true;
}

function mark() {
  const area = $("text");
  const { selectionStart: from, selectionEnd: to, value } = area;
  if (from === to) return say("Select some words first, then mark them.");
  const piece = toggleMark(value.slice(from, to));
  area.focus();
  area.setSelectionRange(from, to);
  // the old command keeps the text area's undo history, the new one does not
  if (!document.execCommand("insertText", false, piece)) area.setRangeText(piece, from, to, "end");
  area.setSelectionRange(from, from + piece.length);
  say(readMarks(area.value).mentions.length + " marked.");
}

async function readAnswer(response) {
  const kind = response.headers.get("content-type") || "";
  if (kind.includes("json")) return response.json();
  return { title: `HTTP ${response.status}`, detail: "The server did not answer in JSON." };
}

async function link() {
  const { text, mentions } = readMarks($("text").value);
  clear();
  if (!mentions.length) return say("Mark a mention first: select words, then press Mark.");
  const lang = $("lang").value.trim();
  const asked = { id: "page", text, mentions, ...(lang && { lang }) };
  const body = { documents: [asked], top_k: Number($("top_k").value), timeout_ms: 30000 };
  running?.abort();
  const mine = (running = new AbortController());
  $("answer").setAttribute("aria-busy", "true");
  say("Linking …");
  try {
    const response = await fetch("../v1/link", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: mine.signal,
    });
    show(text, response.ok, await readAnswer(response));
  } catch (error) {
    if (error.name === "AbortError") return;
    say("");
    showProblem({ title: "No answer", detail: "The server cannot be reached." });
  } finally {
    if (running === mine) $("answer").removeAttribute("aria-busy");
  }
}

function show(text, ok, body) {
  say("");
  if (!ok) return showProblem(body);
  answer = JSON.stringify(body, null, 2);
  $("copy").hidden = false;
  const [found] = body.documents;
  if (found.status === "error") return showProblem(found.problem);
  showAnswer(text, found, body);
  const linked = found.mentions.filter((mention) => !mention.nil).length;
  say(`${linked} of ${found.mentions.length} linked in ${Math.round(body.timings_ms.total)} ms.`);
}

async function copy() {
  try {
    await navigator.clipboard.writeText(answer);
    say("Copied.");
  } catch {
    say("The browser does not allow copying here.");
  }
}

async function offerExamples() {
  const response = await fetch("sentences.json");
  if (!response.ok) return;
  const names = new Intl.DisplayNames(["en"], { type: "language" });
  const sentences = await response.json();
  sentences.forEach(({ lang }, i) => $("example").append(new Option(names.of(lang), String(i))));
  $("example").addEventListener("change", ({ target }) => {
    if (target.value === "") return;
    const chosen = sentences[Number(target.value)];
    $("text").value = chosen.text;
    $("lang").value = chosen.lang;
    link();
  });
}

function start() {
  const names = new Intl.DisplayNames(["en"], { type: "language" });
  $("langs").append(...LANGS.map((tag) => element("option", { value: tag }, names.of(tag))));
  $("mark").addEventListener("click", mark);
  $("copy").addEventListener("click", copy);
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    link();
  });
  $("ask").addEventListener("keydown", (event) => {
    if (event.altKey && event.code === "KeyM") {
      event.preventDefault();
      mark();
    } else if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
      event.preventDefault();
      $("ask").requestSubmit();
    }
  });
  offerExamples().catch(() => {});
}

start();
