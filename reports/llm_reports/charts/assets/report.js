// The report's page: its figures, their controls, its theme. Tables are in the page already and need no script.
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("llm-data").textContent);
  const { number, span, xy } = window.LLMCharts;
  const RUN_COLOURS = 8; // those of charts.css
  const MOST_POINTS_IN_WORDS = 12; // as in html/chart_sections.py
  const PAPER_PX = 690; // the width of A4 between its margins
  const ranks = data.labels.length;
  const find = (id) => document.getElementById(id);
  const when = (ids, act) => ids.forEach((id) => find(id)?.addEventListener("input", act));
  const seconds = (value) => (value === null ? "-" : value < 0.1 ? `${number(value * 1000)} ms` : `${number(value)} s`);

  const fixed = (value, decimals) =>
    value === null
      ? "-"
      : value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });

  // Curves of several runs are told apart by colour, shape and dash; stages of one run by their place in its colours.
  const looks = {};
  data.curves.forEach((each, k) => each.points.forEach((point, i) => (looks[point.label] = [k, i])));
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

  // A figure whose element is missing has nothing to show (the page says why); others must still be drawn.
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
      .filter((each) => each.metric === metric && each.figure === quantile)
      .map((each) => ({ x: each.limit_s, label: each.text, colour: "warn" }));
    if (budget > 0) marks.push({ x: budget, label: `budget ${seconds(budget)}` });
    const series = data.curves.map((each, k) => ({
      name: each.name,
      kind: "curve",
      ...look(k),
      x: each.points.map(latency),
      y: each.points.map((point) => point.throughput_token_per_s),
      labels: each.points.map((point) => point.name),
      hollow: each.points.map((point) => point.hollow),
      tip: (i) => tipOf(each.points[i], metric, quantile),
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

  // The caption, in the words of html/chart_sections.py, for what is chosen now.
  function inWords(metric, quantile) {
    const brief = data.curves.reduce((sum, each) => sum + each.points.length, 0) > MOST_POINTS_IN_WORDS;
    const said = data.curves.map((each) => {
      let points = each.points.filter((point) => point.throughput_token_per_s !== null);
      if (!points.length) return `${each.name}: no throughput is known.`;
      const top = (a, b) => (b.throughput_token_per_s > a.throughput_token_per_s ? b : a);
      if (brief) points = [points.reduce(top)];
      const one = (point) =>
        `${point.words}: ${point.throughput_token_per_s.toLocaleString("en", { maximumFractionDigits: 0 })} tokens/s at ${fixed(point.latency_s[metric][quantile], metric === "tpot" ? 4 : 2)} s`;
      return `${each.name}${brief ? ", most" : ""}: ${points.map(one).join("; ")}.`;
    });
    const latency = data.latency_names[metric];
    const figure = { p50: "median", p95: "95th percentile", p99: "99th percentile" }[quantile] ?? quantile;
    const named = /^p[\d.]+$/.test(figure) ? `${figure.slice(1)}th percentile` : figure;
    return `Output tokens/s of the whole system against the ${named} of the ${latency[0].toLowerCase()}${latency.slice(1)}. ${said.join(" ")}`;
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
      .map((each, k) => {
        const within = each.x
          .map((x, i) => i)
          .filter((i) => {
            // null: so many requests failed that this figure counts as infinite
            const judged = data.curves[k].points[i].judged_s[metric][quantile];
            return !data.curves[k].points[i].unfit && judged !== null && judged <= budget && each.y[i] !== null;
          });
        const of = series.length > 1 ? `${each.name}: ` : "";
        if (!within.length) return `${of}No point is within ${seconds(budget)}.`;
        const top = within.reduce((a, b) => (each.y[b] > each.y[a] ? b : a));
        const point = data.curves[k].points[top];
        const total =
          point.total_token_per_s === null ? "" : ` (${number(point.total_token_per_s)} tokens/s with input)`;
        return `${of}Best within ${seconds(budget)}: ${point.words}, ${number(each.y[top])} output tokens/s${total}; ${data.latency_names[metric].toLowerCase()} ${quantile} ${seconds(each.x[top])}.`;
      })
      .join(" ");
  }

  function speeds(key, label) {
    return () => ({
      x: { label: data.load_axis, zero: true },
      y: { label, zero: true },
      legend: data.curves.length > 1,
      height: 260,
      series: data.curves.map((each, k) => ({
        name: each.name,
        kind: "curve",
        ...look(k),
        x: each.points.map((point) => point.load),
        y: each.points.map((point) => point[key]),
        labels: each.points.map((point) => number(point[key])),
      })),
    });
  }

  // ---- distributions

  function distribution() {
    const each = data.distributions.find((one) => one.key === find("distribution-latency").value);
    const log = find("distribution-log").checked;
    const histogram = find("distribution-view").value === "histogram";
    const bins = log ? each.log : each.linear;
    const shared = (k) => ({ name: data.labels[k], ...stage(k) });
    const cumulative = (one, k) => ({
      ...shared(k),
      kind: "step",
      x: one.x,
      y: one.y,
      tip: (i) => [`${number(one.y[i] * 100)} % within ${seconds(one.x[i])}`, `of ${one.n} requests`],
    });
    const bars = (shares, k) => ({
      ...shared(k),
      kind: "area",
      // A step holds from its border to the next one; the last border ends the last bin.
      x: shares.length ? bins.borders : [],
      y: shares.length ? [...shares, 0] : [],
      tip: (i) => [
        i < shares.length
          ? `${number(shares[i] * 100)} % from ${seconds(bins.borders[i])} to ${seconds(bins.borders[i + 1])}`
          : "the longest",
      ],
    });
    return {
      x: { label: `${each.name} (${each.unit})`, log },
      y: { label: histogram ? "Share of the requests" : "Share within this time", zero: true, most: 1 },
      series: histogram ? bins.shares.map(bars) : each.cumulative.map(cumulative),
    };
  }

  // ---- requests over time

  function timeline() {
    const each = data.timelines[find("timeline-run") ? Number(find("timeline-run").value) : 0];
    const metric = find("timeline-latency").value;
    const shapes = {
      ok: "circle", unmeasured: "circle", throttled: "triangle", failed: "cross", aborted: "diamond",
      cancelled: "diamond",
    }; // prettier-ignore
    return {
      x: { label: "Start of the request, since the first one", span: true },
      y: { label: `${data.latency_names[metric]} (s)`, log: find("timeline-log").checked, zero: true },
      bands: each.stages.map(([from, to, label]) => ({ from, to, label })),
      series: each.outcomes.map((outcome) => ({
        name: `${outcome.name} (${outcome.count.toLocaleString("en")})`,
        kind: "points",
        colour: outcome.key,
        shape: shapes[outcome.key],
        size: outcome.key === "ok" || outcome.key === "unmeasured" ? 2.5 : 4,
        floor: true,
        x: outcome.started_s,
        y: outcome[metric],
        tip: (i) => [
          `after ${span(outcome.started_s[i])}, ${outcome.load[i] ?? "?"} ${each.load_unit}`,
          outcome[metric][i] === null ? "no such time" : seconds(outcome[metric][i]),
        ],
      })),
    };
  }

  // ---- points with a line through them

  function withLines(scatters, axes, line, residual) {
    const points = scatters.map((each, k) => ({
      name: data.labels[k],
      ...stage(k),
      kind: "points",
      x: each.x,
      y: residual ? each.x.map((x, i) => each.y[i] - line(k, x)) : each.y,
    }));
    const lines = scatters.flatMap((each, k) => {
      const ends = [each.x[0], each.x.at(-1)];
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
      marks: residual ? [{ y: 0, label: "as the model says", colour: "soft" }] : [],
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
    notes().forEach((each) => {
      each.dataset.was = String(each.open);
      each.open = true;
    });
    root.dataset.theme = "light";
    window.LLMCharts.refresh(PAPER_PX);
  });
  window.addEventListener("afterprint", () => {
    notes().forEach((each) => (each.open = each.dataset.was === "true"));
    theme(before);
  });

  figure("curve-chart", curve, ["curve-latency", "curve-figure", "curve-budget", "curve-log"]);
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
