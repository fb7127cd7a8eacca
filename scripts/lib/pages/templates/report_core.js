// What the other scripts of report.html build on: the data, the words, elements, pictures, tables.
"use strict";
const report = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  let pictures = null;
  const state = { run: 0, language: document.documentElement.lang };

  // A word in the language that is read, its {names} filled in.
  const word = (name, values = {}) =>
    data.words[state.language][name].replace(/\{(\w+)\}/g, (whole, key) => key in values ? values[key] : whole);
  const percent = (share, digits = 1) => share === null ? "-" : `${(100 * share).toFixed(digits)}\u00a0%`;
  const run = () => data.runs[state.run];
  const view = () => document.querySelector(`.view[data-language="${state.language}"]`);
  const find = selector => view().querySelector(selector);
  const name = label => data.classes[label];
  const short = (text, most = 22) => [...text].length > most ? [...text].slice(0, most - 1).join("") + "\u2026" : text;
  const title = run => [run.experiment, `${word("seed")} ${run.seed}`,
    ...(run.fold === null ? [] : [`${word("fold")} ${run.fold}`])].join(", ");

  // An element with attributes and children, which are elements or texts. Texts never become markup.
  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function picture(image, alt) {
    const index = data.pictureOf[image];
    if (index < 0) return element("p", {}, word("no_picture"));
    pictures ??= JSON.parse(document.getElementById("pictures").textContent);
    return element("img", { alt, decoding: "async", src: `data:image/webp;base64,${pictures[index]}` });
  }

  // A picture with what stands below it; the lines are texts or elements.
  function labelled(image, ...lines) {
    return element("div", { class: "picture" }, picture(image, `${name(data.labels[image])}: ${data.files[image]}`),
      ...lines.map(line => element("p", {}, line)));
  }

  function bold(text, label, more = "") {
    return element("span", {}, `${text}: `, element("strong", {}, element("bdi", {}, label)), more);
  }

  // An error of a run: [image, predicted class, confidence, probability of the true class].
  function errorFigure([image, predicted, confidence, ofLabel]) {
    return element("figure", { class: "wrong" }, picture(image, `${word("misclassified")}: ${data.files[image]}`),
      element("figcaption", {}, bold(word("predicted"), name(predicted), ` ${percent(confidence)}`), element("br"),
        bold(word("label"), name(data.labels[image]), ` ${percent(ofLabel)}`), element("br"),
        element("span", { class: "file" }, data.files[image])));
  }

  // Fill a gallery: the first figures at once, the others when they are asked for.
  function fill(gallery, makers, step = 24) {
    gallery.replaceChildren();
    let shown = 0;
    const more = element("button", { type: "button", "data-more": "" });
    const add = () => {
      const next = makers.slice(shown, shown + step).map(make => make());
      more.remove();
      gallery.append(...next);
      shown += next.length;
      if (shown < makers.length) {
        more.textContent = `${word("more")} (${makers.length - shown})`;
        gallery.append(more);
      }
      return next;
    };
    more.addEventListener("click", () => {
      const [first] = add();
      first.setAttribute("tabindex", "-1");
      first.focus({ preventScroll: true });
    });
    add();
  }

  // A table of texts and elements that can be sorted; numbers: the columns that are set to the right.
  function table(label, header, rows, numbers) {
    const cell = (content, column) => column === 0 ? element("th", { scope: "row" }, content)
      : element("td", { class: numbers.includes(column) ? "number" : null }, content);
    const made = element("table", { "data-sortable": "" }, element("caption", { class: "unseen" }, label),
      element("thead", {}, element("tr", {}, ...header.map((text, column) =>
        element("th", { scope: "col", class: numbers.includes(column) ? "number" : null }, text)))),
      element("tbody", {}, ...rows.map(row => element("tr", {}, ...row.map(cell)))));
    sortable(made);
    return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, made);
  }

  // The number that a cell begins with; cells without one come last.
  function value(row, column) {
    const text = row.cells[column].textContent.replaceAll(",", "").trim();
    const match = text.match(/^[<+]?\s*(-?[\d.]+(?:e-?\d+)?)/);
    return match ? { number: parseFloat(match[1]), text } : { number: null, text };
  }

  function sortable(table) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = element("button", { type: "button" }, ...cell.childNodes);
      cell.replaceChildren(button);
      button.addEventListener("click", () => {
        const rows = [...body.rows].map(row => ({ row, ...value(row, column) }));
        // Numbers begin with the highest, texts with the first.
        const before = cell.getAttribute("aria-sort");
        const up = before ? before === "descending" : rows.every(entry => entry.number === null);
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", up ? "ascending" : "descending");
        rows.sort((a, b) => (a.number === null) - (b.number === null)
          || (up ? 1 : -1) * (a.number === null ? a.text.localeCompare(b.text) : a.number - b.number));
        body.append(...rows.map(entry => entry.row));
      });
    });
  }

  // -- language, light or dark ----------------------------------------------------------------------------------------

  // What a page does besides when another language is read.
  const spoken = [];
  function speak(language) {
    state.language = document.documentElement.lang = language;
    for (const one of document.querySelectorAll(".view")) one.hidden = one.dataset.language !== language;
    for (const act of spoken) act();
  }

  document.addEventListener("click", event => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.speak) {
      speak(button.dataset.speak);
      find("[data-speak]").focus();
    } else if ("themeButton" in button.dataset) {
      const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
      document.documentElement.dataset.theme = dark ? "light" : "dark";
    }
  });
  document.addEventListener("submit", event => event.preventDefault());

  return { bold, data, element, errorFigure, fill, find, labelled, name, percent, picture, run, short, sortable, speak,
    spoken, state, table, title, view, word };
})();
