// Groups the options of the extension in Locust's start form: a heading for each group, a short label and the help text
// for each option, and a button that shows the rarely used options of a group. Without this script, the form is Locust's
// own. The groups come from the element of this script.
//
// Locust draws the fields as children of one element, in the order of the groups. The script adds elements between them
// and moves none, because Locust's page removes its own elements.
"use strict";

(() => {
  const groups = JSON.parse(document.currentScript.dataset.groups);
  const TITLE = "Custom parameters"; // Locust's title of the section
  let due = false;

  const inputName = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
  const ACRONYMS = new Set(["api", "slo"]);
  const labelOf = (name) => {
    const words = name.split("_").slice(1).map((word) => (ACRONYMS.has(word) ? word.toUpperCase() : word));
    const text = words.join(" ");
    return text.charAt(0).toUpperCase() + text.slice(1);
  };

  function element(tag, className, text) {
    const made = document.createElement(tag);
    made.className = className;
    made.textContent = text;
    return made;
  }

  // The child of the section's element that contains the input of an option.
  function fieldsOf(form) {
    const inputs = new Map([...form.elements].filter(({ name }) => name).map((input) => [input.name, input]));
    const first = groups.flatMap(({ options }) => options).find(({ name }) => inputs.has(inputName(name)));
    if (!first) return null;
    const details = inputs.get(inputName(first.name)).closest(".MuiAccordionDetails-root");
    const list = details?.firstElementChild;
    if (!list) return null;
    const fields = new Map();
    for (const [name, input] of inputs) {
      let field = input;
      while (field && field.parentElement !== list) field = field.parentElement;
      if (field) fields.set(name, { field, input });
    }
    return { list, fields, section: details.closest(".MuiAccordion-root") };
  }

  function decorate(form) {
    const found = fieldsOf(form);
    if (!found || found.list.dataset.llmForm !== undefined) return;
    const { list, fields, section } = found;
    list.dataset.llmForm = "";
    const ours = groups.flatMap((group) => addGroup(list, group, fields)).length;
    const button = section?.querySelector("button[aria-expanded]");
    const title = button?.querySelector("p");
    if (title?.textContent === TITLE && ours === list.querySelectorAll("[name]").length) write(title, "LLM options");
    if (button?.getAttribute("aria-expanded") === "false") button.click();
  }

  function addGroup(list, { title, options }, fields) {
    const all = options.map((option) => ({ ...option, ...fields.get(inputName(option.name)) })).filter(({ field }) => field);
    if (!all.length) return all;
    for (const option of all) label(option);
    list.insertBefore(element("h3", "llm-form-title", title), all[0].field);
    const rare = all.filter((option) => !option.common && !isChanged(option));
    if (rare.length) addButton(list, title, rare);
    return all;
  }

  const isChanged = ({ input, default: value }) => (input.type === "checkbox" ? input.checked : input.value !== value);

  // The button shows the rare options that have their default value. Hidden fields stay in the form, so their values are
  // sent.
  function addButton(list, title, rare) {
    const button = element("button", "llm-form-more", "");
    button.type = "button";
    const show = (open) => {
      button.setAttribute("aria-expanded", String(open));
      const options = rare.length === 1 ? "1 more option" : `${rare.length} more options`;
      button.textContent = open ? "Show fewer options" : `Show ${options}`;
      button.setAttribute("aria-label", `${title}: ${button.textContent}`);
      for (const { field } of rare) field.toggleAttribute("data-llm-hidden", !open);
    };
    button.addEventListener("click", () => show(button.getAttribute("aria-expanded") !== "true"));
    list.insertBefore(button, rare[0].field);
    show(false);
  }

  // Locust's label is "Llm Stage Time (help text)", and is repeated in the gap of the outline.
  function label({ name, details, field, input }) {
    const texts = [...field.querySelectorAll("label, legend > span, .MuiFormControlLabel-label")];
    const help = texts[0]?.textContent.match(/\(([^]*)\)/)?.[1];
    for (const text of texts) write(text, labelOf(name));
    field.title = `--${name.replaceAll("_", "-")}`;
    if (!help) return;
    const note = element("small", "llm-form-help", details ? `${help}. ${details}` : help);
    note.id = `${name}-help`;
    input.setAttribute("aria-describedby", note.id);
    field.append(note);
  }

  // Change the text node that Locust's page made, which it would otherwise miss when it removes the element.
  function write(element, text) {
    if (element?.firstChild) element.firstChild.nodeValue = text;
  }

  function request() {
    if (due) return;
    due = true;
    setTimeout(() => {
      due = false;
      for (const form of document.forms) decorate(form);
    }, 30);
  }

  new MutationObserver(request).observe(document.body, { childList: true, subtree: true });
  request();
})();
