// The parts of the live page with texts and tables: banners, progress, present figures, stages, workers, downloads.
// Each part is { element, show(state, history) }.
"use strict";

window.LLMParts = (() => {
  const { number } = window.LLMCharts;
  const { make, write, some, seconds, plain, fixed, percent, clock, isOpen, loadShort, loadWords, table } = window.LLMDom;

  const STATES = {
    ready: "Ready",
    spawning: "Starting users",
    running: "Running",
    stopping: "Stopping",
    stopped: "Stopped",
    finished: "Finished",
  };
  const PHASES = {
    RAMP: "users are starting",
    "WARM-UP": "requests are not measured yet",
    MEASURE: "",
    DRAIN: "waiting for the last answers",
  };
  const MOST_OPEN = 2;
  const MOST_BAD_OPEN = 4;
  const LEVELS = { bad: "Problem", warn: "Warning", info: "Note" };

  // ---- banners

  function banners() {
    const [first, others] = [make("div"), make("div")];
    const summary = make("summary");
    const rest = make("details", { hidden: true }, summary, others);
    return {
      element: make("div", { className: "llm-banners" }, first, rest),
      // The most severe banners come first. Many banners must not push the figures off the screen.
      show({ banners: all = [] }) {
        const bad = all.filter(({ level }) => level === "bad").length;
        const most = Math.max(MOST_OPEN, Math.min(MOST_BAD_OPEN, bad));
        const open = all.length > most + 1 ? most : all.length;
        fillBanners(first, all.slice(0, open));
        fillBanners(others, all.slice(open));
        rest.hidden = open === all.length;
        write(summary, `${all.length - open} more notes`);
      },
    };
  }

  // Update in place: figures in the texts change every second, and a user may be reading a text.
  function fillBanners(list, all) {
    while (list.children.length > all.length) list.lastChild.remove();
    while (list.children.length < all.length) list.append(make("p", {}, make("strong"), make("span")));
    all.forEach(({ level, text, count }, k) => {
      const known = level in LEVELS ? level : "info";
      const each = list.children[k];
      if (each.className !== `llm-banner llm-${known}`) each.className = `llm-banner llm-${known}`;
      write(each.firstChild, count > 1 ? `${LEVELS[known]} (${count} times, the last one): ` : `${LEVELS[known]}: `);
      write(each.lastChild, text);
    });
  }

  // ---- progress of the run

  function progress() {
    const chip = make("span", { className: "llm-chip" });
    const words = make("span", { className: "llm-stage" });
    const left = make("span", { className: "llm-left" });
    const steps = make("div", {
      className: "llm-steps", role: "progressbar", "aria-label": "Progress of the run", "aria-valuemin": 0,
      "aria-valuemax": 100,
    }); // prettier-ignore
    const about = make("p", { className: "llm-about" });
    const voice = make("p", { className: "llm-sr", "aria-live": "polite" });
    const line = make("p", { className: "llm-line" }, chip, words, left);
    return {
      element: make("div", { className: "llm-card llm-progress" }, line, steps, about, voice),
      show(state) {
        write(chip, STATES[state.state] || String(state.state));
        chip.dataset.state = state.state;
        write(words, standing(state));
        write(left, remaining(state));
        write(about, aboutOf(state.about || {}));
        step(steps, state);
        write(voice, spokenOf(state));
      },
    };
  }

  // The text for screen readers: the progress of the run, and the number of warnings.
  function spokenOf({ state, progress: at, banners: all = [] }) {
    const where = at ? `, stage ${at.stage}, ${at.phase}` : "";
    const problems = all.filter(({ level }) => level !== "info").length;
    const warned = problems ? `. ${problems} ${problems === 1 ? "warning" : "warnings"} at the top of the page` : "";
    return `${STATES[state] || ""}${where}${warned}`;
  }

  function standing({ run, state, progress: at, stages = [] }) {
    if (at) {
      const of = at.stages ? ` of ${at.stages}` : "";
      const load = isOpen(at) || some(at.concurrency) ? `, ${loadWords(at)}` : "";
      const total = some(at.of) ? ` of ${number(at.of)}` : "";
      const done = some(at.done) ? `${number(at.done)}${total} requests` : "";
      const what = at.phase === "MEASURE" ? done : PHASES[at.phase];
      return `Stage ${at.stage}${of}${load} · ${at.phase}${what ? `: ${what}` : ""}`;
    }
    if (run === null || run === undefined) return "No test has been started yet.";
    const finished = stages.filter((each) => each.finished).length;
    if (["finished", "stopped", "ready"].includes(state)) {
      return `${finished} ${finished === 1 ? "stage" : "stages"} finished; the figures below stay until the next start.`;
    }
    return "";
  }

  function remaining({ progress: at, now_s: now }) {
    const since = some(now) ? clock(now) : "";
    if (!at || !some(at.left_s)) return since;
    return `${since} · about ${clock(Math.max(0, at.left_s))} left in this stage`;
  }

  function aboutOf({ host, model, framework, api }) {
    return [model, api, framework, host].filter(Boolean).join(" · ");
  }

  // One segment of the bar per stage. The segment of the running stage shows the share of its requests.
  function step(steps, { progress: at, stages = [] }) {
    const count = Math.min(200, at?.stages || stages.length);
    if (at && some(at.left_s) && steps.stage !== at.stage) Object.assign(steps, { stage: at.stage, whole_s: at.left_s });
    const share = (k) => {
      if (!at) return stages[k]?.finished ? 1 : 0;
      if (k + 1 !== at.stage) return k + 1 < at.stage ? 1 : 0;
      if (at.phase === "DRAIN") return 1;
      if (at.phase !== "MEASURE") return 0;
      if (at.of) return Math.min(1, at.done / at.of);
      // A timed stage: the share of the time that was left when the page first saw the stage.
      return some(at.left_s) && steps.whole_s > 0 ? Math.min(1, Math.max(0, 1 - at.left_s / steps.whole_s)) : 0;
    };
    steps.hidden = !count;
    while (steps.children.length > count) steps.lastChild.remove();
    while (steps.children.length < count) steps.append(make("span", {}, make("i"), make("b")));
    let total = 0;
    [...steps.children].forEach((each, k) => {
      total += share(k);
      each.firstChild.style.width = `${100 * share(k)}%`;
      each.toggleAttribute("data-here", Boolean(at) && k + 1 === at.stage);
      const of = at?.stage === k + 1 ? at : stages.find((one) => one.stage === k + 1);
      write(each.lastChild, of ? loadShort({ ...of, concurrency: of.concurrency ?? "", stage: undefined }) : "");
    });
    const percentage = count ? Math.round((100 * total) / count) : 0;
    steps.setAttribute("aria-valuenow", percentage);
    steps.setAttribute("aria-valuetext", `${percentage} %`);
  }

  // ---- current figures; after the end, figures of the whole run

  const asked = (users, rate) => (some(rate) ? `at ${plain(rate)} requests/s` : `of ${plain(users)} ${users === 1 ? "user" : "users"}`);

  const NOW = [
    ["TTFT, median", (h) => [seconds(h.newest("ttft_p50")), `p95 ${seconds(h.newest("ttft_p95"))}`]],
    ["TPOT, median", (h) => [seconds(h.newest("tpot_p50")), `p95 ${seconds(h.newest("tpot_p95"))}`]],
    ["Output tokens/s", (h) => [plain(h.newest("tokens_per_s")), "all requests together"]],
    ["Requests/s", (h) => [plain(h.newest("requests_per_s")), "finished"]],
    ["In flight", (h) => [plain(h.newest("in_flight")), asked(h.newest("users"), h.newest("rate_per_s"))]],
    ["Errors/s", (h) => [plain(h.newest("errors_per_s")), `${plain(h.newest("throttled_per_s"))} throttled/s`]],
  ];

  const whole = ({ stages }) => (stages > 1 ? "mean over all stages" : "whole run");
  const WHOLE_RUN = [
    ["TTFT, median", (t) => [seconds(t.ttft.median), `p95 ${seconds(t.ttft.p95)}`]],
    ["TPOT, median", (t) => [seconds(t.tpot.median), `p95 ${seconds(t.tpot.p95)}`]],
    ["Output tokens/s", (t) => [plain(t.output_throughput_token_per_s), whole(t)]],
    ["Requests/s", (t) => [plain(t.request_throughput_per_s), whole(t)]],
    ["Requests", (t) => [number(t.requests), `${number(t.ok)} OK`]],
    ["Failed", (t) => [number(t.failed), `${number(t.throttled)} throttled`]],
  ];

  function figures() {
    const range = make("p", { className: "llm-soft llm-range" });
    const tiles = NOW.map(() => {
      const [name, value, more] = [make("dt"), make("dd"), make("dd", { className: "llm-more" })];
      return { name, value, more, element: make("div", { className: "llm-card" }, name, value, more) };
    });
    const list = make("dl", { className: "llm-tiles" }, ...tiles.map((tile) => tile.element));
    return {
      element: make("div", {}, range, list),
      show({ totals, window_s: window_s = 10 }, history) {
        const of = totals ? `the ${totals.stages} stages` : "";
        write(
          range,
          !totals ? `Now: latencies of the last ${window_s} s.`
            : `Whole run: all measured requests${totals.stages > 1 ? ` of ${of} together` : ""}.`,
        ); // prettier-ignore
        tiles.forEach(({ name, value, more }, k) => {
          const [title, read] = (totals ? WHOLE_RUN : NOW)[k];
          const [figure, beside] = read(totals || history);
          write(name, title);
          write(value, figure);
          write(more, beside);
        });
        const errors = totals ? totals.failed : history.newest("errors_per_s");
        tiles[5].element.toggleAttribute("data-bad", errors > 0);
      },
    };
  }

  // ---- the server's own metrics

  const SERVER = [
    ["requests_running", (value) => `${plain(value)} running`],
    ["requests_waiting", (value) => `${plain(value)} waiting`],
    ["kv_cache_usage", (value) => `KV cache ${percent(value)}`],
    ["prompt_tokens", (value) => `${plain(value)} prompt tokens/s`],
    ["generation_tokens", (value) => `${plain(value)} output tokens/s`],
    ["gpu_utilization", (value) => `GPU ${percent(value)}`],
  ]; // prettier-ignore

  function server() {
    const element = make("div", { className: "llm-card llm-server", id: "llm-server-now", hidden: true });
    return {
      element,
      show({ server: servers = [] }) {
        element.hidden = !servers.length;
        while (element.children.length > servers.length) element.lastChild.remove();
        while (element.children.length < servers.length) {
          element.append(make("p", {}, make("strong"), make("span"), make("span", { className: "llm-soft" })));
        }
        servers.forEach(({ engine, server: address, metrics }, k) => {
          const [name, values, where] = element.children[k].children;
          const known = SERVER.filter(([metric]) => some(metrics[metric]));
          write(name, `Server${engine ? ` (${engine})` : ""}: `);
          write(values, known.map(([metric, text]) => text(metrics[metric])).join(" · ") || "no values yet");
          write(where, ` ${address}`);
        });
      },
    };
  }

  // ---- load search

  function search() {
    const conclusion = make("p", { className: "llm-conclusion" });
    const reservations = make("ul", { className: "llm-reservations" });
    const tried = table("Loads, in ascending order", [
      { title: "Load", value: (point) => point.level, text: loadText, words: true },
      { title: "Objectives", value: verdictOf, words: true },
      { title: "Stages", value: (point) => point.stages.join(", "), words: true },
      { title: "Reason", value: (point) => point.reason, words: true, sentence: true },
    ]); // prettier-ignore
    tried.element.classList.add("llm-card");
    tried.element.id = "llm-table-search";
    const card = make("div", { className: "llm-stack" }, make("div", { className: "llm-card" }, conclusion, reservations), tried.element);
    const element = make("section", { "aria-label": "Load search" }, make("h2", {}, "Load search"), card);
    return {
      element,
      show({ search: found }) {
        element.hidden = !found;
        if (!found) return;
        const points = found.points.map((point) => ({ ...point, unit: found.unit }));
        const soFar = points.length ? `So far: ${found.conclusion}.` : "No load has been judged yet.";
        write(conclusion, found.over ? `${found.conclusion}.` : soFar);
        reservations.hidden = !found.reservations.length;
        while (reservations.children.length > found.reservations.length) reservations.lastChild.remove();
        while (reservations.children.length < found.reservations.length) reservations.append(make("li"));
        found.reservations.forEach((text, k) => write(reservations.children[k], text));
        tried.element.hidden = !points.length;
        tried.fill(points);
      },
    };
  }

  const loadText = (value, { unit }) => `${plain(value)} ${value === 1 && unit === "users" ? "user" : unit}`;

  function verdictOf({ passed, decided }) {
    const counted = passed ? "passed" : "failed";
    return decided ? counted : `undecided, counts as ${counted}`;
  }

  // ---- stages

  const AGGREGATES = [
    ["Median", "median"], ["Mean", "mean"], ["Min", "min"], ["Max", "max"], ["P25", "p25"], ["P75", "p75"],
    ["P95", "p95"], ["P99", "p99"],
  ]; // prettier-ignore

  const NAMES = [
    { title: "Framework", value: (row) => row.framework, words: true, varying: true },
    { title: "Model", value: (row) => row.model, words: true, varying: true },
  ];

  // As in the report's tables: one column for each kind of load in the run.
  const LOADS = [
    { title: "Concurrency", value: (row) => row.concurrency, words: true, wanted: (rows) => !rows.every(isOpen) },
    { title: "Rate", help: "Target, in requests per second", value: (row) => row.ramp ?? row.rate_per_s, words: true,
      wanted: (rows) => rows.some(isOpen) },
    { title: "ISL/OSL", help: "Tokens of the prompt, and maximum tokens of the answer", value: (row) => row.lengths,
      words: true, wanted: (rows) => rows.some((row) => row.lengths) },
  ]; // prettier-ignore

  function percentiles(caption, metric, digits) {
    return table(caption, [
      ...NAMES,
      ...LOADS,
      ...AGGREGATES.map(([title, key]) => ({
        title, value: (row) => row[metric]?.[key] ?? null, text: marked(fixed(digits), key),
      })),
    ]); // prettier-ignore
  }

  // A percentile of a finished stage with too many values is approximate, because it comes from a histogram.
  const isApproximate = ({ finished, exact }) => finished && exact === false;
  const EXACT_AGGREGATES = ["mean", "min", "max"];

  function marked(text, key) {
    const mark = (row) => isApproximate(row) && !EXACT_AGGREGATES.includes(key);
    return (value, row) => (some(value) && mark(row) ? `≈ ${text(value)}` : text(value));
  }

  function stages() {
    const overview = table("Overview", [
      ...NAMES,
      ...LOADS,
      { title: "Stage", value: standingOf, words: true },
      { title: "Requests", value: (row) => row.requests },
      { title: "OK", value: (row) => row.ok },
      { title: "Failed", value: (row) => row.failed },
      { title: "Throttled", value: (row) => row.throttled },
      { title: "Aborted", value: (row) => row.aborted },
      { title: "Cancelled", value: (row) => row.cancelled },
      { title: "Output tokens/s", value: (row) => row.output_throughput_token_per_s, text: plain },
      { title: "Requests/s", value: (row) => row.request_throughput_per_s, text: plain },
      { title: "TTFT median", value: (row) => row.ttft?.median, text: marked(seconds, "median") },
      { title: "TTFT P95", value: (row) => row.ttft?.p95, text: marked(seconds, "p95") },
      { title: "TPOT median", value: (row) => row.tpot?.median, text: marked(seconds, "median") },
      { title: "TPOT P95", value: (row) => row.tpot?.p95, text: marked(seconds, "p95") },
      {
        title: "Client",
        help: "Whether the load generator kept up: ok, strained, disturbed or saturated",
        value: (row) => row.health,
        words: true,
      },
      {
        title: "Queue",
        help: "unsteady: the queue grew through the stage, so its figures depend on how long it was measured",
        value: (row) => row.steadiness,
        words: true,
      },
    ]);
    const tables = [
      [overview, "stages"],
      [percentiles("Time to First Token (seconds)", "ttft", 2), "ttft"],
      [percentiles("Output Tokens Throughput (tokens/s)", "throughput", 0), "throughput"],
      [percentiles("Time per output token (seconds)", "tpot", 4), "tpot"],
      [percentiles("End-to-end latency (seconds)", "e2e", 2), "e2e"],
      [percentiles("Time to First Token from the intended start (seconds)", "corrected_ttft", 2), "corrected-ttft"],
      [percentiles("End-to-end latency from the intended start (seconds)", "corrected_e2e", 2), "corrected-e2e"],
    ];
    for (const [each, name] of tables) {
      each.element.classList.add("llm-card");
      each.element.id = `llm-table-${name}`;
    }
    const pair = (...some) => make("div", { className: "llm-tables" }, ...some.map(([each]) => each.element));
    const more = make("details", {}, make("summary", {}, "Time per output token and end-to-end latency"));
    more.append(pair(tables[3], tables[4]));
    const empty = make("p", { className: "llm-soft" }, "Figures appear after the first answers.");
    const note = make(
      "p",
      { className: "llm-soft" },
      "Finished stages have the figures of llm-report. The running stage, and percentiles with the mark ≈, are estimates from histograms with an error of at most 0.1 %.",
    );
    const corrected = pair(tables[5], tables[6]);
    const both = pair(tables[1], tables[2]);
    const filled = make("div", { className: "llm-stack" }, overview.element, both, corrected, more, note);
    const element = make("section", { "aria-label": "Stages" }, make("h2", {}, "Results by stage"), empty, filled);
    return {
      element,
      show({ stages: rows = [] }) {
        empty.hidden = rows.length > 0;
        filled.hidden = !rows.length;
        corrected.hidden = !rows.some(isOpen);
        for (const [each] of tables) each.fill(rows, (row) => (row.finished ? "" : "llm-running"));
      },
    };
  }

  function standingOf(row) {
    if (!row.finished) return "running";
    return isApproximate(row) ? "finished, approximate" : "finished";
  }

  // ---- workers

  // The number in charts and notes, and Locust's name.
  function processOf({ worker, name }) {
    return name === "this process" || !some(worker) ? name : `worker ${worker} · ${name}`;
  }

  function workers() {
    const list = table("Workers", [
      { title: "Process", value: processOf, words: true },
      { title: "CPU", value: (row) => row.cpu, text: percent, help: "Share of one core" },
      { title: "Event loop lag, p99", value: (row) => row.lag_p99, text: seconds },
      { title: "In flight", value: (row) => row.in_flight },
    ]);
    list.element.classList.add("llm-card");
    list.element.id = "llm-table-workers";
    const element = make("section", { "aria-label": "Client" }, make("h2", {}, "Client"), list.element);
    return {
      element,
      show({ workers: rows = [] }) {
        element.hidden = !rows.length;
        list.fill(rows);
      },
    };
  }

  // ---- downloads and objectives

  function downloads(address) {
    const list = make("ul", { className: "llm-downloads" });
    const element = make("section", { "aria-label": "Downloads" }, make("h2", {}, "Downloads"), list);
    let before = "";
    return {
      element,
      show({ downloads: all = [] }) {
        element.hidden = !all.length;
        if (JSON.stringify(all) === before) return;
        before = JSON.stringify(all);
        const link = ({ kind, label }) => make("a", { href: address(kind), download: "" }, label);
        list.replaceChildren(...all.map((each) => make("li", {}, link(each))));
      },
    };
  }

  return { banners, progress, figures, server, search, stages, workers, downloads };
})();
