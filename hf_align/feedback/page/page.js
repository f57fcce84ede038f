// What the browser adds: keys, which task the buttons belong to, and patience after a new task appears.
(() => {
  const KEYS = {
    "1": "choose-left", ArrowLeft: "choose-left", "2": "choose-right", ArrowRight: "choose-right",
    "3": "tie", t: "tie", s: "skip", u: "undo",
  };
  const BUTTONS = new Set(Object.values(KEYS));
  const PATIENCE = 300; // milliseconds: the second half of a double press must not answer the next task
  const LOST = "No answer from the server yet. Reload the page: what it has saved stays saved.";
  let shown = null;
  let since = 0;

  const showing = () => document.querySelector("[data-showing]")?.dataset.showing ?? "";
  window.hfAlignShowing = showing;

  const look = () => {
    if (showing() === shown) return;
    shown = showing();
    since = performance.now();
    for (const box of document.querySelectorAll(".task .text")) box.scrollTo(0, 0);
    if (document.activeElement?.closest?.("#reason, #confidence")) document.activeElement.blur();
  };
  new MutationObserver(look).observe(document, {
    subtree: true, childList: true, attributes: true, attributeFilter: ["data-showing"],
  });

  const tooSoon = () => performance.now() - since < PATIENCE;
  const stop = (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
  };

  window.addEventListener("click", (event) => {
    const button = event.target.closest?.("button");
    if (!button || !BUTTONS.has(button.id)) return;
    if (event.detail > 1 || tooSoon()) return stop(event);
    // Stays until the server says what happened: without a connection nothing claims to be saved.
    const line = document.querySelector("#message p");
    if (!line) return;
    line.textContent = "Saving…";
    setTimeout(() => {
      if (line.isConnected && line.textContent === "Saving…") line.textContent = LOST;
    }, 5000);
  }, true);

  window.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    const field = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (field) {
      if (event.key === "Escape") field.blur();
      const writes = !["radio", "checkbox", "button"].includes(field.type);
      if (writes || event.key.startsWith("Arrow")) return;
    }
    const id = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
    const button = id && document.getElementById(id);
    if (!button || button.disabled) return;
    stop(event);
    if (!event.repeat) button.click();
  }, true);

  // A page from the back button is old: ask again.
  window.addEventListener("pageshow", (event) => event.persisted && location.reload());
})();
