// The chart of the report and the live pages: x against y, drawn on a canvas over uPlot's axes.
//
//   const chart = LLMCharts.xy(element, {
//     label: "description for screen readers",
//     x: { label: "Latency (s)", log: false }, y: { label: "Tokens/s" },   // time: true = unix s; span: true = 1:23
//     series: [{ name: "stage 1", x: [...], y: [...], kind: "line" }],     // line, step, area, points, curve
//     marks: [{ x: 0.5, label: "budget" }], bands: [{ from: 0, to: 9, label: "1" }],
//   });
//   chart.set({ series: [...] });       // new data: a redraw, not a rebuild, so a live page can call it every second;
//                                       // keepZoom: true keeps the zoom, the selected point and the focus
//   chart.zoomX([from, to]);            // zooms like a drag, without a call of onZoom(zoom); null resets the zoom
//   chart.destroy();
//
// An axis with tight: true ends at the end of the data; room: 0.1 adds a tenth of the range above the data.
//
// uPlot provides ticks, scales, device pixels and the cursor; this file paints lines and points, because x may decrease
// along a latency/throughput curve, which uPlot's own series do not support. Text is only set as textContent.
"use strict";

window.LLMCharts = (() => {
  const M = window.LLMMarks;
  const all = new Set();
  const NEAR_PX = 36; // a pointer within this distance selects a point
  const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';

  function element(tag, className, parent) {
    const child = document.createElement(tag);
    child.className = className;
    parent.append(child);
    return child;
  }

  function xy(host, given) {
    const spec = { marks: [], bands: [], legend: true, ...given };
    const hidden = new Set(spec.series.filter((series) => series.hidden).map((series) => series.name));
    host.replaceChildren();
    host.classList.add("llm-chart");
    const box = element("div", "llm-chart-plot", host);
    const tip = element("div", "llm-chart-tip", box);
    const ring = element("div", "llm-chart-ring", box);
    const legend = element("div", "llm-chart-legend", host);
    const voice = element("div", "llm-sr", host);
    voice.setAttribute("aria-live", "polite");
    box.tabIndex = 0;
    box.setAttribute("role", "img");
    tip.hidden = ring.hidden = true;

    let plot = null;
    let zoom = null;
    let extent = null;
    let colour = M.palette(host);
    let spots = []; // positions of the painted points per series, for the pointer and the keys
    let at = null; // [series, point] that the keys have selected
    let shown = null; // [series, point] that the tip shows
    let legendKey = null; // content of the current legend

    const visible = () => spec.series.map((series, k) => [series, k]).filter(([series]) => !hidden.has(series.name));
    const colourOf = (series, k) =>
      series.colour ? colour(series.colour) : M.ramp(colour, series.rank ?? k, series.ranks ?? spec.series.length);

    // ---- axes

    function range(name) {
      const axis = spec[name];
      let [low, high] = [Infinity, -Infinity];
      const widen = (value) => {
        if (value === null || value === undefined || (axis.log && value <= 0)) return;
        if (value < low) low = value;
        if (value > high) high = value;
      };
      for (const [series] of visible()) series[name].forEach(widen);
      for (const mark of spec.marks) widen(mark[name]);
      if (low > high) return axis.log ? [0.1, 10] : [0, 1];
      if (axis.tight) return [low, high > low ? high : low + 1];
      if (axis.log) {
        const pad = Math.max(1.05, (high / low) ** 0.05);
        return [low / pad, high * pad * (high / low) ** (axis.room || 0)];
      }
      const zero = axis.zero && low >= 0;
      const pad = (high - (zero ? 0 : low)) * 0.06 || Math.abs(high) * 0.1 || 1;
      const bottom = zero ? 0 : low >= 0 && low - pad < 0 ? 0 : low - pad;
      const top = high + pad + (axis.room || 0) * (high - bottom);
      return [bottom, axis.most ? Math.min(axis.most, top) : top];
    }

    function axis(name) {
      const { label, log, span, time } = spec[name];
      const shared = {
        label,
        labelFont: FONT,
        font: FONT,
        labelSize: 22,
        stroke: () => colour("soft"),
        grid: { stroke: () => colour("grid"), width: 1 },
        ticks: { stroke: () => colour("rule"), width: 1, size: 5 },
      };
      shared.size = name === "y" ? 52 : 34;
      if (span) shared.incrs = M.SPAN_STEPS;
      if (!time) shared.values = (_, splits) => splits.map(span ? M.span : M.tick);
      if (log) {
        shared.splits = (u) => M.logTicks(u.scales[name].min, u.scales[name].max);
        shared.filter = (_, splits) => splits;
      }
      return shared;
    }

    function build() {
      plot?.destroy();
      plot = null;
      // uPlot draws asynchronously: a plot that was replaced in the meantime must not use the range of the new plot,
      // for example 0 on a logarithmic axis.
      const held = {};
      const scale = (name) => ({
        time: Boolean(spec[name].time),
        distr: spec[name].log ? 3 : 1,
        range: (u) =>
          plot === null || u === plot ? (held[name] = zoom ? zoom[name] : extent[name]) : held[name] || [1, 2],
      });
      plot = new uPlot(
        {
          ...size(),
          scales: { x: scale("x"), y: scale("y") },
          axes: [axis("x"), axis("y")],
          series: [{}, { points: { show: false }, paths: () => null }],
          legend: { show: false },
          cursor: {
            x: false,
            y: false,
            points: { show: false },
            drag: { x: true, y: true, uni: 24, setScale: false },
            bind: { dblclick: () => () => zoomTo(null) },
          },
          hooks: { drawAxes: [paintBands], draw: [paint], setCursor: [hover], setSelect: [select] },
        },
        corners(),
        box,
      );
    }

    // uPlot gets only the corners of the data, so that it creates scales.
    const corners = () => [extent.x.slice(), extent.y.slice()];

    function size() {
      const width = Math.max(240, Math.floor(spec.width || box.clientWidth || host.clientWidth || 600));
      return { width, height: spec.height || Math.round(Math.min(400, Math.max(260, width * 0.5))) };
    }

    function zoomTo(next) {
      zoom = next;
      redraw();
      spec.onZoom?.(next);
    }

    function select(u) {
      const { left, top, width, height } = u.select;
      if (width < 6 && height < 6) return;
      const x = [u.posToVal(left, "x"), u.posToVal(left + width, "x")];
      const y = [u.posToVal(top + height, "y"), u.posToVal(top, "y")];
      u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
      zoomTo({ x, y });
    }

    function redraw() {
      extent = { x: range("x"), y: range("y") };
      if (zoom === null) host.removeAttribute("data-zoomed");
      else host.setAttribute("data-zoomed", "");
      plot.setData(corners());
    }

    // ---- painting

    const scene = (u) => ({ u, ctx: u.ctx, ratio: u.ctx.canvas.width / u.width, bbox: u.bbox, spec, colour, colourOf });

    function paintBands(u) {
      window.LLMPaint.bands(scene(u));
    }

    function paint(u) {
      spots = window.LLMPaint.series(scene(u), visible());
      if (shown) show(shown); // move the tip to the new position of the point
    }

    // ---- pointing

    function hover(u) {
      const { left, top } = u.cursor;
      if (left === undefined || left < 0) return show(null);
      let best = null;
      let nearest = NEAR_PX ** 2;
      for (const [s, { px, py, ratio, bbox }] of spots.entries()) {
        const [x, y] = [left * ratio + bbox.left, top * ratio + bbox.top];
        for (let i = 0; i < px.length; i++) {
          const far = ((px[i] - x) ** 2 + (py[i] - y) ** 2) / ratio ** 2;
          if (far < nearest) [nearest, best] = [far, [s, i]];
        }
      }
      return show(best);
    }

    function describe(series, i) {
      const lines = series.tip
        ? series.tip(i)
        : [spec.x, spec.y].map((axis, k) => `${axis.label}: ${M.number((k ? series.y : series.x)[i])}`);
      return [series.name, ...lines].join("\n");
    }

    function show(target) {
      shown = target !== null && target[1] < (spots[target[0]]?.px.length ?? 0) ? target : null;
      tip.hidden = ring.hidden = shown === null;
      if (tip.hidden) return;
      const { series, px, py, ratio } = spots[target[0]];
      const [x, y] = [px[target[1]] / ratio, py[target[1]] / ratio];
      tip.textContent = describe(series, target[1]);
      ring.style.left = `${x}px`;
      ring.style.top = `${y}px`;
      const leftward = x > box.clientWidth / 2;
      tip.style.left = `${Math.max(0, leftward ? x - tip.offsetWidth - 14 : x + 14)}px`;
      tip.style.top = `${Math.max(0, y - tip.offsetHeight - 6)}px`;
    }

    // Left and right move along a series, up and down change the series, Escape clears the selection and the zoom.
    box.addEventListener("keydown", (event) => {
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (event.key === "Escape") {
        at = null;
        show(null);
        if (zoom) zoomTo(null);
      }
      if (!step || !spots.length) return;
      event.preventDefault();
      const s = at ? (at[0] + step[0] + spots.length) % spots.length : 0;
      const last = spots[s].px.length - 1;
      at = [s, Math.max(0, Math.min(last, at ? at[1] + step[1] : 0))];
      show(at);
      voice.textContent = describe(spots[s].series, at[1]);
    });
    box.addEventListener("blur", () => show(null));

    // ---- legend

    function fillLegend() {
      const entries = JSON.stringify(spec.series.map((series, k) => [series.name, series.kind, series.quiet, colourOf(series, k)]));
      const next = `${entries}${spec.legend}${[...hidden]}`;
      if (next === legendKey) return; // do not replace buttons that may have the focus
      legendKey = next;
      const focused = [...legend.children].indexOf(document.activeElement);
      legend.replaceChildren();
      legend.hidden = !spec.legend;
      const named = spec.series.map((series, k) => [series, k]).filter(([series]) => !series.quiet);
      if (named.length > 3) {
        const every = () =>
          toggle(
            spec.series.map((series) => series.name),
            hidden.size > 0,
          );
        button(() => (hidden.size ? "show all" : "hide all"), null, every);
      }
      for (const [series, k] of named) {
        const toggleButton = button(
          () => series.name,
          M.swatch(series, colourOf(series, k), k),
          () => {
            toggle(
              spec.series.filter((other) => other.name === series.name).map((other) => other.name),
              hidden.has(series.name),
            );
          },
        );
        toggleButton.setAttribute("aria-pressed", String(!hidden.has(series.name)));
      }
      legend.children[focused]?.focus();
    }

    function button(text, picture, act) {
      const child = element("button", "", legend);
      child.type = "button";
      if (picture) child.append(picture);
      child.append(text());
      child.addEventListener("click", act);
      return child;
    }

    function toggle(names, on) {
      for (const name of names) on ? hidden.delete(name) : hidden.add(name);
      spec.onToggle?.(hidden);
      fillLegend();
      show(null);
      redraw();
    }

    // ---- public interface

    const chart = {
      set(next) {
        const shape = () => JSON.stringify([spec.x, spec.y]);
        const before = shape();
        Object.assign(spec, next);
        if (next.series) zoom = next.keepZoom ? zoom : null;
        if (box.getAttribute("aria-label") !== spec.label) box.setAttribute("aria-label", spec.label);
        fillLegend();
        if (!next.keepZoom) show(null);
        extent = { x: range("x"), y: range("y") };
        if (before !== shape() || !plot) build();
        else redraw();
      },
      zoomX(range) {
        zoom = range && { x: range, y: extent.y };
        redraw();
      },
      refresh(width) {
        spec.width = width;
        colour = M.palette(host);
        fillLegend();
        plot.setSize(size());
        redraw();
      },
      destroy() {
        observer.disconnect();
        all.delete(chart);
        plot.destroy();
        host.replaceChildren();
      },
    };
    const observer = new ResizeObserver(() => {
      if (plot && !spec.width && box.clientWidth && size().width !== plot.width) plot.setSize(size());
    });
    chart.set({});
    observer.observe(host);
    all.add(chart);
    return chart;
  }

  // Redraws all charts in the current colours. For printing, width sets the width, because the resize observer is too
  // late.
  function refresh(width) {
    for (const chart of all) chart.refresh(width);
  }

  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => refresh());
  return { xy, refresh, number: M.number, span: M.span };
})();
