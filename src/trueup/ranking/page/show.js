// The page from what the server sent: text only where HTML is not the server's own rendering.

const $ = id => document.getElementById(id);
const ROLES = { system: "System", user: "User", assistant: "Assistant" };
const LONG_TURN = 500; // characters of an earlier turn that is folded
const TALL_TURN = 3000; // characters of a last turn that scrolls in a box of its own

let plain = false; // whether texts are shown as they are
let last = null; // what is shown, to show it again

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function setPlain(on) {
  plain = on;
  $("plain").setAttribute("aria-pressed", String(on));
  if (last) showTexts(last);
}
export const isPlain = () => plain;

// `turns` and the two answers; each is {html, plain}, html null where it is too long for Markdown.
export function showTexts(texts) {
  last = texts;
  $("turns").replaceChildren(...texts.turns.map((turn, index) => turnOf(turn, index === texts.turns.length - 1, texts.turns.length)));
  fill($("answer-a").querySelector(".body"), texts.a);
  fill($("answer-b").querySelector(".body"), texts.b);
  reachable();
}

// Answers that grow: the prompt is built once, so that nobody's place in it is lost.
export function showGrowing(writing) {
  const key = JSON.stringify(writing.turns);
  const texts = { key, turns: writing.turns, a: { html: null, plain: writing.a }, b: { html: null, plain: writing.b } };
  if (last?.key !== key) return showTexts(texts);
  last = texts;
  for (const letter of ["a", "b"]) $(`answer-${letter}`).querySelector(".body").innerHTML = writing[letter];
}

function turnOf(turn, isLast, count) {
  if (turn.left_out) return element("p", { className: "fine", textContent: `${turn.left_out.toLocaleString("en")} turns between are not shown here; the store has them all.` });
  const body = element("div", { className: "body" });
  fill(body, turn);
  const role = ROLES[turn.role] ?? turn.role;
  const length = (turn.text ?? turn.plain).length;
  if (!isLast && length > LONG_TURN) {
    const gist = turn.text?.trim().slice(0, 90).replace(/\s+/g, " ") ?? "";
    const summary = element("summary", {}, element("b", { textContent: role }), " ", element("bdi", { textContent: gist && `${gist}…` }));
    return element("details", { className: `turn ${turn.role}` }, summary, body);
  }
  if (isLast && length > TALL_TURN) {
    body.classList.add("tall");
    body.role = "group";
    body.ariaLabel = role;
  }
  const made = element("div", { className: `turn ${turn.role}${isLast ? " last" : ""}` });
  made.append(element("h3", { textContent: role, className: count === 1 ? "unseen" : "role" }), body);
  return made;
}

// The server rendered and escaped both; its policy lets no script in them run.
function fill(body, text) {
  const html = plain || text.html === null ? text.plain : text.html;
  body.classList.toggle("md", !plain && text.html !== null);
  body.innerHTML = html.trim() && !/^<div class="said" dir="auto">\s*<\/div>$/.test(html.trim()) ? html : '<p class="absent">empty</p>';
}

// What scrolls by itself can be reached by Tab, what does not is no stop on the way.
export function reachable() {
  for (const box of document.querySelectorAll("pre, .wide, .tall")) {
    if (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

export function showProgress({ voted, skipped, left, pace }) {
  const parts = [`${voted} voted`, `${left} left`];
  if (skipped) parts.splice(1, 0, `${skipped} skipped`);
  if (pace !== null) parts.push(`${pace < 10 ? pace.toFixed(1) : Math.round(pace)} s a vote`);
  $("far").replaceChildren(...parts.map(part => {
    const [number, ...words] = part.split(" ");
    return element("span", {}, element("b", { textContent: number }), ` ${words.join(" ")}`);
  }));
  $("bar").max = Math.max(1, voted + skipped + left);
  $("bar").value = voted + skipped;
}

// What stands where there is no pair. -> the heading over it.
export function showEnd(state, results) {
  const { title, said, fine } = WORDS[state.kind](state);
  $("end").replaceChildren(...[
    said && element("p", { textContent: said }),
    fine && element("p", { className: "fine", textContent: fine }),
    state.kind === "done" && results && element("p", {}, element("a", { href: "/results", textContent: "What the votes say so far", className: "button" })),
  ].filter(Boolean));
  return title;
}

const WORDS = {
  waiting: ({ writer }) => ({
    title: "The models are getting ready",
    said: writer === "loading" ? "They are being loaded. The first answers appear here as they are written." : "The next answers appear here as they are written.",
  }),
  failed: () => ({
    title: "No more answers for now",
    said: "The models that write the answers have stopped; your votes are all saved.",
    fine: "The reason is in the terminal in which the server runs.",
  }),
  done: ({ progress: { voted, skipped } }) => ({
    title: voted || skipped ? "All done. Thank you." : "Nothing is left to rank here.",
    said: voted || skipped ? `You voted on ${voted} ${voted === 1 ? "pair" : "pairs"}${skipped ? ` and skipped ${skipped}` : ""}. Every vote is saved.` : "",
    fine: "Should more pairs come, or one that another rater held be free again, this page says so.",
  }),
};
