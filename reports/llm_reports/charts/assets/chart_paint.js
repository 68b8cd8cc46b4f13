// Paints the content of a chart on the canvas on which uPlot has drawn the axes. A scene contains the common inputs:
// uPlot's object, the canvas context, device pixels per pixel, the chart's specification, its colours.
"use strict";

window.LLMPaint = (() => {
  const M = window.LLMMarks;
  const POINT = 20; // the weight of a covered point; each of the 11 sampled points of a line counts 1
  const text = (ratio, weight = 400) => `${weight} ${12 * ratio}px system-ui, -apple-system, "Segoe UI", sans-serif`;

  function inside({ ctx, bbox }, draw) {
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    draw();
    ctx.restore();
  }

  // Writes text. uPlot leaves the canvas configured for its axis labels, so set alignment and baseline here. The
  // outline keeps text readable over lines.
  function write({ ctx, ratio, colour }, words, x, y) {
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    ctx.lineWidth = 3 * ratio;
    ctx.lineJoin = "round";
    ctx.strokeStyle = colour("paper");
    ctx.strokeText(words, x, y);
    ctx.fillText(words, x, y);
  }

  // Paints named ranges of x (stages) in the background.
  function bands(scene) {
    const { u, ctx, ratio, bbox, spec, colour } = scene;
    inside(scene, () => {
      ctx.font = text(ratio);
      spec.bands.forEach((band, k) => {
        const [from, to] = [u.valToPos(band.from, "x", true), u.valToPos(band.to, "x", true)];
        ctx.globalAlpha = k % 2 ? 0.4 : 1;
        ctx.fillStyle = colour("panel");
        ctx.fillRect(from, bbox.top, to - from, bbox.height);
        ctx.globalAlpha = 1;
        ctx.fillStyle = colour("soft");
        if (ctx.measureText(band.label).width + 6 * ratio < to - from) {
          write(scene, band.label, from + 4 * ratio, bbox.top + 13 * ratio);
        }
      });
    });
  }

  // Paints the series with their marks and labels; returns the position of each point, for the pointer.
  function series(scene, visible) {
    const spots = [];
    inside(scene, () => {
      for (const [item, k] of visible) spots.push(drawSeries(scene, item, k));
      for (const mark of scene.spec.marks) line(scene, mark);
      labels(scene, spots);
    });
    return spots;
  }

  function drawSeries(scene, series, k) {
    const { ctx, ratio, bbox, colourOf } = scene;
    const [px, py] = positions(scene, series);
    ctx.strokeStyle = ctx.fillStyle = colourOf(series, k);
    ctx.lineWidth = (series.thin ? 1.25 : 2) * ratio;
    ctx.lineJoin = "round";
    if (series.kind !== "points") path(scene, series, k, px, py);
    if (series.kind === "points" || series.kind === "curve") points(scene, series, k, px, py);
    return { series, k, px, py, ratio, bbox };
  }

  function positions({ u, bbox, ratio, spec }, series) {
    const { x, y } = series;
    const [px, py] = [new Float64Array(x.length), new Float64Array(x.length)];
    const drawable = (value, axis) => value !== null && !(axis.log && value <= 0);
    for (let i = 0; i < x.length; i++) {
      px[i] = drawable(x[i], spec.x) ? u.valToPos(x[i], "x", true) : NaN;
      py[i] = drawable(y[i], spec.y) ? u.valToPos(y[i], "y", true) : NaN;
      // With floor: true, points without a y value (a request without an answer) are at the bottom of the chart.
      if (y[i] === null && series.floor) py[i] = bbox.top + bbox.height - 6 * ratio;
    }
    return [px, py];
  }

  function path({ ctx, ratio, bbox }, series, k, px, py) {
    const stepped = series.kind === "step" || series.kind === "area";
    const floor = bbox.top + bbox.height;
    ctx.setLineDash(M.dash(series, k).map((length) => length * ratio));
    ctx.beginPath();
    let down = false;
    for (let i = 0; i < px.length; i++) {
      const here = !Number.isNaN(px[i]) && !Number.isNaN(py[i]);
      if (here) {
        if (!down) ctx.moveTo(px[i], stepped ? floor : py[i]);
        else if (stepped) ctx.lineTo(px[i], py[i - 1]);
        ctx.lineTo(px[i], py[i]);
      } else if (down && stepped) ctx.lineTo(px[i - 1], floor);
      down = here;
    }
    ctx.stroke();
    ctx.setLineDash([]);
    if (series.kind !== "area") return;
    if (down) ctx.lineTo(px[px.length - 1], floor);
    ctx.globalAlpha = 0.12;
    ctx.fill();
    ctx.globalAlpha = 1;
  }

  function points({ ctx, ratio, colour }, series, k, px, py) {
    const shape = M.shape(series, k);
    const size = (series.size || (series.kind === "curve" ? 5 : 3)) * ratio;
    const cloud = series.kind === "points" && shape !== "cross";
    ctx.globalAlpha = cloud ? (px.length > 1500 ? 0.5 : 0.75) : 1;
    for (let i = 0; i < px.length; i++) {
      if (Number.isNaN(px[i]) || Number.isNaN(py[i])) continue;
      M.point(ctx, shape, px[i], py[i], size);
      if (shape === "cross") ctx.stroke();
      else if (series.hollow?.[i]) {
        const filled = ctx.fillStyle;
        ctx.fillStyle = colour("paper");
        ctx.fill();
        ctx.stroke();
        ctx.fillStyle = filled;
      } else ctx.fill();
    }
    ctx.globalAlpha = 1;
  }

  function line(scene, mark) {
    const { u, ctx, ratio, bbox, colour } = scene;
    const { left, top, width, height } = bbox;
    const upright = mark.x !== undefined;
    const place = upright ? u.valToPos(mark.x, "x", true) : u.valToPos(mark.y, "y", true);
    ctx.strokeStyle = ctx.fillStyle = colour(mark.colour || "bad");
    ctx.lineWidth = 1.5 * ratio;
    ctx.setLineDash([6 * ratio, 4 * ratio]);
    ctx.beginPath();
    ctx.moveTo(upright ? place : left, upright ? top : place);
    ctx.lineTo(upright ? place : left + width, upright ? top + height : place);
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.font = text(ratio);
    const wide = ctx.measureText(mark.label).width + 5 * ratio;
    const beside = place + wide > left + width ? place - wide : place + 5 * ratio;
    const over = mark.right ? left + width - wide : left + 5 * ratio;
    const under = place - top < (mark.right ? 32 : 16) * ratio; // the names of bands, or the end of the chart, are above it
    const [x, y] = upright ? [beside, top + height - 8 * ratio] : [over, under ? place + 14 * ratio : place - 5 * ratio];
    write(scene, mark.label, x, y);
  }

  // Paints labels next to points, where they cover the fewest points and lines. A label that would cover or touch
  // another one (8 and 8 look like 88) is omitted, with sparse: true also one that would cover a point; the pointer
  // shows it.
  function labels(scene, spots) {
    const { ctx, ratio, bbox, colour } = scene;
    const taken = [];
    const [high, apart] = [14 * ratio, 6 * ratio];
    const drawn = spots.filter(({ series }) => series.labels).flatMap(({ px, py }) => obstacles(px, py));
    ctx.font = text(ratio, 600);
    ctx.fillStyle = colour("ink");
    for (const { series, px, py } of spots) {
      series.labels?.forEach((label, i) => {
        if (Number.isNaN(px[i]) || Number.isNaN(py[i])) return;
        const wide = ctx.measureText(label).width;
        const [right, left, middle] = [px[i] + 9 * ratio, px[i] - 9 * ratio - wide, px[i] - wide / 2];
        const [above, below] = [py[i] - 6 * ratio, py[i] + 16 * ratio];
        const [over, under] = [py[i] - 9 * ratio, py[i] + 19 * ratio]; // baselines straight over and under the point
        const places = [[right, above], [left, above], [middle, over], [right, below], [middle, under], [left, below]]; // prettier-ignore
        let best = null;
        let fewest = Infinity;
        for (const [x, y] of places) {
          const outside = x < bbox.left || x + wide > bbox.left + bbox.width;
          if (outside || y < bbox.top + high || y > bbox.top + bbox.height - 3 * ratio) continue;
          if (taken.some(([l, t, w]) => x < l + w + apart && l < x + wide + apart && Math.abs(t - y) < high)) continue;
          const covered = ([ox, oy, size]) =>
            ox > x - size * ratio && ox < x + wide + size * ratio && oy > y - (10 + size) * ratio && oy < y + (2 + size) * ratio;
          const count = drawn.reduce((sum, one) => sum + (covered(one) ? one[3] : 0), 0);
          if (count < fewest) [fewest, best] = [count, [x, y]];
        }
        if (!best || (series.sparse && fewest >= POINT)) return;
        taken.push([...best, wide]);
        write(scene, label, ...best);
      });
    }
  }

  // Returns the points of a curve and points along its lines: [x, y, radius, weight].
  function obstacles(px, py) {
    const found = [];
    for (let i = 0; i < px.length; i++) {
      if (Number.isNaN(px[i]) || Number.isNaN(py[i])) continue;
      found.push([px[i], py[i], 5, POINT]);
      for (let k = 1; k < 12 && i + 1 < px.length; k++) {
        const at = k / 12;
        const [x, y] = [px[i] + (px[i + 1] - px[i]) * at, py[i] + (py[i + 1] - py[i]) * at];
        if (!Number.isNaN(x) && !Number.isNaN(y)) found.push([x, y, 0, 1]);
      }
    }
    return found;
  }

  return { bands, series };
})();
