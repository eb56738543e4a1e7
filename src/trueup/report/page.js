"use strict";
// The page is complete without this: it only filters the samples and copies commands.
(() => {
  const form = document.getElementById("filter");
  const samples = [...document.querySelectorAll(".sample")];
  if (form && samples.length) {
    const texts = samples.map((one) => one.textContent.toLowerCase());
    const more = document.getElementById("more-samples");
    const count = document.getElementById("filter-count");
    const apply = () => {
      const wanted = form.elements.text.value.trim().toLowerCase();
      const task = form.elements.task.value;
      const changed = form.elements.changed.checked;
      let shown = 0;
      samples.forEach((one, at) => {
        const fits =
          (!wanted || texts[at].includes(wanted)) &&
          (!task || one.dataset.task === task) &&
          (!changed || one.dataset.changed === "yes");
        one.hidden = !fits;
        shown += fits ? 1 : 0;
      });
      const filtered = Boolean(wanted || task || changed);
      if (more && filtered) more.open = true;
      count.textContent = filtered ? `${shown} of ${samples.length} prompts` : `${samples.length} prompts`;
    };
    form.hidden = false;
    form.addEventListener("input", apply);
    form.addEventListener("reset", () => setTimeout(apply));
    form.addEventListener("submit", (event) => event.preventDefault());
    apply();
  }

  // An address of something that is folded opens it; so does print, where the style alone does not.
  const folds = [...document.querySelectorAll("details")];
  const reveal = () => {
    const id = decodeURIComponent(location.hash.slice(1));
    const target = id ? document.getElementById(id) : null;
    for (let one = target; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  for (const link of document.querySelectorAll('a[href^="#"]'))
    link.addEventListener("click", () => setTimeout(reveal)); // the same address again is no change
  reveal();
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = folds.filter((one) => !one.open);
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
  });

  const select = (node) => {
    const range = document.createRange();
    range.selectNodeContents(node);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  };
  for (const button of document.querySelectorAll("button[data-copies]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copies);
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        // Pages opened from disk may not write to the clipboard: select the text, so that one key copies it.
        select(source);
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }
})();
