// What a reader of try.html does: gives pictures by dropping, choosing or pasting, and reads, saves or clears the answers.
"use strict";
(() => {
  const { data, element, find, percent, state, word } = report;
  const SHOWN = 5, CELLS = 9;  // classes of an answer; squares a side that are covered one after the other
  const answers = [];  // of each file: {name, refusal, values} or what model.answer returns, with its name
  const waiting = [];
  let isBusy = true, warning = null, note = null;

  const say = (name, values) => {
    note = [name, values];
    find("[data-status]").textContent = word(name, values);
  };
  const accuracy = () => +find("[data-accuracy]").value;
  const className = label => element("bdi", {}, data.classes[label]);

  // -- pictures --------------------------------------------------------------------------------------------------------

  function canvasOf({ width, height, channels, data: bytes }, alt) {
    const canvas = element("canvas", { width, height, role: "img", "aria-label": alt });
    const image = new ImageData(width, height);
    for (let pixel = 0; pixel < width * height; pixel++) {
      for (let k = 0; k < 3; k++) image.data[pixel * 4 + k] = bytes[pixel * channels + (channels === 3 ? k : 0)];
      image.data[pixel * 4 + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  function nearestOf(answer) {
    if (!answer.nearest.length) return [];
    return [element("h4", {}, word("nearest")), element("ul", { class: "nearest" }, ...answer.nearest.map(({ index, distance }) => {
      const { file, label, picture } = data.known[index], alt = `${data.classes[label]}: ${file}`;
      const shown = picture ? element("img", { alt, title: file, src: `data:image/webp;base64,${picture}` }) : element("span", { title: file }, word("no_picture"));
      return element("li", {}, shown, element("p", {}, className(label), ` ${distance.toFixed(3)}`));
    }))];
  }

  // -- what the answer depends on --------------------------------------------------------------------------------------

  function drawDrops(canvas, { drops, picture }) {
    const context = canvas.getContext("2d"), most = Math.max(...drops, 0.01);
    drops.forEach((drop, at) => {
      const [left, top] = [at % CELLS * picture.width / CELLS, Math.floor(at / CELLS) * picture.height / CELLS];
      context.fillStyle = drop > 0 ? `rgb(255 210 0 / ${0.75 * drop / most})` : "rgb(0 20 80 / 0)";
      context.fillRect(left, top, picture.width / CELLS, picture.height / CELLS);
    });
  }

  function coverButton(answer, figure) {
    const button = element("button", { type: "button" }, word("cover"));
    button.addEventListener("click", async () => {
      button.disabled = true;
      const label = answer.best[0];
      answer.drops = await model.cover(answer.values, label, CELLS, share => say("covering", { done: percent(share, 0) }));
      say("covered");
      figure.replaceWith(figureOf(answer));
    });
    return button;
  }

  function figureOf(answer) {
    const canvas = canvasOf(answer.picture, `${word("seen")}: ${answer.name}`), figure = element("figure", {});
    figure.append(canvas, element("figcaption", {}, word(answer.drops ? "drops" : "seen", { name: data.classes[answer.best[0]], most: percent(Math.max(...(answer.drops ?? [0]))) })));
    if (answer.drops) drawDrops(canvas, answer);
    else figure.append(coverButton(answer, figure));
    return figure;
  }

  // -- answers ---------------------------------------------------------------------------------------------------------

  function reasonsOf(answer) {
    const values = { accuracy: percent(accuracy(), 0), distance: answer.distance?.toFixed(3), far: data.certainty?.far?.toFixed(3) };
    return model.reasons(answer, accuracy()).map(name => word(name, values));
  }

  function article(answer) {
    const heading = element("h3", {}, element("bdi", {}, answer.name));
    if (answer.refusal) return element("article", { class: "refused" }, heading, element("p", {}, word(answer.refusal, answer.values)));
    const unsure = reasonsOf(answer), [first] = answer.best;
    const lines = answer.best.slice(0, SHOWN).map(label => element("li", {}, element("span", { class: "name" }, className(label)),
      element("meter", { min: "0", max: "1", value: `${answer.probabilities[label]}`, "aria-hidden": "true" }),
      element("span", { class: "number" }, percent(answer.probabilities[label]))));
    const mark = unsure.length ? element("p", { class: "unsure" }, element("strong", {}, word("unsure")), ` ${unsure.join("; ")}`)
      : data.certainty ? element("p", { class: "sure" }, word("sure")) : "";
    return element("article", { class: unsure.length ? "is-unsure" : "" }, heading, figureOf(answer), element("div", {},
      element("p", { class: "said" }, element("strong", {}, className(first)), ` ${percent(answer.probabilities[first])}`), mark,
      warning ? element("p", { class: "unsure" }, word("wrong_here")) : "", element("ol", { class: "classes" }, ...lines), ...nearestOf(answer)));
  }

  function show() {
    find("[data-answers]").replaceChildren(...answers.map(article).reverse());
    for (const button of report.view().querySelectorAll("[data-save], [data-clear]")) button.hidden = !answers.length;
  }

  // -- files -----------------------------------------------------------------------------------------------------------

  async function work() {
    if (isBusy || !waiting.length) return;
    isBusy = true;
    const many = waiting.length;
    let unread = 0;
    for (let done = 0; waiting.length; done++) {
      const file = waiting.shift(), name = file.name || word("pasted");
      say("working", { name, done: done + 1, all: Math.max(many, done + 1 + waiting.length) });
      await model.pause();
      try {
        answers.push({ name, ...await model.answer(file) });
      } catch (error) {
        if (!error.refusal) console.error(error);
        answers.push({ name, refusal: error.refusal ?? "failed", values: error.values ?? { reason: `${error.message ?? error}` } });
        unread++;
      }
      find("[data-answers]").prepend(article(answers.at(-1)));
    }
    isBusy = false;
    show();
    const last = answers.at(-1);
    say(unread ? "done_some" : answers.length === 1 ? "done_one" : "done", { n: answers.length, unread, name: last.name,
      answer: last.refusal ? "" : data.classes[last.best[0]], share: last.refusal ? "" : percent(last.probabilities[last.best[0]]) });
  }

  function add(files) {
    waiting.push(...files);
    if (files.length) work();
  }

  // -- the table -------------------------------------------------------------------------------------------------------

  // The columns that `make predict` writes, in its own words.
  function table() {
    const count = Math.min(SHOWN, data.classes.length), numbers = Array.from({ length: count }, (_, k) => k + 1);
    const cell = value => /[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
    const rows = answers.map(answer => {
      if (answer.refusal) return [answer.name, "", "", ...numbers.flatMap(() => ["", ""]), "", "", word(answer.refusal, answer.values)];
      const pairs = answer.best.slice(0, count).map(label => [data.classes[label], answer.probabilities[label].toFixed(6)]);
      const unsure = model.reasons(answer, accuracy()).map(name => data.reasons[name]);
      return [answer.name, ...pairs[0], ...pairs.flat(), data.certainty ? unsure.length ? "yes" : "no" : "", unsure.join("; "), warning ? word("wrong_here") : ""];
    });
    const header = ["file", "prediction", "confidence", ...numbers.flatMap(k => [`top${k}`, `probability${k}`]), "unsure", "reason", "error"];
    return [header, ...rows].map(row => row.map(cell).join(",") + "\n").join("");
  }

  function save() {
    // With a mark at its start, spreadsheets read it as UTF-8.
    const url = URL.createObjectURL(new Blob(["\ufeff", table()], { type: "text/csv" }));
    element("a", { href: url, download: "predictions.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  // -- what the reader does --------------------------------------------------------------------------------------------

  function retell() {
    if (note) say(...note);
    find("[data-warning]").hidden = !warning;
    find("[data-warning]").textContent = warning ? word(...warning) : "";
    show();
  }

  document.addEventListener("click", event => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.save !== undefined) save();
    if (button.dataset.clear !== undefined) {
      answers.length = 0;
      show();
      say("ready");
      find("input[type=file]").focus();
    }
  });
  document.addEventListener("change", event => {
    if (event.target.type === "file") {
      add([...event.target.files]);
      event.target.value = "";  // so that the same file can be chosen again
    } else if (event.target.dataset.accuracy !== undefined) {
      for (const select of document.querySelectorAll("[data-accuracy]")) select.value = event.target.value;
      show();
    }
  });
  document.addEventListener("dragover", event => {
    event.preventDefault();
    document.body.classList.add("dragged");
  });
  for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => document.body.classList.remove("dragged"));
  document.addEventListener("drop", event => {
    event.preventDefault();
    add([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", event => add([...event.clipboardData.files]));

  report.spoken.push(retell);
  say("opening");
  model.open().then(model.verify).then(found => {
    if (!found.holds) warning = ["check_failed", { probability: found.probability.toExponential(1), others: found.others }];
    isBusy = false;
    say("ready");
    retell();
    document.documentElement.dataset.ready = found.holds ? "yes" : "wrong";
    work();
  }).catch(error => {
    console.error(error);
    warning = ["cannot_open", { reason: `${error.message ?? error}` }];
    note = null;
    find("[data-status]").textContent = "";
    retell();
    document.documentElement.dataset.ready = "no";
  });
})();
