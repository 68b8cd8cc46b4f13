// Puts the live page into its tab in Locust's page. Locust draws the tab without content.
//
// The anchor is an element with the role "tab" and the tab's title, inside <main>. If a page has no such element, a
// corner of the page shows a link to the stand-alone page. `data-llm` of the root element says which one is used.
"use strict";

(() => {
  const own = document.currentScript;
  const title = own.dataset.title;
  const assets = new URL(".", own.src);
  const base = new URL("..", assets);
  const PATIENCE_MS = 3000; // Locust's script draws the page within a fraction of this time
  const root = document.documentElement;
  let panel = null;
  let live = null;
  let loading = null;
  let link = null;
  let since = performance.now();
  let due = false;
  let dark = null;
  let starting = null; // after a start from the form: the error that the form showed before

  const tabs = () => [...document.querySelectorAll('[role="tab"]')];

  function sync() {
    due = false;
    theme();
    const tab = tabs().find((each) => each.textContent.trim() === title);
    const main = tab?.closest("main");
    if (!main) return missing();
    root.dataset.llm = "tab";
    since = performance.now();
    if (startedFromForm()) tab.click();
    link?.remove();
    const selected = tab.getAttribute("aria-selected") === "true";
    if (!selected) return hide();
    panel ??= makePanel();
    // Locust redraws the neighboring elements, so the panel is the last element.
    if (main.lastElementChild !== panel) main.append(panel);
    panel.hidden = false;
    if (live) live.start();
    else load();
  }

  const errorIn = (form) => form.querySelector(".MuiAlert-colorError");

  // Whether the form has started a test since the last call. Locust removes the form when the start is accepted, and
  // shows an error in it when the start is refused.
  function startedFromForm() {
    if (!starting) return false;
    const form = document.querySelector("form");
    const error = form && errorIn(form);
    if (form && (!error || error === starting.error)) return false;
    starting = null;
    return !form;
  }

  function makePanel() {
    const made = document.createElement("div");
    made.id = "llm-panel";
    made.className = "llm-panel";
    made.setAttribute("role", "tabpanel");
    made.setAttribute("aria-label", title);
    return made;
  }

  function hide() {
    live?.stop();
    if (panel) panel.hidden = true;
  }

  // Without a tab: normal on the start form; on other pages Locust has changed its page.
  function missing() {
    hide();
    if (performance.now() - since < PATIENCE_MS) {
      setTimeout(request, PATIENCE_MS + 100);
      return;
    }
    const form = document.querySelector("main form") && !tabs().length;
    if (form) return link?.remove();
    root.dataset.llm = "link";
    if (!link) {
      link = document.createElement("a");
      link.id = "llm-link";
      link.href = base.href.replace(/\/$/, "");
      link.textContent = `${title}: live view`;
      link.style.cssText =
        "position:fixed;right:16px;bottom:16px;z-index:2000;padding:8px 14px;border-radius:6px;background:#0067a6;color:#fff;font:500 14px system-ui,sans-serif";
    }
    if (!link.isConnected) document.body.append(link);
  }

  function load() {
    loading ??= Promise.all([...own.dataset.styles.split(" ").map(style), script(own.dataset.scripts.split(" "))])
      .then(() => {
        live = window.LLMLive.mount(panel, base);
        sync();
      })
      .catch((error) => {
        console.error(error);
        loading = null;
        panel.textContent = "The live view could not be loaded from Locust. To try again, open another tab and return to this one.";
      });
  }

  function style(name) {
    return new Promise((resolve, reject) => {
      const made = document.createElement("link");
      made.rel = "stylesheet";
      made.href = new URL(name, assets).href;
      made.onload = resolve;
      made.onerror = reject;
      document.head.append(made);
    });
  }

  async function script(names) {
    for (const name of names) {
      await new Promise((resolve, reject) => {
        const made = document.createElement("script");
        made.src = new URL(name, assets).href;
        made.onload = resolve;
        made.onerror = reject;
        document.head.append(made);
      });
    }
  }

  // Only the background shows Locust's theme. The colors of the charts follow the attribute.
  function theme() {
    const [red, green, blue] = getComputedStyle(document.body).backgroundColor.match(/\d+/g) || [255, 255, 255];
    const now = 0.299 * red + 0.587 * green + 0.114 * blue < 128;
    if (now === dark) return;
    dark = now;
    root.dataset.theme = dark ? "dark" : "light";
    window.LLMCharts?.refresh();
  }

  function request() {
    if (due) return;
    due = true;
    // Not in an animation frame, because a window in the background has none.
    setTimeout(sync, 30);
  }

  // "Update" in the same form changes a running test, which is not a start.
  document.addEventListener("submit", ({ target, submitter }) => {
    if (submitter?.textContent.trim() === "Start") starting = { error: errorIn(target) };
  }, true);

  new MutationObserver((records) => {
    if (records.some(({ target }) => !panel || !panel.contains(target))) request();
  }).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["aria-selected"] });
  request();
})();
