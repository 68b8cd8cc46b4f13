// Building blocks of the page: elements, formatted numbers, tables with updates in place. All texts are set as text.
"use strict";

window.LLMDom = (() => {
  const { number, span } = window.LLMCharts;

  // make("p", { className: "x" }, "text", element)
  function make(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in made) made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  const some = (value) => value !== null && value !== undefined;

  function seconds(value) {
    if (!some(value)) return "–";
    return Math.abs(value) < 1 ? `${number(value * 1000)} ms` : `${number(value)} s`;
  }

  const plain = (value) => (some(value) ? number(value) : "–");
  const fixed = (digits) => (value) => (some(value) ? value.toFixed(digits) : "–");
  const percent = (value) => (some(value) ? `${Math.round(value * 100)} %` : "–");
  const clock = (value) => (some(value) ? span(Math.round(value)) : "–");

  // The requested load of a stage: users, or in an open loop requests per second.
  const isOpen = ({ rate_per_s: rate }) => some(rate);
  // A rate that changes within the stage has a text, such as 2..20. The lengths of a sweep of lengths are 1024/128.
  const rateText = (of) => of.ramp ?? String(of.rate_per_s);
  const loadShort = (of) =>
    (isOpen(of) ? `${rateText(of)}/s` : String(of.concurrency ?? of.stage ?? "?")) + (of.lengths ? ` x ${of.lengths}` : "");

  function loadWords(of) {
    const lengths = of.lengths ? `, ${of.lengths} tokens` : "";
    if (isOpen(of)) return `${rateText(of)} requests/s${lengths}`;
    return `${of.concurrency ?? "?"} parallel ${of.concurrency === 1 ? "request" : "requests"}${lengths}`;
  }

  // A table with a caption and column headers. Columns: { title, help, value(row), text(value), words, sentence, varying,
  // wanted(rows) }. Words and sentences are aligned left, numbers right. A varying column is hidden while all its values are equal,
  // any column while it is not wanted. The title and the data-value of a rounded cell contain its exact value.
  function table(caption, columns) {
    const body = make("tbody");
    const head = columns.map(({ title, help, words }) =>
      make("th", { scope: "col", className: words ? "llm-words" : "", ...(help ? { title: help } : {}) }, title),
    );
    const made = make(
      "table",
      {},
      make("caption", {}, caption),
      make("thead", {}, make("tr", {}, ...head)),
      body,
    );
    const element = make("div", { className: "llm-scroll", tabIndex: 0, role: "group", "aria-label": caption }, made);
    return {
      element,
      fill(rows, kind) {
        fill(body, columns, rows, kind);
        columns.forEach(({ varying, wanted, value }, k) => {
          if (!varying && !wanted) return;
          const hidden = wanted ? !wanted(rows) : new Set(rows.map(value).filter(some)).size < 2;
          for (const line of made.rows) line.cells[k].hidden = hidden;
        });
      },
    };
  }

  function fill(body, columns, rows, kind = () => "") {
    while (body.rows.length > rows.length) body.deleteRow(-1);
    rows.forEach((row, i) => {
      const line = body.rows[i] || body.insertRow();
      if (line.className !== kind(row)) line.className = kind(row);
      columns.forEach((column, k) => {
        const cell = line.cells[k] || line.insertCell();
        const look = column.sentence ? "llm-words llm-text" : "llm-words";
        if (column.words && cell.className !== look) cell.className = look;
        const value = column.value(row);
        write(cell, column.text ? column.text(value, row) : some(value) ? String(value) : "–");
        if (column.text && typeof value === "number" && cell.dataset.value !== String(value)) {
          cell.dataset.value = value;
          cell.title = String(value);
        }
        if (!some(value) && cell.dataset.value) {
          delete cell.dataset.value;
          cell.removeAttribute("title");
        }
      });
    });
  }

  return { make, write, some, seconds, plain, fixed, percent, clock, isOpen, loadShort, loadWords, table };
})();
