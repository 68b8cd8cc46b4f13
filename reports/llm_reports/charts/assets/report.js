// The script of the report page: figures, controls and theme. The tables are static HTML and do not need a script.
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("llm-data").textContent);
  const { number, span, xy } = window.LLMCharts;
  const RUN_COLOURS = 8; // the number of run colours in charts.css
  const MOST_POINTS_IN_WORDS = 12; // as in html/chart_words.py
  const PAPER_PX = 690; // the width of A4 between its margins
  const ranks = data.labels.length;
  const find = (id) => document.getElementById(id);
  const when = (ids, act) => ids.forEach((id) => find(id)?.addEventListener("input", act));
  const seconds = (value) => (value === null ? "-" : value < 0.1 ? `${number(value * 1000)} ms` : `${number(value)} s`);

  const fixed = (value, decimals) =>
    value === null
      ? "-"
      : value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });

  // Colour, shape and dash distinguish the curves of several runs; the position in the colour ramp distinguishes the
  // stages of one run.
  const looks = {};
  data.curves.forEach((curve, k) => curve.points.forEach((point, i) => (looks[point.label] = [k, i])));
  const look = (k) =>
    data.curves.length === 1
      ? { colour: "accent" }
      : { colour: `run-${k % RUN_COLOURS}`, place: k };
  const stage = (k) => {
    const [curve, place] = looks[data.labels[k]] ?? [0, k];
    if (data.curves.length === 1) return { rank: k, ranks };
    const last = place === data.curves[curve].points.length - 1;
    return { colour: `run-${curve % RUN_COLOURS}`, place, hidden: ranks > MOST_POINTS_IN_WORDS && !last };
  };

  // A figure without an element does not have data (the page states why); the other figures must still be drawn.
  function figure(id, options, ids = []) {
    const host = find(id);
    if (!host) return null;
    const chart = xy(host, { label: host.dataset.label, ...options() });
    when(ids, () => chart.set(options()));
    return chart;
  }

  // ---- the curve

  function curve() {
    const [metric, quantile] = [find("curve-latency").value, find("curve-figure").value];
    const budget = parseFloat(find("curve-budget").value);
    const latency = (point) => point.latency_s[metric][quantile];
    const marks = data.limits
      .filter((limit) => limit.metric === metric && limit.figure === quantile)
      .map((limit) => ({ x: limit.limit_s, label: limit.text, colour: "warn" }));
    if (budget > 0) marks.push({ x: budget, label: `budget ${seconds(budget)}` });
    const series = data.curves.map((curve, k) => ({
      name: curve.name,
      kind: "curve",
      ...look(k),
      x: curve.points.map(latency),
      y: curve.points.map((point) => point.throughput_token_per_s),
      labels: curve.points.map((point) => point.name),
      hollow: curve.points.map((point) => point.hollow),
      tip: (i) => tipOf(curve.points[i], metric, quantile),
    }));
    find("curve-best").toggleAttribute("data-hint", !(budget > 0));
    find("curve-best").textContent = best(series, budget, metric, quantile);
    const name = `${data.latency_names[metric]}, ${quantile === "p50" ? "median" : quantile} (s)`;
    const words = inWords(metric, quantile);
    if (find("curve-words")) find("curve-words").textContent = words;
    return {
      label: words,
      x: { label: name, log: find("curve-log").checked, zero: true },
      y: { label: "System, output tokens/s", log: find("curve-log").checked, zero: true },
      series,
      marks,
      legend: series.length > 1,
    };
  }

  // Returns the caption for the current selection, with the same text as html/chart_words.py.
  function inWords(metric, quantile) {
    const brief = data.curves.reduce((sum, curve) => sum + curve.points.length, 0) > MOST_POINTS_IN_WORDS;
    const sentences = data.curves.map((curve) => {
      let points = curve.points.filter((point) => point.throughput_token_per_s !== null);
      if (!points.length) return `${curve.name}: the throughput is unknown.`;
      const top = (a, b) => (b.throughput_token_per_s > a.throughput_token_per_s ? b : a);
      if (brief) points = [points.reduce(top)];
      const describe = (point) =>
        `${point.words}: ${point.throughput_token_per_s.toLocaleString("en", { maximumFractionDigits: 0 })} tokens/s at ${fixed(point.latency_s[metric][quantile], metric === "tpot" ? 4 : 2)} s`;
      return `${curve.name}${brief ? ", highest throughput" : ""}: ${points.map(describe).join("; ")}.`;
    });
    const against = `the ${figureName(quantile)} of the ${lowerFirst(data.latency_names[metric])}`;
    return `Output tokens/s of the whole system against ${against}. ${sentences.join(" ")}`;
  }

  const lowerFirst = (text) => `${text[0].toLowerCase()}${text.slice(1)}`;

  function figureName(quantile) {
    const figure = { p50: "median", p95: "95th percentile", p99: "99th percentile" }[quantile] ?? quantile;
    return /^p[\d.]+$/.test(figure) ? `${figure.slice(1)}th percentile` : figure;
  }

  // The latency of the curve against the load, with the limits of the objectives.
  function byLoad() {
    const [metric, quantile] = [find("curve-latency").value, find("curve-figure").value];
    const limits = data.limits.filter((limit) => limit.metric === metric && limit.figure === quantile);
    const name = data.latency_names[metric];
    // The same text as html/chart_words.py.
    const lines = limits.length ? ` The line is the objective ${limits.map((limit) => limit.text).join(", ")}.` : "";
    const words = `The ${figureName(quantile)} of the ${lowerFirst(name)}, selected above, against ${lowerFirst(data.load_axis)}.${lines}`;
    if (find("load-words")) find("load-words").textContent = words;
    return {
      label: words,
      x: { label: data.load_axis, zero: true },
      y: { label: `${name}, ${quantile === "p50" ? "median" : quantile} (s)`, log: find("curve-log").checked, zero: true },
      height: 260,
      legend: data.curves.length > 1,
      marks: limits.map((limit) => ({ y: limit.limit_s, label: limit.text, colour: "warn" })),
      series: data.curves.map((curve, k) => ({
        name: curve.name,
        kind: "curve",
        ...look(k),
        x: curve.points.map((point) => point.load),
        y: curve.points.map((point) => point.latency_s[metric][quantile]),
        labels: curve.points.map((point) => number(point.latency_s[metric][quantile])),
        sparse: true,
        hollow: curve.points.map((point) => point.hollow),
        tip: (i) => tipOf(curve.points[i], metric, quantile),
      })),
    };
  }

  function tipOf(point, metric, quantile) {
    return [
      point.words,
      `${number(point.throughput_token_per_s)} tokens/s of the system${point.estimated ? " (from the rows)" : ""}`,
      `${number(point.per_user_token_per_s)} tokens/s per user`,
      `${data.latency_names[metric]} ${quantile}: ${seconds(point.latency_s[metric][quantile])}`,
    ];
  }

  function best(series, budget, metric, quantile) {
    if (!(budget > 0)) return "Enter a latency budget to see the best point within it.";
    return series
      .map((line, k) => {
        const within = line.x
          .map((x, i) => i)
          .filter((i) => {
            // null: the figure falls on a failed request and counts as infinite
            const judged = data.curves[k].points[i].judged_s[metric][quantile];
            return !data.curves[k].points[i].unfit && judged !== null && judged <= budget && line.y[i] !== null;
          });
        const of = series.length > 1 ? `${line.name}: ` : "";
        if (!within.length) return `${of}No point is within ${seconds(budget)}.`;
        const top = within.reduce((a, b) => (line.y[b] > line.y[a] ? b : a));
        const point = data.curves[k].points[top];
        const total =
          point.total_token_per_s === null ? "" : ` (${number(point.total_token_per_s)} tokens/s with input)`;
        return `${of}Best within ${seconds(budget)}: ${point.words}, ${number(line.y[top])} output tokens/s${total}; ${data.latency_names[metric].toLowerCase()} ${quantile} ${seconds(line.x[top])}.`;
      })
      .join(" ");
  }

  function speeds(key, label) {
    return () => ({
      x: { label: data.load_axis, zero: true },
      y: { label, zero: true },
      legend: data.curves.length > 1,
      height: 260,
      series: data.curves.map((curve, k) => ({
        name: curve.name,
        kind: "curve",
        ...look(k),
        x: curve.points.map((point) => point.load),
        y: curve.points.map((point) => point[key]),
        labels: curve.points.map((point) => number(point[key])),
        sparse: true,
      })),
    });
  }

  // ---- distributions

  function distribution() {
    const chosen = data.distributions.find((distribution) => distribution.key === find("distribution-latency").value);
    const log = find("distribution-log").checked;
    const histogram = find("distribution-view").value === "histogram";
    const bins = log ? chosen.log : chosen.linear;
    const shared = (k) => ({ name: data.labels[k], ...stage(k) });
    const cumulative = (ecdf, k) => ({
      ...shared(k),
      kind: "step",
      x: ecdf.x,
      y: ecdf.y,
      tip: (i) => [`${number(ecdf.y[i] * 100)} % within ${seconds(ecdf.x[i])}`, `of ${ecdf.n} requests`],
    });
    const bars = (shares, k) => ({
      ...shared(k),
      kind: "area",
      // A step extends from its border to the next border; the last border ends the last bin.
      x: shares.length ? bins.borders : [],
      y: shares.length ? [...shares, 0] : [],
      tip: (i) => [
        i < shares.length
          ? `${number(shares[i] * 100)} % from ${seconds(bins.borders[i])} to ${seconds(bins.borders[i + 1])}`
          : "the longest",
      ],
    });
    return {
      x: { label: `${chosen.name} (${chosen.unit})`, log },
      y: { label: histogram ? "Share of the requests" : "Share within this time", zero: true, most: 1 },
      series: histogram ? bins.shares.map(bars) : chosen.cumulative.map(cumulative),
    };
  }

  // ---- requests over time

  function timeline() {
    const run = data.timelines[find("timeline-run") ? Number(find("timeline-run").value) : 0];
    const metric = find("timeline-latency").value;
    const shapes = {
      ok: "circle", unmeasured: "circle", throttled: "triangle", failed: "cross", aborted: "diamond",
      cancelled: "diamond",
    }; // prettier-ignore
    return {
      x: { label: "Start of the request, since the first one", span: true },
      y: { label: `${data.latency_names[metric]} (s)`, log: find("timeline-log").checked, zero: true },
      bands: run.stages.map(([from, to, label]) => ({ from, to, label })),
      series: run.outcomes.map((outcome) => ({
        name: `${outcome.name} (${outcome.count.toLocaleString("en")})`,
        kind: "points",
        colour: outcome.key,
        shape: shapes[outcome.key],
        size: outcome.key === "ok" || outcome.key === "unmeasured" ? 2.5 : 4,
        floor: true,
        x: outcome.started_s,
        y: outcome[metric],
        tip: (i) => [
          `after ${span(outcome.started_s[i])}, ${outcome.load[i] ?? "?"} ${run.load_unit}`,
          outcome[metric][i] === null ? "not available" : seconds(outcome[metric][i]),
        ],
      })),
    };
  }

  // ---- points with a line through them

  function withLines(scatters, axes, line, residual) {
    const points = scatters.map((scatter, k) => ({
      name: data.labels[k],
      ...stage(k),
      kind: "points",
      x: scatter.x,
      y: residual ? scatter.x.map((x, i) => scatter.y[i] - line(k, x)) : scatter.y,
    }));
    const lines = scatters.flatMap((scatter, k) => {
      const ends = [scatter.x[0], scatter.x.at(-1)];
      const [low, high] = [line(k, ends[0]), line(k, ends[1])];
      if (residual || low === null || !Number.isFinite(low)) return [];
      return [{ name: data.labels[k], ...stage(k), kind: "line", quiet: true, x: ends, y: [low, high] }];
    });
    return { ...axes, series: [...points, ...lines] };
  }

  function input() {
    const log = find("input-log").checked;
    const line = (k, x) => data.inputs[k].line.constant + data.inputs[k].line.slope * x;
    const fitted = (k, x) => (data.inputs[k].line.constant === null ? null : line(k, x));
    return withLines(
      data.inputs,
      { x: { label: "Input tokens" }, y: { label: "Time to first token (s)", log } },
      fitted,
      false,
    );
  }

  function model() {
    const residual = find("model-view").value === "residuals";
    const fitted = (k, x) =>
      data.models[k].ttft_s === null ? null : data.models[k].ttft_s + data.models[k].tpot_s * (x - 1);
    const y = { label: residual ? "Measured minus modelled latency (s)" : "End-to-end latency (s)", zero: !residual };
    return {
      ...withLines(data.outputs, { x: { label: "Output tokens" }, y }, fitted, residual),
      marks: residual ? [{ y: 0, label: "model", colour: "soft" }] : [],
    };
  }

  // ---- theme and paper

  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  function theme(name) {
    if (name) root.dataset.theme = name;
    else delete root.dataset.theme;
    find("theme").textContent = dark() ? "Light" : "Dark";
    window.LLMCharts.refresh();
  }

  find("theme").addEventListener("click", () => theme(dark() ? "light" : "dark"));
  find("print").addEventListener("click", () => window.print());
  system.addEventListener("change", () => theme(root.dataset.theme));
  let before;
  const notes = () => document.querySelectorAll("details.on-paper");
  window.addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    notes().forEach((note) => {
      note.dataset.was = String(note.open);
      note.open = true;
    });
    root.dataset.theme = "light";
    window.LLMCharts.refresh(PAPER_PX);
  });
  window.addEventListener("afterprint", () => {
    notes().forEach((note) => (note.open = note.dataset.was === "true"));
    theme(before);
  });

  figure("curve-chart", curve, ["curve-latency", "curve-figure", "curve-budget", "curve-log"]);
  figure("load-chart", byLoad, ["curve-latency", "curve-figure", "curve-log"]);
  figure("system-chart", speeds("throughput_token_per_s", "System, output tokens/s"));
  figure("user-chart", speeds("per_user_token_per_s", "One user, tokens/s"));
  figure("distribution-chart", distribution, ["distribution-latency", "distribution-view", "distribution-log"]);
  figure("timeline-chart", timeline, ["timeline-run", "timeline-latency", "timeline-log"]);
  figure("model-chart", model, ["model-view"]);
  figure("input-chart", input, ["input-log"]);
  theme();
  find("unscripted").remove();
  root.dataset.drawn = "";
})();
