// The page's samples of a run, as columns of equal length with at most MOST samples, for any length of the run. The
// module does not depend on charts or on the network.
"use strict";

window.LLMHistory = (() => {
  const MOST = 1800;

  function history(most = MOST) {
    let columns = { t: [] };
    let run = null;
    let seq = null;

    // Samples of another run, or a complete history, replace the samples here. Other samples are appended.
    function take(state) {
      if (state.reset || state.run !== run) columns = { t: [] };
      run = state.run;
      seq = state.seq;
      append(state.samples || {});
    }

    function append(samples) {
      const count = samples.t ? samples.t.length : 0;
      if (!count) return;
      const before = columns.t.length;
      for (const name of new Set([...Object.keys(columns), ...Object.keys(samples)])) {
        const had = (columns[name] ??= new Array(before).fill(null));
        for (let i = 0; i < count; i++) had.push(samples[name]?.[i] ?? null);
      }
      while (columns.t.length > most) thin();
    }

    // The older half loses every second sample, as on the server. The recent past keeps its resolution.
    function thin() {
      const half = Math.floor(columns.t.length / 2);
      for (const name of Object.keys(columns)) columns[name] = columns[name].filter((_, i) => i >= half || i % 2 === 0);
    }

    return {
      take,
      get columns() {
        return columns;
      },
      get length() {
        return columns.t.length;
      },
      // Query parameters with which the server sends only new samples.
      get known() {
        return run === null || seq === null ? {} : { since: seq, run };
      },
      newest: (name) => columns[name]?.at(-1) ?? null,
    };
  }

  return { history, MOST };
})();
