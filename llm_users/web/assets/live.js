// The live page of a load test, in a tab of Locust's page or stand-alone. LLMLive.mount(element, base) builds the page
// and returns a handle that starts and stops polling. `base` is the address of the folder with state.json.
"use strict";

window.LLMLive = (() => {
  const { make } = window.LLMDom;
  const PARTS = window.LLMParts;
  const REMEMBERED = "llm-live";
  const WINDOWS = [
    ["whole run", 0],
    ["last 15 minutes", 900],
    ["last 5 minutes", 300],
    ["last minute", 60],
  ];

  function mount(host, base) {
    const history = window.LLMHistory.history();
    const choices = remembered();
    let state = null;
    let fresh = true; // the next drawing shows another range or scale, so it resets the zoom

    const trouble = make("p", { className: "llm-banner llm-bad", role: "alert", hidden: true });
    const parts = [
      PARTS.banners(),
      PARTS.progress(),
      PARTS.figures(),
      PARTS.server(),
      PARTS.search(),
      PARTS.stages(),
      PARTS.workers(),
      PARTS.downloads((kind) => new URL(`download/${encodeURIComponent(kind)}`, base).href),
    ];
    const [banners, progress, figures, server, search, stages, workers, downloads] = parts;
    const curves = window.LLMLiveCharts.curves();
    const overTime = window.LLMLiveCharts.overTime();
    const note = make("p", { className: "llm-soft" });
    const objectives = make("p", { className: "llm-soft" });

    const shown = make("select", { id: "llm-window" }, ...WINDOWS.map(([text, value]) => option(text, value)));
    shown.value = String(choices.last_s);
    const log = make("input", { type: "checkbox", id: "llm-log", checked: choices.log });
    const curveLog = make("input", { type: "checkbox", id: "llm-curve-log", checked: choices.curveLog });
    for (const control of [shown, log, curveLog]) control.addEventListener("input", chosen);

    const root = make(
      "div",
      { className: "llm llm-live" },
      trouble,
      banners.element,
      progress.element,
      figures.element,
      server.element,
      search.element,
      stages.element,
      make(
        "section",
        { "aria-label": "Throughput against latency" },
        make("div", { className: "llm-head" }, make("h2", {}, "Throughput against latency"), tick(curveLog, "logarithmic")),
        objectives,
        curves.element,
      ),
      make(
        "section",
        { "aria-label": "Over time" },
        make(
          "div",
          { className: "llm-head" },
          make("h2", {}, "Over time"),
          make("label", {}, "Show ", shown),
          tick(log, "latencies logarithmic"),
        ),
        note,
        overTime.element,
      ),
      workers.element,
      downloads.element,
    );
    host.replaceChildren(root);

    const poller = window.LLMPoll.poller({
      ask() {
        const address = new URL("state.json", base);
        for (const [name, value] of Object.entries(history.known)) address.searchParams.set(name, value);
        return address;
      },
      answered(next) {
        trouble.hidden = true;
        if (state && next.run !== state.run) fresh = true;
        state = next;
        history.take(next);
        draw();
      },
      failed(sentence, wait_s) {
        trouble.textContent = `${sentence} Trying again in ${wait_s} s.`;
        trouble.hidden = false;
      },
    });

    function draw() {
      if (!state) return;
      for (const part of parts) part.show(state, history);
      const limits = state.objectives || [];
      note.textContent = `Percentiles cover the last ${state.window_s ?? 10} s. Drag to zoom, double-click to reset the zoom.`;
      objectives.textContent = limits.length ? `Objectives: ${limits.map((each) => each.text).join(", ")}.` : "";
      objectives.hidden = !limits.length;
      curves.draw(state.stages || [], choices.curveLog, limits);
      overTime.draw(history.columns, { ...choices, same: !fresh, over: Boolean(state.totals) }, state.stages || [], limits);
      fresh = false;
      root.dataset.run = state.run ?? "";
    }

    function chosen() {
      Object.assign(choices, { last_s: Number(shown.value), log: log.checked, curveLog: curveLog.checked });
      remember(choices);
      fresh = true;
      draw();
    }

    return { start: poller.start, stop: poller.stop, history, draw };
  }

  function option(text, value) {
    return make("option", { value: String(value) }, text);
  }

  function tick(box, text) {
    return make("label", {}, box, ` ${text}`);
  }

  // The last choices in this browser. Storage may be disabled.
  function remembered() {
    const known = { last_s: 0, log: false, curveLog: false };
    try {
      const stored = JSON.parse(localStorage.getItem(REMEMBERED)) || {};
      if (WINDOWS.some(([, value]) => value === stored.last_s)) known.last_s = stored.last_s;
      for (const name of ["log", "curveLog"]) known[name] = stored[name] === true;
    } catch {
      // Use the defaults.
    }
    return known;
  }

  function remember(choices) {
    try {
      localStorage.setItem(REMEMBERED, JSON.stringify(choices));
    } catch {
      // The choices last until the user leaves the page.
    }
  }

  return { mount };
})();
