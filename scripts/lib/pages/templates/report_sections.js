// The sections of report.html that show one run: texts, pictures and plots of it.
"use strict";
report.sections = (() => {
  const { bold, data, element, errorFigure, fill, find, labelled, name, percent, plots, run, table, title, word } = report;
  const chosen = { label: 0, predicted: 0 };
  const choice = key => find(`[data-choice=${key}]`).value;

  // Replace a plot; what it returned before goes.
  function put(key, draw) {
    const box = find(`[data-plot=${key}]`);
    box.replaceChildren(draw(box));
  }
  const say = (key, ...texts) => {
    const box = find(`[data-text=${key}]`);
    const space = report.state.language === "zh" ? "" : " ";
    box.replaceChildren(...texts.map(text => box.tagName === "P" ? text + space : element("li", {}, text)));
  };

  function leaderboard() {
    put("leaderboard", plots.leaderboard);
  }

  function suspects() {
    const gallery = find("[data-gallery=suspects]");
    if (!gallery) return;
    const [images, suggested] = ["images", "suggested"].map(key => gallery.dataset[key].split(" ").map(Number));
    fill(gallery, images.map((image, i) => () => element("figure", { class: "small" },
      labelled(image, bold(word("label"), name(data.labels[image])), bold(word("may_be"), name(suggested[i])),
        element("span", { class: "file" }, data.files[image])))), 12);
  }

  function matrix() {
    const { n_errors: wrong, tested: n } = run();
    say("errors", title(run()) + ":", word("errors_of", { wrong, n }),
      data.classes.length > 40 ? word("most_confused_shown", { n: 40, all: data.classes.length }) : "");
    const confusions = run().matrix.filter(([label, predicted]) => label !== predicted).sort((a, b) => b[2] - a[2]);
    const rows = confusions.slice(0, 30).map(([label, predicted, n]) => {
      const button = element("button", { type: "button", class: "link" }, name(label));
      button.addEventListener("click", () => choose(label, predicted, true));
      return [button, name(predicted), `${n}`];
    });
    find("[data-table=confusions]").replaceChildren(table(word("misclassified"),
      [word("true_class"), word("predicted_class"), word("images")], rows, [2]));
    put("matrix", box => plots.matrix(box, (label, predicted) => choose(label, predicted, true)));
    const [first] = confusions;
    choose(...(first ?? [0, 0]).slice(0, 2));
  }

  // Show the pictures of a cell of the matrix.
  function choose(label, predicted, scroll = false) {
    chosen.label = label;
    chosen.predicted = predicted;
    find("[data-cell=label]").value = label;
    find("[data-cell=predicted]").value = predicted;
    const n = run().matrix.find(([t, p]) => t === label && p === predicted)?.[2] ?? 0;
    const values = { n, true: name(label), predicted: name(predicted) };
    let makers;
    if (label === predicted) {
      const wrong = new Set([...run().errors.map(([image]) => image), ...run().unlisted]);
      const tested = run().images ?? data.files.slice(0, data.tested).map((_, image) => image);
      makers = tested.filter(image => data.labels[image] === label && !wrong.has(image))
        .sort((a, b) => (data.pictureOf[a] < 0) - (data.pictureOf[b] < 0))
        .map(image => () => element("figure", { class: "small" },
          labelled(image, element("span", { class: "file" }, data.files[image]))));
    } else {
      makers = run().errors.filter(([image, p]) => p === predicted && data.labels[image] === label)
        .map(error => () => errorFigure(error));
    }
    const words = n === 0 ? "cell_none" : label === predicted ? "cell_right" : "cell";
    say("cell", word(words, values) + (makers.length < n ? `; ${word("shown_of", { shown: makers.length })}` : ""));
    fill(find("[data-gallery=cell]"), makers, 12);
    if (scroll) find("[data-text=cell]").scrollIntoView({ block: "nearest" });
  }

  function confused() {
    const { pair, n_errors: errors, classes } = run();
    const gallery = find("[data-gallery=pair]");
    if (!pair) {
      say("pair", word("pair_none"));
      return gallery.replaceChildren();
    }
    const { first, second, there, back, examples } = pair, all = there + back;
    const names = { first: name(first), second: name(second) };
    const lines = [word("pair", { ...names, there, back, sum: all, errors })];
    if (pair.equal) lines.push(word("pair_equal", { n: pair.equal }));
    if (pair.rank !== null) lines.push(word("why_rank", { rank: pair.rank, pairs: pair.pairs }));
    if (pair.second_choice) lines.push(word("why_close", { n: pair.second_choice, all }));
    if (pair.confident) lines.push(word("why_confident", { n: pair.confident, all }));
    if (pair.suspects) lines.push(word("why_suspects", { n: pair.suspects, all }));
    if (classes[first][1] !== null)
      lines.push(word("why_trained", { ...names, n_first: classes[first][1], n_second: classes[second][1] }));
    lines.push(word(pair.suspects * 2 > all ? "todo_labels" : "todo_images"));
    say("pair", ...lines);
    fill(gallery, examples.map(example => () => element("figure", { class: "wrong" },
      element("div", { class: "group" },
        labelled(example.image, bold(word("predicted"), name(example.predicted), ` ${percent(example.confidence)}`),
          bold(word("label"), name(data.labels[example.image]), ` ${percent(example.of_label)}`)),
        ...example.like.map(image => labelled(image, word("like_predicted", { name: name(data.labels[image]) })))),
      element("figcaption", { class: "file" }, data.files[example.image]))));
  }

  function errors() {
    const { errors: listed, n_errors: wrong, tested: n } = run();
    say("error_count", ...(wrong ? [word("errors_of", { wrong, n }), word("confident_first")] : [word("no_errors", { n })]),
      listed.length < wrong ? word("listed_errors", { n: listed.length }) : "");
    fill(find("[data-gallery=errors]"), listed.map(error => () => errorFigure(error)));
  }

  function classes() {
    const rows = run().classes.map(([n, trained, precision, recall, low, high, f1], label) =>
      ({ label, n, trained, precision, recall, low, high, f1 })).filter(row => row.n > 0);
    const orders = { recall: (a, b) => a.recall - b.recall || a.f1 - b.f1, f1: (a, b) => a.f1 - b.f1,
      n: (a, b) => a.n - b.n, name: (a, b) => name(a.label).localeCompare(name(b.label), report.state.language) };
    find("[data-choice=many]").parentNode.hidden = rows.length <= 40;
    rows.sort(orders[choice("order")]);
    put("classes", box => plots.classes(box, choice("many") === "all" ? rows : rows.slice(0, 40)));
    const header = ["class", "recall", "interval", "precision", "f1", "test_images", "train_images"].map(key => word(key));
    find("[data-table=classes]").replaceChildren(table(word("recall"), header, rows.map(row => [name(row.label),
      percent(row.recall), `${percent(row.low)} \u2013 ${percent(row.high)}`, percent(row.precision), percent(row.f1),
      `${row.n}`, `${row.trained ?? "-"}`]), [1, 2, 3, 4, 5, 6]));
  }

  function calibration() {
    const { before, after, temperature, confidence, accuracy } = run().calibration;
    const gap = confidence - accuracy, [, low, high] = run().metrics.accuracy_top1;
    // Inside the interval of the accuracy nothing is claimed wrongly that the test images could show.
    const verdict = confidence > high ? "over" : confidence < low ? "under" : "fair";
    say("calibration", word("calibration", { confidence: percent(confidence), accuracy: percent(accuracy), ece: percent(before.ece) }),
      Math.abs(gap) < before.ece / 2 && verdict === "fair" && before.ece > 0.05 ? "" : word(verdict),
      after ? word("calibration_scaled", { t: temperature.toFixed(2), ece: percent(after.ece) }) : "");
    put("calibration", plots.calibration);
  }

  function curves() {
    for (const option of find("[data-choice=curve]").options)
      option.hidden = !data.runs.some(one => one.curve[option.value].some(value => value !== null));
    put("curves", box => plots.curves(box, choice("curve")));
  }

  function gradcam() {
    const { explained, explained_elsewhere: elsewhere, folder } = run();
    const file = `${folder}/figures/gradcam.html`;
    say("gradcam", explained.length ? title(run()) : word(elsewhere ? "explained_elsewhere" : "not_explained", { file }));
    fill(find("[data-gallery=gradcam]"), explained.map(([image, maps]) => () =>
      element("figure", { class: maps.some(([kind]) => kind === "true") ? "wrong" : null },
        element("div", { class: "group" }, labelled(image, bold(word("label"), name(data.labels[image]))),
          ...maps.map(([kind, label, uri]) => {
            const text = word("explained", { name: name(label) });
            return element("div", { class: "picture" }, element("img", { src: uri, alt: text, decoding: "async" }),
              element("p", {}, kind === "predicted" ? bold(word("predicted"), name(label))
                : kind === "true" ? bold(word("label"), name(label)) : text));
          })),
        element("figcaption", { class: "file" }, data.files[image]))), 8);
  }

  function map() {
    const list = find("[data-choice=map_class]");
    if (list.options.length === 1) list.append(...data.classes.map((text, label) => element("option", { value: label }, text)));
    const { map: points, errors: listed, unlisted } = run();
    const errors = new Map([...unlisted.map(image => [image, null]), ...listed.map(error => [error[0], error])]);
    const tip = find("[data-tip=map]");
    tip.replaceChildren();
    say("map", points.length ? "" : word("not_mapped"));
    if (!points.length) return find("[data-plot=map]").replaceChildren();
    const only = +list.value, wrongOnly = choice("map_wrong") === "wrong";
    const shown = points.filter(([image]) => (only < 0 || data.labels[image] === only) && (!wrongOnly || errors.has(image)))
      .map(([image, x, y]) => ({ image, x, y, label: data.labels[image],
        isWrong: errors.has(image), error: errors.get(image) }));
    put("map", box => plots.map(box, points, shown, point => tip.replaceChildren(point.error ? errorFigure(point.error)
      : element("figure", {}, labelled(point.image, bold(word("label"), name(point.label)),
        element("span", { class: "file" }, data.files[point.image]))))));
  }

  return { choose, chosen, draw: { leaderboard, data: suspects, matrix, confused, errors, classes, calibration, curves, gradcam, map } };
})();
