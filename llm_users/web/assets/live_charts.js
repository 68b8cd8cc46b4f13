// The charts of the live page: eleven with a common time axis, two of throughput against latency. The module reads a
// history and the list of stages, and draws with window.LLMCharts.
"use strict";

window.LLMLiveCharts = (() => {
  const { make, write, some, seconds, plain, percent, isOpen, loadShort, loadWords } = window.LLMDom;
  const { xy, number } = window.LLMCharts;
  const share = (value) => percent(some(value) ? value / 100 : null);
  const milliseconds = (value) => (some(value) ? `${number(value)} ms` : "–");

  const P50 = { colour: "p50", dash: [] };
  const P95 = { colour: "p95", dash: [7, 3] };
  const P99 = { colour: "p99", dash: [2, 3] };

  // Each line: column of the history, name in the legend, style. A chart with ifAny is hidden without values: the
  // metrics of a server are known only if it has them and they are read.
  const OVER_TIME = [
    {
      id: "ttft", title: "Time to first token", y: "Seconds", text: seconds, metric: "ttft", log: true,
      lines: [
        { column: "ttft_p50", name: "p50", ...P50 },
        { column: "ttft_p95", name: "p95", ...P95 },
        { column: "ttft_p99", name: "p99", ...P99 },
      ],
    },
    {
      id: "gap", title: "Gap between chunks", y: "Milliseconds", text: milliseconds, scale: 1000, metric: "gap",
      log: true,
      lines: [
        { column: "gap_p50", name: "p50", ...P50 },
        { column: "gap_p95", name: "p95", ...P95 },
        { column: "gap_p99", name: "p99", ...P99 },
      ],
    },
    {
      id: "tpot", title: "Time per output token", y: "Milliseconds", text: milliseconds, scale: 1000, metric: "tpot",
      log: true,
      lines: [
        { column: "tpot_p50", name: "p50", ...P50 },
        { column: "tpot_p95", name: "p95", ...P95 },
        { column: "tpot_p99", name: "p99", ...P99 },
      ],
    },
    {
      id: "tokens", title: "Output tokens per second", y: "Tokens/s", text: plain,
      lines: [
        { column: "tokens_per_s", name: "tokens/s", colour: "ok", kind: "area", dash: [] },
        { column: "server_tokens_per_s", name: "by the server", colour: "soft", dash: [7, 3], ifAny: true },
      ],
    },
    {
      id: "requests", title: "Requests per second", y: "Requests/s", text: plain,
      lines: [
        { column: "requests_per_s", name: "requests/s", colour: "ok", kind: "area", dash: [] },
        { column: "rate_per_s", name: "target rate", colour: "soft", dash: [7, 3], ifAny: true },
      ],
    },
    {
      id: "flight", title: "Requests in flight", y: "Requests", text: plain,
      lines: [
        { column: "in_flight", name: "in flight", colour: "ok", kind: "area", dash: [] },
        { column: "users", name: "target users", colour: "soft", dash: [7, 3], ifAny: true },
      ],
    },
    {
      id: "server", title: "Server: requests", y: "Requests", text: plain, ifAny: true,
      lines: [
        { column: "server_running", name: "running", colour: "p50", dash: [] },
        { column: "server_waiting", name: "waiting", colour: "p95", dash: [7, 3], ifAny: true },
      ],
    },
    {
      id: "server-share", title: "Server: KV cache and GPU", y: "%", text: share, scale: 100, ifAny: true,
      lines: [
        { column: "server_kv_cache", name: "KV cache", colour: "p50", dash: [], ifAny: true },
        { column: "server_gpu", name: "GPU", colour: "p99", dash: [7, 3], ifAny: true },
      ],
    },
    {
      id: "errors", title: "Errors and throttled requests", y: "Per second", text: plain,
      lines: [
        { column: "errors_per_s", name: "errors/s", colour: "failed", dash: [] },
        { column: "throttled_per_s", name: "throttled/s", colour: "throttled", dash: [7, 3] },
      ],
    },
    {
      id: "lag", title: "Client: event loop lag, p99", y: "Milliseconds", text: milliseconds, scale: 1000,
      lines: [{ column: "lag_p99", name: "lag p99", colour: "p99", dash: [] }],
    },
    {
      id: "cpu", title: "Client: CPU of the workers", y: "% of a core", text: share, scale: 100,
      lines: [
        { column: "cpu_max", name: "maximum", colour: "p99", dash: [] },
        { column: "cpu_mean", name: "mean", colour: "p50", dash: [7, 3], ifAny: true },
      ],
    },
  ]; // prettier-ignore

  const CURVES = [
    { id: "curve-ttft", metric: "ttft", name: "Time to first token", unit: "s", scale: 1 },
    { id: "curve-tpot", metric: "tpot", name: "Time per output token", unit: "ms", scale: 1000 },
  ];

  function figure(id, title) {
    const now = make("span", { className: "llm-now" });
    const host = make("div", { id: `llm-${id}` });
    const caption = make("figcaption", {}, make("span", {}, title), now);
    return { now, host, element: make("figure", { className: "llm-card" }, caption, host) };
  }

  // ---- over time

  function overTime() {
    const grid = make("div", { className: "llm-charts" });
    const drawn = OVER_TIME.map((spec) => {
      const parts = figure(spec.id, spec.title);
      grid.append(parts.element);
      return { spec, ...parts, chart: null };
    });

    function draw(columns, shown, stages, objectives) {
      const from = shown.last_s ? first(columns.t, columns.t.at(-1) - shown.last_s) : 0;
      const t = columns.t.slice(from);
      const bands = bandsOf(t, (columns.stage || []).slice(from), stages);
      for (const each of drawn) {
        const options = optionsOf(each.spec, columns, from, t, shown, bands, objectives);
        each.element.hidden = Boolean(each.spec.ifAny) && !linesOf(each.spec, columns).some(hasValues(columns));
        if (each.element.hidden) continue;
        write(each.now, shown.over ? "" : nowOf(each.spec, columns));
        if (each.chart) each.chart.set({ ...options, keepZoom: shown.same });
        else each.chart = xy(each.host, { ...options, onZoom: (zoom) => zoomAll(each, zoom) });
      }
    }

    // The charts share one time axis: a zoom in one chart applies to all.
    function zoomAll(source, zoom) {
      for (const each of drawn) if (each !== source) each.chart?.zoomX(zoom && zoom.x);
    }

    return { element: grid, draw };
  }

  function first(t, from) {
    let [low, high] = [0, t.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (t[middle] < from) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  function optionsOf(spec, columns, from, t, shown, bands, objectives) {
    const scale = spec.scale || 1;
    const series = linesOf(spec, columns).map(({ column, ifAny, ...look }) => {
      const y = (columns[column] || []).slice(from).map((value) => (some(value) ? value * scale : null));
      while (y.length < t.length) y.push(null);
      const tip = (i) => [spec.text(y[i]), `after ${window.LLMCharts.span(Math.round(t[i]))}`];
      return { kind: "line", ...look, x: t, y, tip };
    });
    const log = Boolean(spec.log && shown.log);
    return {
      label: summary(spec, series, t),
      height: window.innerWidth > 2000 ? 320 : 210,
      x: { label: "Since the start", span: true, tight: true },
      y: { label: spec.y, zero: true, log, room: 0.12 },
      legend: series.length > 1 || Boolean(spec.ifAny),
      bands,
      marks: marksOf(spec, series, objectives, scale),
      series,
    };
  }

  // An objective is a line, unless it is so far away that it would flatten the other lines.
  function marksOf(spec, series, objectives, scale) {
    const most = series.reduce((high, { y }) => y.reduce((a, b) => Math.max(a, b ?? 0), high), 0);
    return objectives
      .filter(({ metric, limit }) => spec.metric && metric === spec.metric && limit * scale < 3 * most)
      .map(({ limit, text }) => ({ y: limit * scale, label: text, right: true }));
  }

  // A chart omits a line without values: the target is the users of a closed loop or the rate of an open loop, and a
  // single worker has no mean.
  const hasValues = (columns) => ({ column }) => (columns[column] || []).some(some);
  const linesOf = (spec, columns) => spec.lines.filter((line) => !line.ifAny || hasValues(columns)(line));

  // Ranges of the time axis by stage, named by their load.
  function bandsOf(t, stage, stages) {
    const name = new Map(stages.map((each) => [each.stage, loadShort(each)]));
    const bands = [];
    t.forEach((at, i) => {
      const last = bands.at(-1);
      if (last && last.stage === stage[i]) last.to = at;
      else {
        if (last) last.to = at;
        bands.push({ stage: stage[i], from: at, to: at, label: name.get(stage[i]) ?? "" });
      }
    });
    return bands.filter((band) => some(band.stage));
  }

  function nowOf(spec, columns) {
    const values = linesOf(spec, columns).map(({ column }) => columns[column]?.at(-1));
    if (!values.some(some)) return "";
    return values.map((value) => spec.text(some(value) ? value * (spec.scale || 1) : null)).join(" / ");
  }

  function summary(spec, series, t) {
    if (!t.length) return `${spec.title}: nothing yet.`;
    const words = series.map(({ name, y }) => {
      const known = y.filter(some);
      if (!known.length) return `${name} nothing yet`;
      const [low, high] = [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))];
      return `${name} now ${spec.text(y.at(-1))}, from ${spec.text(low)} to ${spec.text(high)}`;
    });
    return `${spec.title}, over ${window.LLMCharts.span(Math.round(t.at(-1) - t[0]))}: ${words.join("; ")}.`;
  }

  // ---- throughput against latency

  const loadOf = ({ rate_per_s: rate, concurrency }) => rate ?? concurrency ?? 0;
  const pairs = new Map(); // of lengths, in the order in which they ran
  const lengthsOf = ({ lengths }) => {
    if (!pairs.has(lengths)) pairs.set(lengths, pairs.size);
    return pairs.get(lengths);
  };

  function curves() {
    const grid = make("div", { className: "llm-curves" });
    const drawn = CURVES.map((spec) => {
      const parts = figure(spec.id, `Output tokens/s against ${spec.name.toLowerCase()}`);
      grid.append(parts.element);
      return { spec, ...parts, chart: null };
    });

    function draw(stages, log, objectives) {
      // By load, because a load search tries loads in another order, and the line must not go back and forth.
      const points = stages
        .filter((each) => some(each.output_throughput_token_per_s))
        .sort((a, b) => lengthsOf(a) - lengthsOf(b) || loadOf(a) - loadOf(b) || a.stage - b.stage);
      // A sweep of lengths has one line per pair of lengths: an empty point ends a line.
      const separated = points.flatMap((point, i) =>
        i && point.lengths !== points[i - 1].lengths ? [{ separates: true }, point] : [point],
      );
      for (const each of drawn) {
        const options = curveOf(each.spec, separated, log, objectives);
        if (each.chart) each.chart.set({ ...options, keepZoom: true });
        else each.chart = xy(each.host, options);
      }
    }

    return { element: grid, draw };
  }

  // Latency as a user sees it: in an open loop from the intended start, if the latency has such figures.
  const corrects = (point, metric) => isOpen(point) && Boolean(point[`corrected_${metric}`]);
  const seen = (point, metric) => point[corrects(point, metric) ? `corrected_${metric}` : metric];
  const nameOf = (name, metric, points) =>
    points.some((point) => corrects(point, metric)) ? `${name} from the intended start` : name;

  function curveOf({ metric, name, unit, scale }, points, log, objectives) {
    const latency = (point, key) => (some(seen(point, metric)?.[key]) ? seen(point, metric)[key] * scale : null);
    const named = nameOf(name, metric, points);
    const series = [
      { key: "median", name: "median", colour: "p50", shape: "circle", dash: [], percentile: 50 },
      { key: "p95", name: "p95", colour: "p95", shape: "square", dash: [7, 3], percentile: 95 },
    ].map(({ key, ...look }) => ({
      ...look,
      kind: "curve",
      x: points.map((point) => latency(point, key)),
      y: points.map((point) => point.output_throughput_token_per_s ?? null),
      labels: points.map((point) => (point.separates ? "" : loadShort(point))),
      hollow: points.map((point) => !point.finished),
      tip: (i) => [
        `${loadWords(points[i])}${points[i].finished ? "" : ", still running"}`,
        `${named}, ${look.name}: ${seconds(seen(points[i], metric)?.[key])}`,
        `${plain(points[i].output_throughput_token_per_s)} output tokens/s`,
      ],
    }));
    const marks = objectives
      .filter((each) => each.metric === (named === name ? metric : `corrected_${metric}`))
      .map(({ limit, text }) => ({ x: limit * scale, label: text }));
    return {
      label: spoken(named, metric, points),
      height: window.innerWidth > 2000 ? 420 : 300,
      x: { label: `${named} (${unit})`, log, zero: true },
      y: { label: "Output tokens/s", log, zero: true },
      series,
      marks,
    };
  }

  function spoken(name, metric, points) {
    if (!points.length) return `Output tokens per second against ${name.toLowerCase()}: no stage has figures yet.`;
    const each = points.filter((point) => !point.separates).map(
      (point) =>
        `${loadWords(point)}${point.finished ? "" : " (running)"}: ` +
        `${plain(point.output_throughput_token_per_s)} tokens/s at median ${seconds(seen(point, metric)?.median)}, ` +
        `p95 ${seconds(seen(point, metric)?.p95)}`,
    );
    return `Output tokens per second against ${name.toLowerCase()}. ${each.join("; ")}.`;
  }

  return { overTime, curves };
})();
