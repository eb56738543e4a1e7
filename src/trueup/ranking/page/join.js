// The form of the join page: a name goes in, a cookie comes back.

const form = document.getElementById("join");
const problem = document.getElementById("problem");

form.addEventListener("submit", async event => {
  event.preventDefault();
  const headers = { "Content-Type": "application/json", "X-CSRF-Token": document.querySelector("meta[name=csrf]").content };
  try {
    const answer = await fetch("/api/join", { method: "POST", headers, body: JSON.stringify({ name: form.elements.name.value }) });
    if (answer.ok) return location.replace("/");
    problem.textContent = (await answer.json()).error;
  } catch {
    problem.textContent = "The server does not answer. Is it still running?";
  }
  form.elements.name.focus();
});
