// What a reader of report.html does: choose a run, a language, light or dark; sections are drawn one after the other.
"use strict";
(() => {
  const { data, element, find, name, run, sections, state, view, word } = report;
  const OF_RUN = new Set(["matrix", "confused", "errors", "classes", "calibration", "curves", "gradcam", "map"]);
  const stale = new Set();
  const FIELDS = ["experiment", "seed", "fold"];

  function draw(section) {
    if (stale.delete(`${state.language} ${section}`)) sections.draw[section]();
  }
  // All at once, as for a printer.
  const drawAll = () => Object.keys(sections.draw).forEach(draw);
  let timer = 0;

  // Draw these sections anew, one after the other, so that the page answers meanwhile; in the other language when it is read.
  function outdate(names) {
    for (const language of Object.keys(data.words)) for (const section of names) stale.add(`${language} ${section}`);
    clearTimeout(timer);
    timer = setTimeout(drawNext);
  }
  function drawNext() {
    const section = Object.keys(sections.draw).find(key => stale.has(`${state.language} ${key}`));
    if (!section) return;
    draw(section);
    timer = setTimeout(drawNext);
  }

  // -- which run ------------------------------------------------------------------------------------------------------

  // The runs that have the values of the first `count` fields.
  const like = (values, count) => data.runs.filter(one => FIELDS.slice(0, count).every((field, i) => `${one[field]}` === `${values[i]}`));

  function showPicker() {
    const values = FIELDS.map(field => run()[field]);
    FIELDS.forEach((field, i) => {
      const options = [...new Set(like(values, i).map(one => one[field]))];
      const select = find(`[data-run=${field}]`);
      select.replaceChildren(...options.map(value => element("option", { value }, `${value}`)));
      select.value = values[i];
      find(`[data-of=${field}]`).hidden = values[i] === null;
    });
  }

  function pick(values) {
    // Of another experiment, the same seed and fold where it has them.
    const candidates = like(values, 3)[0] ?? like(values, 2)[0] ?? like(values, 1)[0];
    if (!candidates) return;
    state.run = data.runs.indexOf(candidates);
    showPicker();
    for (const row of document.querySelectorAll("tr:has([data-pick])"))
      row.classList.toggle("current", row.querySelector("[data-pick]").dataset.pick === candidates.experiment);
    outdate([...OF_RUN]);
  }

  document.addEventListener("change", event => {
    const { run: field, cell, choice } = event.target.dataset;
    if (field) pick(FIELDS.map(key => find(`[data-run=${key}]`).value || null));
    if (cell) sections.choose(...["label", "predicted"].map(key => +find(`[data-cell=${key}]`).value));
    if (choice) sections.draw[{ curve: "curves", map_class: "map", map_wrong: "map" }[choice] ?? "classes"]();
  });

  document.addEventListener("click", event => {
    const button = event.target.closest("[data-pick]");
    if (!button) return;
    pick([button.dataset.pick, run().seed, run().fold]);
    find(".picker").scrollIntoView();
  });

  report.spoken.push(() => {
    for (const select of view().querySelectorAll("[data-cell]"))
      if (!select.options.length) select.append(...data.classes.map((text, label) => element("option", { value: label }, text)));
    showPicker();
    outdate(Object.keys(sections.draw));
  });

  // -- the rest -------------------------------------------------------------------------------------------------------

  for (const table of document.querySelectorAll("table[data-sortable]")) report.sortable(table);
  addEventListener("beforeprint", () => {
    drawAll();
    for (const details of view().querySelectorAll("details")) details.open = true;
  });
  let width = innerWidth, wait = 0;
  addEventListener("resize", () => {
    clearTimeout(wait);
    wait = setTimeout(() => {
      if (width === innerWidth) return;  // a phone that hides its address bar
      width = innerWidth;
      outdate(Object.keys(sections.draw));
    }, 200);
  });
  const links = new Map([...document.querySelectorAll(".toc a")].map(link => [link.hash.slice(1), link]));
  const follow = new IntersectionObserver(entries => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      for (const link of view().querySelectorAll(".toc a[aria-current]")) link.removeAttribute("aria-current");
      links.get(target.id)?.setAttribute("aria-current", "location");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const section of document.querySelectorAll("section[id]")) follow.observe(section);

  report.speak(state.language);
  pick(FIELDS.map(field => data.runs[0][field]));
  document.documentElement.dataset.ready = "yes";
  report.drawAll = drawAll;
})();
