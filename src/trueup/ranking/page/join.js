// The form of the join pages: a name goes in, or a link's token, and a cookie comes back.

const form = document.getElementById("join");
const problem = document.getElementById("problem");

form.addEventListener("submit", async event => {
  event.preventDefault();
  const headers = { "Content-Type": "application/json", "X-CSRF-Token": document.querySelector("meta[name=csrf]").content };
  try {
    const answer = await fetch(form.dataset.call, { method: "POST", headers, body: JSON.stringify(Object.fromEntries(new FormData(form))) });
    if (answer.ok) return location.replace("/");
    problem.textContent = (await answer.json()).error;
  } catch {
    problem.textContent = "The server does not answer. Is it still running?";
  }
  form.querySelector("input:not([type=hidden]), button").focus();
});
