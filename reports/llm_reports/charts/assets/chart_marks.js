// Drawing primitives of the charts: colours from the style sheet, numbers as text, ticks, shapes of points and lines.
// This file does not depend on data or pages. It defines window.LLMMarks, which charts.js uses.
"use strict";

window.LLMMarks = (() => {
  const RAMP_STOPS = 6;
  const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [14, 4], [5, 2, 1, 2, 1, 2]];
  const SHAPES = ["circle", "square", "triangle", "diamond"];

  const SPAN_STEPS = [
    0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400,
  ];

  // Only charts.css defines colours, so that the dark theme, the light theme and the theme of a host page are in one
  // place.
  function palette(element) {
    const style = getComputedStyle(element);
    const known = {};
    return (name) => (known[name] ??= style.getPropertyValue(`--llm-${name}`).trim() || "#808080");
  }

  function channels(hex) {
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  }

  // Returns the colour of series i of n; neighbours in a sweep have similar colours.
  function ramp(colour, i, n) {
    const at = n > 1 ? (i / (n - 1)) * (RAMP_STOPS - 1) : 1;
    const low = Math.min(RAMP_STOPS - 2, Math.floor(at));
    const [from, to] = [channels(colour(`ramp-${low}`)), channels(colour(`ramp-${low + 1}`))];
    return `rgb(${from.map((value, k) => Math.round(value + (to[k] - value) * (at - low))).join(",")})`;
  }

  // Formats a number with three or four significant digits, with an exponent only below 1e-4.
  function number(value) {
    if (value === null || value === undefined || !Number.isFinite(value)) return "-";
    const size = Math.abs(value);
    if (size >= 1e6) return `${trim((value / 1e6).toPrecision(3))}M`;
    if (size >= 1e4) return `${trim((value / 1e3).toPrecision(3))}k`;
    if (size >= 100) return String(Math.round(value));
    if (size === 0) return "0";
    return size < 1e-4 ? value.toExponential(1) : trim(value.toPrecision(3));
  }

  function trim(text) {
    return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
  }

  // Tick labels are exact; rounding as in number() could give two ticks the same label.
  function tick(value) {
    if (value === null || value === undefined) return "";
    const size = Math.abs(value);
    if (size >= 1e6) return `${parseFloat((value / 1e6).toFixed(3))}M`;
    if (size >= 1e4) return `${parseFloat((value / 1e3).toFixed(3))}k`;
    return size && size < 1e-4 ? value.toExponential(1) : String(parseFloat(value.toPrecision(6)));
  }

  function span(seconds) {
    const whole = Math.round(seconds);
    if (Math.abs(seconds) < 60) return `${tick(seconds)} s`;
    const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
    const two = (value) => String(value).padStart(2, "0");
    return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
  }

  // Returns the ticks of a logarithmic axis: 1, 2, 5 of each decade; only decades if there are many; more digits or
  // even steps if the axis covers less than one decade.
  function logTicks(low, high) {
    const decades = Math.log10(high / low);
    const digits = decades > 4 ? [1] : decades > 2.5 ? [1, 3] : [1, 2, 5];
    for (const candidates of [digits, [1, 1.5, 2, 3, 4, 5, 6, 8]]) {
      const ticks = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
        for (const digit of candidates) {
          const value = parseFloat(`${digit}e${power}`);
          if (value >= low && value <= high) ticks.push(value);
        }
      }
      if (ticks.length >= 3) return ticks;
    }
    const step = niceStep((high - low) / 4);
    const ticks = [];
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
      ticks.push(parseFloat(value.toPrecision(9)));
    }
    return ticks;
  }

  function niceStep(rough) {
    const power = 10 ** Math.floor(Math.log10(rough));
    return power * [1, 2, 5, 10].find((digit) => digit * power >= rough);
  }

  function point(ctx, shape, x, y, size) {
    ctx.beginPath();
    if (shape === "square") ctx.rect(x - size * 0.85, y - size * 0.85, size * 1.7, size * 1.7);
    else if (shape === "triangle")
      polygon(ctx, [x, y - size * 1.2, x + size * 1.1, y + size * 0.8, x - size * 1.1, y + size * 0.8]);
    else if (shape === "diamond")
      polygon(ctx, [x, y - size * 1.3, x + size * 1.3, y, x, y + size * 1.3, x - size * 1.3, y]);
    else if (shape === "cross") {
      ctx.moveTo(x - size, y - size);
      ctx.lineTo(x + size, y + size);
      ctx.moveTo(x + size, y - size);
      ctx.lineTo(x - size, y + size);
    } else ctx.arc(x, y, size, 0, 2 * Math.PI);
  }

  function polygon(ctx, corners) {
    ctx.moveTo(corners[0], corners[1]);
    for (let i = 2; i < corners.length; i += 2) ctx.lineTo(corners[i], corners[i + 1]);
    ctx.closePath();
  }

  // Returns the sample of a series that the legend shows next to its name.
  function swatch(series, colour, k) {
    const canvas = document.createElement("canvas");
    const ratio = window.devicePixelRatio || 1;
    canvas.width = 24 * ratio;
    canvas.height = 12 * ratio;
    canvas.style.cssText = "width:24px;height:12px";
    canvas.setAttribute("aria-hidden", "true");
    const ctx = canvas.getContext("2d");
    ctx.scale(ratio, ratio);
    ctx.strokeStyle = ctx.fillStyle = colour;
    ctx.lineWidth = 2;
    if (series.kind !== "points") {
      ctx.setLineDash(dash(series, k));
      ctx.beginPath();
      ctx.moveTo(1, 6);
      ctx.lineTo(23, 6);
      ctx.stroke();
      ctx.setLineDash([]);
    }
    if (series.kind === "points" || series.kind === "curve") {
      point(ctx, shape(series, k), 12, 6, 4);
      if (shape(series, k) === "cross") ctx.stroke();
      else ctx.fill();
    }
    return canvas;
  }

  // Shapes and dashes follow the index of a series. With four shapes and six dashes, the first twelve combinations are
  // distinct.
  const place = (series, k) => series.place ?? k;
  const shape = (series, k) => series.shape || SHAPES[place(series, k) % SHAPES.length];
  const dash = (series, k) => series.dash || DASHES[place(series, k) % DASHES.length];

  return { SPAN_STEPS, palette, ramp, number, tick, span, logTicks, point, swatch, shape, dash };
})();
