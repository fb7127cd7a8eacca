// The plots of report.html, drawn by Observable Plot; each returns an element for its figure.
"use strict";
report.plots = (() => {
  const { data, element, name, percent, run, short, state, title, word } = report;
  // Okabe & Ito (2008): told apart with every kind of colour blindness, on white and on black.
  const BLUE = "var(--accent)", ORANGE = "#d55e00", GREY = "#8a8a8a";
  const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#8a8a8a", "#f0e442"];
  const SIZES = { most: 1000, least: 320 };
  const axis = { style: { fontFamily: "inherit", fontSize: "13px", background: "none", overflow: "visible" } };
  const width = box => Math.max(SIZES.least, Math.min(SIZES.most, box.clientWidth || 640));

  // Columns that a name takes on an axis, in pixels; Chinese characters are twice as wide.
  const columns = text => [...text].reduce((sum, char) => sum + (char > "\u2e80" ? 2 : 1), 0);
  const middle = (text, most, half = most >> 1) => [...text].length > most
    ? `${[...text].slice(0, half).join("")}\u2026${[...text].slice(1 + half - most).join("")}` : text;
  const margin = names => 24 + 7 * Math.max(...names.map(columns), 4);

  function plot(box, label, options) {
    const drawn = Plot.plot({ width: width(box), ...options, style: { ...axis.style, ...options.style } });
    // Inside an image, groups have no names of their own for a screen reader.
    for (const group of drawn.querySelectorAll("[aria-label]")) {
      group.dataset.mark = group.getAttribute("aria-label");
      group.removeAttribute("aria-label");
    }
    drawn.setAttribute("role", "img");
    drawn.setAttribute("aria-label", label);
    return drawn;
  }

  // What stands for what in a plot, as [shape, colour, text]; in HTML, whose font has the characters of every language.
  const SHAPES = { bar: "M1 2h18v10H1z", dash: "M0 7h5M7.5 7h5M15 7h5", diamond: "M10 1l5 6l-5 6l-5 -6z",
    dot: "M5 7a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z", line: "M0 7h20" };
  // Without a shape it is a text alone.
  function withLegend(drawn, ...entries) {
    const items = entries.filter(Boolean).map(([shape, colour, text, line = colour]) => {
      if (!shape) return element("li", {}, text);
      const svg = d3.create("svg").attr("viewBox", "0 0 20 14").attr("width", 20).attr("aria-hidden", "true");
      svg.append("path").attr("d", SHAPES[shape]).attr("fill", colour).attr("stroke", line).attr("stroke-width", 2);
      return element("li", {}, svg.node(), text);
    });
    return element("div", {}, drawn, element("ul", { class: "legend" }, ...items));
  }

  function leaderboard(box) {
    const rows = data.board;
    const points = data.runs.map(one => ({ experiment: one.experiment, value: one.metrics.accuracy_top1[0], run: one }))
      .filter(point => rows.some(row => row.experiment === point.experiment));
    // On a phone the intervals need the room: what tells long names apart is often at their end.
    const most = Math.max(14, Math.min(34, Math.floor(width(box) / 22))), label = text => middle(text, most);
    const text = row => `${row.experiment}\n${percent(row.mean)}\n${word("interval")}: ${percent(row.low)} \u2013 ${percent(row.high)}`;
    const low = Math.min(...rows.map(row => row.low), ...points.map(point => point.value)), least = Math.max(0, 100 * low - 3);
    const floor = data.floor !== null && 100 * data.floor >= least;
    return withLegend(plot(box, word("alt_leaderboard"), {
      height: 70 + 34 * rows.length, marginLeft: margin(rows.map(row => label(row.experiment))), marginRight: 24, marginBottom: 40,
      x: { label: `${word("accuracy")}, %`, percent: true, grid: true, nice: true, domain: [least, 100] },
      y: { label: null, domain: rows.map(row => row.experiment), tickFormat: label },
      marks: [
        floor ? Plot.ruleX([data.floor], { stroke: GREY, strokeDasharray: "4 3" }) : null,
        Plot.ruleY(rows, { y: "experiment", x1: "low", x2: "high", stroke: BLUE, strokeWidth: 3 }),
        Plot.dot(points, { y: "experiment", x: "value", r: 3.5, stroke: "currentColor",
          title: point => `${title(point.run)}: ${percent(point.value)}` }),
        Plot.dot(rows, { y: "experiment", x: "mean", r: 6, fill: BLUE, symbol: "diamond" }),
        Plot.tip(rows, Plot.pointerY({ y: "experiment", x: "mean", title: text, fill: "var(--panel)", ariaLabel: null })),
      ],
    }), ["diamond", BLUE, word("mean_of_runs")], ["line", BLUE, word("interval")], ["dot", "none", word("one_run"), "currentColor"],
    floor && ["dash", GREY, word("floor")]);
  }

  // The classes that are drawn, in their order: all, or those with the most confusions.
  const DRAWN = 40;
  function drawnClasses() {
    const confusions = data.classes.map(() => 0);
    for (const [label, predicted, n] of run().matrix) if (label !== predicted) {
      confusions[label] += n;
      confusions[predicted] += n;
    }
    const order = data.classes.map((_, label) => label).sort((a, b) => confusions[b] - confusions[a] || a - b);
    return order.slice(0, DRAWN).sort((a, b) => a - b);
  }

  function matrix(box, choose) {
    const drawn = drawnClasses(), kept = new Set(drawn);
    const totals = data.classes.map(() => 0);
    for (const [label, , n] of run().matrix) totals[label] += n;
    const cells = run().matrix.filter(([label, predicted]) => kept.has(label) && kept.has(predicted))
      .map(([label, predicted, n]) => ({ label, predicted, n, share: n / totals[label] }));
    const names = new Map(drawn.map(label => [label, short(name(label), 16)]));
    const room = margin([...names.values()]) + 20, wanted = Math.max(SIZES.least, room + 62 * drawn.length);
    // Where names would be too small to read, as on a phone, the plot is moved sideways.
    const size = Math.max(Math.min(width(box), wanted), room + 11 * drawn.length), isWide = size > width(box);
    const cell = (size - room - 10) / drawn.length;
    const svg = plot(box, word("alt_matrix"), {
      width: size, height: size - 10, marginLeft: room, marginBottom: room, marginTop: 10, marginRight: 10, padding: 0.04,
      x: { domain: drawn, tickFormat: label => names.get(label), tickRotate: -90,
        label: word("predicted_class"), labelAnchor: "center", labelArrow: "none" },
      y: { domain: drawn, tickFormat: label => names.get(label), label: word("true_class"), labelAnchor: "center",
        labelArrow: "none" },
      color: { type: "sqrt", domain: [0, 1], scheme: "blues" },
      style: { fontSize: `${Math.max(7, Math.min(13, cell * 0.8))}px`, maxWidth: isWide ? "none" : "100%" },
      marks: [
        Plot.frame({ stroke: GREY }),
        Plot.cell(cells, { x: "predicted", y: "label", fill: "share", className: "hit",
          title: c => `${word("true_class")}: ${name(c.label)}\n${word("predicted_class")}: ${name(c.predicted)}\n${word("images_count", { n: c.n })} (${percent(c.share)})` }),
        cell < 14 ? null : Plot.text(cells, { x: "predicted", y: "label", text: c => `${c.n}`, pointerEvents: "none",
          fill: c => c.share > 0.3 ? "white" : "black", fontSize: Math.min(13, cell / 2) }),
      ],
    });
    d3.select(svg).selectAll("rect").filter(function () { return this.parentNode.dataset.mark === "cell"; })
      .classed("hit", true).on("click", (_, index) => choose(cells[index].label, cells[index].predicted));
    box.parentNode.tabIndex = isWide ? 0 : -1;
    return svg;
  }

  function classes(box, rows) {
    const names = new Map(rows.map(row => [row.label, short(name(row.label))]));
    const accuracy = run().metrics.accuracy_top1[0];
    return withLegend(plot(box, word("alt_classes"), {
      height: 60 + 22 * rows.length, marginLeft: margin([...names.values()]), marginRight: 60, marginBottom: 40,
      x: { label: `${word("recall")}, %`, percent: true, domain: [0, 100], grid: true },
      y: { domain: rows.map(row => row.label), tickFormat: label => names.get(label), label: null },
      marks: [
        Plot.barX(rows, { y: "label", x: "recall", fill: BLUE, fillOpacity: 0.55, insetTop: 2, insetBottom: 2 }),
        Plot.ruleY(rows, { y: "label", x1: "low", x2: "high", stroke: "currentColor", strokeWidth: 1.5 }),
        Plot.dot(rows, { y: "label", x: "f1", symbol: "diamond", fill: ORANGE, r: 4, clip: false }),
        Plot.ruleX([accuracy], { stroke: "currentColor", strokeDasharray: "5 4" }),
        Plot.text(rows, { y: "label", x: () => 1, text: row => `n = ${row.n}`, textAnchor: "start", dx: 8, fontSize: 11 }),
        Plot.tip(rows, Plot.pointerY({ y: "label", x: "recall", fill: "var(--panel)", ariaLabel: null, title: row =>
          `${name(row.label)}\n${word("recall")}: ${percent(row.recall)} (${percent(row.low)} \u2013 ${percent(row.high)})\nF1: ${percent(row.f1)}\n${word("precision")}: ${percent(row.precision)}\n${word("test_images")}: ${row.n}` })),
      ],
    }), ["bar", BLUE, word("recall")], ["line", "currentColor", word("recall_interval")], ["diamond", ORANGE, "F1"],
    ["dash", "currentColor", word("accuracy_of_all")], ["", "", `n: ${word("test_images")}`]);
  }

  function calibration(box) {
    const { before, after } = run().calibration;
    const points = [[before, word("as_is")], [after, word("scaled")]].filter(([bins]) => bins)
      .flatMap(([bins, kind]) => bins.bins.map(([n, confidence, right, low, high]) => ({ kind, n, confidence, right, low, high })));
    const side = Math.min(560, width(box)), colours = ["#0072b2", ORANGE];
    return withLegend(plot(box, word("alt_calibration"), {
      width: side, height: side * 0.85, marginLeft: 56, marginBottom: 44, marginRight: 28, marginTop: 32,
      color: { domain: [word("as_is"), word("scaled")], range: colours },
      x: { label: `${word("confidence")}, %`, percent: true, domain: [0, 100], grid: true },
      y: { label: `${word("bin_accuracy")}, %`, percent: true, domain: [0, 100], grid: true },
      marks: [
        Plot.line([[0, 0], [1, 1]], { stroke: GREY, strokeDasharray: "5 4" }),
        Plot.ruleX(points, { x: "confidence", y1: "low", y2: "high", stroke: "kind", strokeOpacity: 0.6 }),
        Plot.line(points, { x: "confidence", y: "right", stroke: "kind", z: "kind" }),
        Plot.dot(points, { x: "confidence", y: "right", r: "n", fill: "kind", fillOpacity: 0.75 }),
        Plot.tip(points, Plot.pointer({ x: "confidence", y: "right", fill: "var(--panel)", ariaLabel: null, title: p =>
          `${p.kind}\n${word("confidence")}: ${percent(p.confidence)}\n${word("bin_accuracy")}: ${percent(p.right)} (${percent(p.low)} \u2013 ${percent(p.high)})\n${word("images_count", { n: p.n })}` })),
      ],
    }), ["dot", colours[0], word("as_is")], after && ["dot", colours[1], word("scaled")], ["line", GREY, word("bin_interval")],
    ["dash", GREY, word("calibrated")]);
  }

  function curves(box, column) {
    const points = data.runs.flatMap((one, index) => one.curve.epoch.map((epoch, i) =>
      ({ index, epoch, value: one.curve[column][i], kept: epoch === one.kept })).filter(point => point.value !== null));
    const shown = points.filter(point => point.index === state.run), share = column === "val_accuracy";
    const text = value => share ? percent(value) : value.toFixed(3);
    // Of more experiments than there are colours that differ well, only the chosen run has one.
    const experiments = [...new Set(data.runs.map(one => one.experiment))], areTold = experiments.length <= 6;
    const colour = index => COLOURS[experiments.indexOf(data.runs[index].experiment)];
    const ofChosen = areTold && shown.length ? colour(state.run) : BLUE;
    return withLegend(plot(box, word("alt_curves"), {
      height: 360, marginLeft: 56, marginBottom: 44, marginRight: 20,
      x: { label: word("epoch"), grid: true, tickFormat: epoch => Number.isInteger(epoch) ? `${epoch}` : "" },
      y: { label: `${word(column)}${share ? ", %" : ""}`, percent: share, grid: true, nice: true },
      marks: [
        Plot.line(points, { x: "epoch", y: "value", z: "index", strokeWidth: 1.2,
          stroke: areTold ? point => colour(point.index) : GREY, strokeOpacity: areTold ? 0.8 : 0.55 }),
        Plot.line(shown, { x: "epoch", y: "value", stroke: ofChosen, strokeWidth: 3.5 }),
        Plot.dot(shown.filter(point => point.kept), { x: "epoch", y: "value", fill: ofChosen, stroke: "currentColor", strokeWidth: 2, r: 6 }),
        Plot.dot(points, { x: "epoch", y: "value", r: 1.5, fill: areTold ? point => colour(point.index) : GREY }),
        Plot.tip(points, Plot.pointer({ x: "epoch", y: "value", fill: "var(--panel)", ariaLabel: null, title: point =>
          `${title(data.runs[point.index])}\n${word("epoch")} ${point.epoch}: ${text(point.value)}${point.kept ? `\n${word("kept_epoch")}` : ""}` })),
      ],
    }), ...(areTold ? experiments.map((experiment, i) => ["line", COLOURS[i], experiment]) : []),
    shown.some(point => point.kept) && ["dot", ofChosen, word("kept_epoch"), "currentColor"]);
  }

  // Names at these places of a map, moved where they would leave its frame or lie on one another.
  function placed(names, x, y) {
    const LINE = 16, HALF_COLUMN = 4.2, moved = [];
    for (const one of d3.sort(names, one => y(one.y))) {
      const half = HALF_COLUMN * columns(one.text), [left, right] = x.range();
      const at = { half, x: Math.max(left + half, Math.min(right - half, x(one.x))), y: y(one.y) };
      // Those above have their places.
      for (const other of moved)
        if (Math.abs(at.x - other.x) < half + other.half && Math.abs(at.y - other.y) < LINE) at.y = other.y + LINE;
      moved.push(at);
      [one.x, one.y] = [x.invert(at.x), y.invert(at.y)];
    }
    return names;
  }

  // Of many classes some share a colour, as on the run's own page; so many have their name among their images.
  const NAMED = 16;
  function map(box, all, shown, tell) {
    const [xs, ys] = [1, 2].map(axis => d3.extent(all, point => point[axis]));
    const size = Math.min(720, width(box)), fill = point => COLOURS[point.label % COLOURS.length];
    const height = size * 0.75, [margin, inset] = [12, 8], edge = margin + inset;
    const labels = data.classes.length > NAMED ? [] : placed(d3.groups(shown, point => point.label).map(([label, points]) =>
      ({ text: short(name(label)), x: d3.median(points, point => point.x), y: d3.median(points, point => point.y) })),
    d3.scaleLinear(xs, [edge, size - edge]), d3.scaleLinear(ys, [edge, height - edge]));
    const [right, wrong] = [shown.filter(point => !point.isWrong), shown.filter(point => point.isWrong)];
    const drawn = plot(box, word("alt_map"), {
      width: size, height, margin, inset,
      x: { domain: xs, axis: null }, y: { domain: ys, axis: null, reverse: true },
      marks: [
        Plot.frame({ stroke: GREY }),
        Plot.dot(right, { x: "x", y: "y", fill, r: shown.length > 600 ? 3 : 4 }),
        Plot.dot(wrong, { x: "x", y: "y", fill, symbol: "diamond", stroke: "currentColor", strokeWidth: 1.5, r: 6 }),
        Plot.text(labels, { x: "x", y: "y", text: "text", fill: "currentColor", stroke: "var(--back)",
          strokeWidth: 5, fontWeight: 600, fontSize: 13, pointerEvents: "none" }),
      ],
    });
    d3.select(drawn).selectAll("[data-mark=dot]").data([right, wrong].filter(points => points.length)).each(function (points) {
      d3.select(this).selectAll("*").classed("hit", true).on("pointerenter click", (_, index) => tell(points[index]));
    });
    return withLegend(drawn, ["dot", GREY, word("correct")], ["diamond", GREY, word("misclassified"), "currentColor"]);
  }

  return { calibration, classes, curves, leaderboard, map, matrix };
})();
