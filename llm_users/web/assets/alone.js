// The stand-alone live page: sets the theme, which it shares with Locust's page, and starts the page.
"use strict";

(() => {
  const root = document.documentElement;
  const button = document.getElementById("llm-theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  // Locust stores the chosen theme under this name. Without a stored theme, both pages follow the system.
  function stored() {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null;
    }
  }

  function apply() {
    const known = stored();
    root.dataset.theme = known === "dark" || known === "light" ? known : system.matches ? "dark" : "light";
    button.textContent = root.dataset.theme === "dark" ? "Light" : "Dark";
    window.LLMCharts.refresh();
  }

  button.addEventListener("click", () => {
    try {
      localStorage.setItem("theme", root.dataset.theme === "dark" ? "light" : "dark");
    } catch {
      return;
    }
    apply();
  });
  system.addEventListener("change", apply);
  window.addEventListener("storage", apply);
  apply();
  const host = document.getElementById("llm-panel");
  window.LLMLive.mount(host, new URL(host.dataset.base, document.baseURI)).start();
})();
