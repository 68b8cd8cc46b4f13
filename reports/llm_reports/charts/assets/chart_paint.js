// Painting a chart's content onto the canvas that uPlot has drawn the axes on. A scene is what all of it needs:
// uPlot's object, the canvas context, device pixels per pixel, the chart's specification, its colours.
"use strict";

window.LLMPaint = (() => {
  const M = window.LLMMarks;
  const text = (ratio, weight = 400) => `${weight} ${12 * ratio}px system-ui, -apple-system, "Segoe UI", sans-serif`;

  function inside({ ctx, bbox }, draw) {
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    draw();
    ctx.restore();
  }

  // Text of our own: uPlot leaves the canvas set for the labels of its axes. The rim keeps it readable over lines.
  function write({ ctx, ratio, colour }, words, x, y) {
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    ctx.lineWidth = 3 * ratio;
    ctx.lineJoin = "round";
    ctx.strokeStyle = colour("paper");
    ctx.strokeText(words, x, y);
    ctx.fillText(words, x, y);
  }

  // Stretches of x with a name (stages), behind everything.
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

  // The series with their marks and labels; returns where each point came to stand, for the pointer.
  function series(scene, visible) {
    const spots = [];
    inside(scene, () => {
      for (const [each, k] of visible) spots.push(one(scene, each, k));
      for (const mark of scene.spec.marks) line(scene, mark);
      labels(scene, spots);
    });
    return spots;
  }

  function one(scene, each, k) {
    const { ctx, ratio, bbox, colourOf } = scene;
    const [px, py] = positions(scene, each);
    ctx.strokeStyle = ctx.fillStyle = colourOf(each, k);
    ctx.lineWidth = (each.thin ? 1.25 : 2) * ratio;
    ctx.lineJoin = "round";
    if (each.kind !== "points") path(scene, each, k, px, py);
    if (each.kind === "points" || each.kind === "curve") points(scene, each, k, px, py);
    return { series: each, k, px, py, ratio, bbox };
  }

  function positions({ u, bbox, ratio, spec }, each) {
    const { x, y } = each;
    const [px, py] = [new Float64Array(x.length), new Float64Array(x.length)];
    const drawable = (value, axis) => value !== null && !(axis.log && value <= 0);
    for (let i = 0; i < x.length; i++) {
      px[i] = drawable(x[i], spec.x) ? u.valToPos(x[i], "x", true) : NaN;
      py[i] = drawable(y[i], spec.y) ? u.valToPos(y[i], "y", true) : NaN;
      // What has no height (a request that never answered) stands on the floor of the chart, if asked to.
      if (y[i] === null && each.floor) py[i] = bbox.top + bbox.height - 6 * ratio;
    }
    return [px, py];
  }

  function path({ ctx, ratio, bbox }, each, k, px, py) {
    const stepped = each.kind === "step" || each.kind === "area";
    const floor = bbox.top + bbox.height;
    ctx.setLineDash(M.dash(each, k).map((length) => length * ratio));
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
    if (each.kind !== "area") return;
    if (down) ctx.lineTo(px[px.length - 1], floor);
    ctx.globalAlpha = 0.12;
    ctx.fill();
    ctx.globalAlpha = 1;
  }

  function points({ ctx, ratio, colour }, each, k, px, py) {
    const shape = M.shape(each, k);
    const size = (each.size || (each.kind === "curve" ? 5 : 3)) * ratio;
    const cloud = each.kind === "points" && shape !== "cross";
    ctx.globalAlpha = cloud ? (px.length > 1500 ? 0.5 : 0.75) : 1;
    for (let i = 0; i < px.length; i++) {
      if (Number.isNaN(px[i]) || Number.isNaN(py[i])) continue;
      M.point(ctx, shape, px[i], py[i], size);
      if (shape === "cross") ctx.stroke();
      else if (each.hollow?.[i]) {
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
    const under = mark.right && place - top < 32 * ratio; // above it stand the names of bands
    const [x, y] = upright ? [beside, top + height - 8 * ratio] : [over, under ? place + 14 * ratio : place - 5 * ratio];
    write(scene, mark.label, x, y);
  }

  // Labels beside points; one that would cover or touch another (8 and 8 read as 88) is left to the pointer.
  function labels(scene, spots) {
    const { ctx, ratio, bbox, colour } = scene;
    const taken = [];
    const [high, apart] = [14 * ratio, 6 * ratio];
    ctx.font = text(ratio, 600);
    ctx.fillStyle = colour("ink");
    for (const { series: each, px, py } of spots) {
      each.labels?.forEach((label, i) => {
        if (Number.isNaN(px[i]) || Number.isNaN(py[i])) return;
        const wide = ctx.measureText(label).width;
        const fits = px[i] + 9 * ratio + wide <= bbox.left + bbox.width;
        const x = fits ? px[i] + 9 * ratio : px[i] - 9 * ratio - wide;
        const y = Math.max(bbox.top + high, py[i] - 6 * ratio);
        const covers = ([l, t, w]) => x < l + w + apart && l < x + wide + apart && Math.abs(t - y) < high;
        if (taken.some(covers)) return;
        taken.push([x, y, wide]);
        write(scene, label, x, y);
      });
    }
  }

  return { bands, series };
})();
