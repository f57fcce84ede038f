// What the browser adds: keys, which task the buttons belong to, patience after a new task appears, and what happens
// without a connection.
(() => {
  const KEYS = {
    "1": "choose-left", ArrowLeft: "choose-left", "2": "choose-right", ArrowRight: "choose-right",
    "3": "tie", t: "tie", s: "skip", u: "undo",
  };
  const BUTTONS = new Set(Object.values(KEYS));
  const PATIENCE = 300; // milliseconds: the second half of a double press must not answer the next task
  const SLOW = "No answer from the server yet. Reload the page: what it has saved stays saved.";
  const LOST = "No connection to the server: clicks are not saved. This page goes on by itself once the server answers.";
  const UNSAVED = "The connection is back. Your last step was not saved: please repeat it.";
  const BACK = "The connection is back.";
  const MARK = "hf-align-lost"; // what was shown when the connection broke, for the page that is loaded after it
  const RETRY = 1000; // milliseconds between two attempts
  let lost = false;
  let leaving = false;
  let mark = null;
  try { mark = sessionStorage.getItem(MARK); } catch { /* a frame without storage */ }
  let shown = null;
  let since = 0;

  const showing = () => document.querySelector("[data-showing]")?.dataset.showing ?? "";
  window.hfAlignShowing = showing;

  const notice = (text) => {
    let box = document.getElementById("connection");
    if (!box) {
      box = document.createElement("div");
      box.id = "connection";
      box.setAttribute("role", "alert");
      document.body.prepend(box);
    }
    box.textContent = text;
    box.hidden = !text;
  };

  // Gradio drops every click once a request has failed, until it loads the page anew. So this says so, and loads the
  // page as soon as the server answers.
  const ask = window.fetch.bind(window);
  const lose = async () => {
    if (lost || leaving) return;
    lost = true;
    try { sessionStorage.setItem(MARK, showing()); } catch { /* a frame without storage */ }
    const line = document.querySelector("#message p");
    if (line) line.textContent = "";
    for (;;) {
      notice(LOST);
      await new Promise((done) => setTimeout(done, RETRY));
      try {
        if ((await ask(location.href, { cache: "no-store" })).ok) return location.reload();
      } catch { /* still away */ }
    }
  };
  window.fetch = async (...request) => {
    const sent = request[1]?.method === "POST";
    try {
      const answer = await ask(...request);
      if (sent && [502, 503, 504].includes(answer.status)) lose(); // said by what stands between
      else if (sent) answer.clone().arrayBuffer().catch(lose); // broken off in the middle
      return answer;
    } catch (error) {
      if (sent) lose();
      throw error;
    }
  };
  window.addEventListener("pagehide", () => { leaving = true; });

  const look = () => {
    if (mark !== null && !lost && document.querySelector("[data-showing]")) {
      notice(mark && mark === showing() ? UNSAVED : BACK);
      mark = null;
      sessionStorage.removeItem(MARK);
    }
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
    if (lost || event.detail > 1 || tooSoon()) return stop(event);
    notice("");
    // Stays until the server says what happened: without a connection nothing claims to be saved.
    const line = document.querySelector("#message p");
    if (!line) return;
    line.textContent = "Saving…";
    setTimeout(() => {
      if (line.isConnected && line.textContent === "Saving…") line.textContent = SLOW;
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
