// The page's own mind: what lies before the rater, which key does what, and what was pressed.

import { Outbox, Refusal, Shelf, call, pause } from "/outbox.js";
import { element, isPlain, reachable, setPlain, showEnd, showGrowing, showProgress, showTexts } from "/show.js";

const $ = id => document.getElementById(id);
const meta = name => document.querySelector(`meta[name=${name}]`).content;
const WORDS = { a: "A is better", b: "B is better", tie: "a tie", both_bad: "both are bad", skip: "skipped" };
const STRENGTHS = [, "slightly ", "clearly ", "much "];
const TOO_SOON = 200; // ms: nobody has read a pair by then, a key that bounces has
const GLANCE = 500, LOOK = 5000; // ms between two looks at answers being written, and for new pairs
const KEEP = 120_000; // ms after which the server is told that the pair is still being read

const shelf = new Shelf(meta("shelf"));
const outbox = new Outbox(shelf, meta("csrf"), notSaved);

let state = { kind: "loading" };
let busy = true; // a vote is on its way, or the page is loading
let shownAt = 0, watched = 0, since = null; // when the pair came; ms it was looked at before; since when it is now
let visit = 0; // grows with every state, so that what waits for an older one stops

// ---- What lies before the rater

async function load() {
  try {
    show(await call("/api/state"));
  } catch (error) {
    if (error instanceof Refusal && error.status < 500) return refused(error);
    say("No connection to the server: trying again.", "wait");
    await pause(1000);
    return load();
  }
}

function show(next, undone = null) {
  const now = ++visit;
  const sameTexts = state.kind === "writing" && next.kind === "pair";
  const stays = state.kind === next.kind && ["writing", "waiting"].includes(next.kind);
  state = next;
  $("main").dataset.state = next.kind;
  $("main").dataset.pair = next.pair?.id ?? "";
  showProgress(next.progress);
  if (next.kind === "pair") showPair(next, undone, !sameTexts);
  else if (next.kind === "writing") showWriting(next);
  else showOther(next);
  const voting = next.kind === "pair";
  for (const button of document.querySelectorAll("#vote button:not(#undo), #more :is(button, input, textarea):not(#from-a, #from-b)")) button.disabled = !voting;
  $("answers").setAttribute("aria-busy", String(next.kind === "writing"));
  if (!stays && !sameTexts) toTop();
  if (sameTexts) say("Both answers are there: your vote.");
  busy = false;
  mark(null, undone?.choice);
  watch(now);
}

function heading(text, more = "") {
  $("title").replaceChildren(text, ...(more ? [" ", element("span", { textContent: more })] : []));
}

function showPair({ pair, progress }, undone) {
  heading("Which answer is better?", `Pair ${progress.voted + progress.skipped + 1}`);
  visibleParts(true);
  showTexts(pair);
  const draft = shelf.get("draft");
  setDraft(undone ?? (draft?.pair === pair.id ? draft : {}));
  for (const letter of ["a", "b"]) {
    const chosen = undone?.choice === letter;
    $(`answer-${letter}`).classList.toggle("chosen", chosen);
    $(`answer-${letter}`).querySelector(".mine").textContent = chosen ? "your choice before" : "";
  }
  watched = (draft?.pair === pair.id && draft.watched) || 0;
  shownAt = performance.now();
  since = document.hidden ? null : shownAt;
}

function showWriting({ writing }) {
  heading("The answers are being written");
  visibleParts(true);
  setDraft({});
  showGrowing(writing);
}

function showOther(next) {
  visibleParts(false);
  heading(showEnd(next, document.querySelector("nav a[href='/results']") !== null));
}

function visibleParts(pair) {
  for (const id of ["prompt", "answers", "more", "plain"]) $(id).hidden = !pair;
  $("end").hidden = pair;
}

function toTop() {
  scrollTo(0, 0);
  if (!$("help").open) $("title").focus({ preventScroll: true });
}

// While answers are written the page looks again and again; at the end it asks now and then, and takes no pair by itself.
async function watch(now) {
  const ends = ["done", "failed"].includes(state.kind);
  if (state.kind === "pair") return;
  await pause(ends ? LOOK : GLANCE);
  if (now !== visit || busy) return;
  try {
    const next = await call(ends ? "/api/progress" : "/api/state");
    if (now !== visit || busy) return;
    if (!ends) return show(next);
    if (next.progress.left && !$("go-on")) {
      const button = element("button", { type: "button", id: "go-on", className: "main", textContent: "There are more pairs: go on" });
      button.addEventListener("click", load);
      $("end").append(element("p", {}, button));
      say("There are more pairs now.");
    }
  } catch (error) {
    if (error instanceof Refusal && error.status < 500) return refused(error);
    say("No connection to the server: trying again.", "wait");
  }
  watch(now);
}

// ---- What was pressed

function vote(choice) {
  if (busy || state.kind !== "pair" || performance.now() - shownAt < TOO_SOON) return;
  const { strength, reasons, note, edit, edit_of } = draftNow();
  const preferred = choice === "a" || choice === "b";
  const changed = edit.trim() && edit !== state.pair.a.text && edit !== state.pair.b.text;
  send("vote", {
    pair: state.pair.id, a: state.pair.print, choice, strength: preferred ? strength : null, reasons, note,
    edit: changed ? edit : "", edit_of: changed ? edit_of : null, seconds: Math.round(watchedNow() / 100) / 10,
  });
}

const undo = () => { if (!busy) send("undo", { of: state.progress?.last ?? "" }); }; // that vote, or none (""), no later one

async function send(kind, body) {
  busy = true;
  say("");
  mark(body.choice ?? null);
  setTimeout(() => busy && $("said").className !== "wait" && say("Saving…"), 700);
  await finish(outbox.send(kind, body), kind);
}

async function finish(sending, sent) {
  try {
    const { kind, body, result } = await sending;
    shelf.remove("draft");
    if (kind === "undo" && result.undone === null) {
      busy = false;
      mark(null);
      return say("There is no vote of yours to undo.");
    }
    show(result.state, result.returned ? result.undone : null);
    const more = result.state.kind === "pair" ? " Next pair." : "";
    const how = body.strength ? WORDS[body.choice].replace("is ", `is ${STRENGTHS[body.strength]}`) : WORDS[body.choice];
    if (kind === "vote") say(`Saved: ${how}.${more}`, "saved");
    else say(undoneText(result));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    refused(error, sent === "undo" ? "Not taken back" : "Not saved");
  }
}

function undoneText({ undone, returned }) {
  if (!returned) return "Undone. The pair does not come back: other raters have given it the votes that it needs.";
  return undone.choice === "skip" ? "Undone: you had skipped this pair." : `Undone: ${WORDS[undone.choice]}. Vote again.`;
}

// The choice that is on its way, and the one that was taken back.
function mark(choice, before = null) {
  for (const button of document.querySelectorAll("[data-choice]")) {
    button.classList.toggle("sending", button.dataset.choice === choice);
    button.classList.toggle("chosen", button.dataset.choice === before);
  }
  document.body.classList.toggle("busy", busy);
}

function notSaved(tries, why) {
  say(`Not saved yet: ${why}. Trying again${tries > 3 ? "; keep this page open" : ""}.`, "wait");
}

async function refused(error, what = "Not saved") {
  mark(null);
  if (error.status === 401 || error.status === 403) {
    say(`${what}: ${error.message}.`, "wait");
    $("said").append(" ", element("a", { href: "/", textContent: "Open the page again" }));
    return;
  }
  const sentence = `${what}: ${error.message}`;
  shelf.set("draft", { ...draftNow(), pair: state.pair?.id, watched: watchedNow() });
  await load();
  say(sentence, "wait");
}

function say(text, kind = "") {
  const said = $("said");
  said.className = kind;
  if (said.textContent === text) said.textContent = ""; // said twice, it is read twice
  said.textContent = text;
}

// ---- What is said besides: strength, reasons, note, a better answer

const reasons = [...document.querySelectorAll("#reasons input")];
const strengths = [...document.querySelectorAll("[data-strength]")];
let editOf = null;

function draftNow() {
  const pressed = strengths.find(button => button.getAttribute("aria-pressed") === "true");
  return {
    strength: pressed ? Number(pressed.dataset.strength) : null,
    reasons: reasons.filter(box => box.checked).map(box => box.value),
    note: $("note").value, edit: $("edit").value, edit_of: editOf,
  };
}

function setDraft({ strength = null, reasons: ticked = [], note = "", edit = "", edit_of = null }) {
  setStrength(strength);
  for (const box of reasons) box.checked = ticked.includes(box.value);
  $("note").value = note;
  $("edit").value = edit;
  editOf = edit_of;
  $("from").textContent = $("from").dataset.sure = "";
  openEditor(edit !== "");
}

function keepDraft() {
  if (state.kind === "pair") shelf.set("draft", { ...draftNow(), pair: state.pair.id, watched: watchedNow() });
}

function setStrength(strength) {
  for (const button of strengths) button.setAttribute("aria-pressed", String(Number(button.dataset.strength) === strength));
}

function toggleStrength(strength) {
  if (busy || state.kind !== "pair") return;
  setStrength(draftNow().strength === strength ? null : strength);
  keepDraft();
}

function openEditor(open) {
  $("editor").hidden = !open;
  $("improve").setAttribute("aria-expanded", String(open));
  for (const letter of ["a", "b"]) $(`from-${letter}`).disabled = state.pair?.[letter].text == null;
}

function startFrom(letter) {
  const text = state.pair[letter].text, now = $("edit").value;
  const written = now.trim() && now !== state.pair.a.text && now !== state.pair.b.text;
  if (written && $("from").dataset.sure !== letter) {
    $("from").dataset.sure = letter;
    $("from").textContent = "This replaces what you wrote: press it again.";
    return;
  }
  $("from").dataset.sure = "";
  $("from").textContent = `Started from ${letter.toUpperCase()}.`;
  $("edit").value = text;
  editOf = letter;
  keepDraft();
  $("edit").focus();
}

function watchedNow() {
  return watched + (since === null ? 0 : performance.now() - since);
}

document.addEventListener("visibilitychange", () => {
  watched = watchedNow();
  since = document.hidden ? null : performance.now();
  keepDraft();
});
addEventListener("pagehide", keepDraft);

// ---- Keys and buttons

function toField(id) {
  if (state.kind !== "pair") return;
  if (id === "edit") openEditor(true);
  (id === "reasons" ? reasons[0] : $(id)).focus();
}

function togglePlain() {
  setPlain(!isPlain());
}

function help() {
  if (!$("help").open) $("help").showModal();
}

const KEYS = {
  1: () => vote("a"), 2: () => vote("b"), 3: () => vote("tie"), 4: () => vote("both_bad"), s: () => vote("skip"), u: undo,
  q: () => toggleStrength(1), w: () => toggleStrength(2), e: () => toggleStrength(3),
  r: () => toField("reasons"), n: () => toField("note"), i: () => toField("edit"), p: togglePlain, "?": help,
};
// On keyboards whose digits need Shift the key counts by its place.
const digit = event => /^(Digit|Numpad)([1-4])$/.exec(event.code)?.[2];

let keysOn = true;
try {
  keysOn = localStorage.getItem("trueup_rank_keys") !== "off";
} catch { /* then they are on */ }

function setKeys(on) {
  keysOn = on;
  $("keys").textContent = on ? "Turn the single keys off" : "Turn the single keys on";
  document.body.classList.toggle("keyless", !on);
  try {
    localStorage.setItem("trueup_rank_keys", on ? "on" : "off");
  } catch { /* for this page only */ }
}

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.repeat || $("help").open) return;
  const field = event.target.closest?.("textarea, input, select");
  if (event.key === "Escape" && field) return $("title").focus();
  if (!keysOn || (field && field.type !== "checkbox")) return;
  const act = KEYS[event.key.toLowerCase()] ?? KEYS[digit(event)];
  if (!act) return;
  event.preventDefault(); // or the letter would land in the field that it opens
  act();
});

for (const button of document.querySelectorAll("[data-choice]")) button.addEventListener("click", () => vote(button.dataset.choice));
for (const button of strengths) button.addEventListener("click", () => toggleStrength(Number(button.dataset.strength)));
for (const letter of ["a", "b"]) $(`from-${letter}`).addEventListener("click", () => startFrom(letter));
$("undo").addEventListener("click", undo);
$("plain").addEventListener("click", togglePlain);
$("ask").addEventListener("click", help);
$("close").addEventListener("click", () => $("help").close());
$("keys").addEventListener("click", () => setKeys(!keysOn));
$("improve").addEventListener("click", () => openEditor($("editor").hidden));
$("more").addEventListener("input", keepDraft);
$("leave").addEventListener("click", async () => {
  if (busy) return;
  try {
    await outbox.post("/api/leave", {});
    location.replace("/");
  } catch {
    say("The server does not answer: you are still signed in.", "wait");
  }
});
document.addEventListener("toggle", reachable, true);
addEventListener("resize", reachable);

setInterval(() => {
  if (state.kind === "pair" && !busy && !document.hidden) outbox.post("/api/keep", {}).catch(() => {}); // it is kept for us longer
}, KEEP);

setKeys(keysOn);
if (outbox.entry) {
  heading("Sending your last vote");
  finish(outbox.resume(), outbox.entry.kind);
} else {
  load();
}
