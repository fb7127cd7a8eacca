// The page of make serve: it asks the server every few seconds how far the runs are, and changes what has changed.
"use strict";
(() => {
  const { data, element, find, percent, plots, state, title, word } = report;
  const PAUSE = 3000, PATIENCE = 15000;  // milliseconds between two questions, and for an answer
  let now = null, version = "", chosen = null, trouble = null, timer = 0;
  let dataset = data.dataset;
  // The folder of the server, below which each data set has one.
  const root = location.pathname.split("/").slice(0, 2).join("/");
  const folder = name => name ? `${root}/${encodeURIComponent(name)}/` : `${root}/`;

  async function ask(name) {
    const answer = await fetch(folder(dataset) + name, { signal: AbortSignal.timeout(PATIENCE) });
    if (answer.status === 403) return tell("another");
    if (!answer.ok) return tell("failing", { reason: (await answer.text()).trim() || `${answer.status}` });
    return answer.json();
  }

  async function look() {
    try {
      const answer = await ask("now.json");
      if (!answer) return;
      if (answer.final) return location.replace(folder(answer.dataset));
      dataset = answer.dataset;
      if (answer.curves !== version) {
        const runs = await ask("curves.json");
        if (!runs) return;
        data.runs = runs;
        version = answer.curves;
        drawCurves();
      }
      now = answer;
      trouble = null;
      show();
    } catch {
      if (trouble?.key !== "lost") tell("lost", { time: now?.time ?? new Date().toLocaleTimeString("en-GB") });
    }
  }

  // Ask again and again, but not for nobody: a page in the background rests.
  async function follow() {
    clearTimeout(timer);
    if (document.hidden) return;
    await look();
    timer = setTimeout(follow, PAUSE);
  }
  document.addEventListener("visibilitychange", follow);
  addEventListener("online", follow);

  function tell(key, values = {}) {
    trouble = { key, values };
    show();
  }

  // -- what is shown --------------------------------------------------------------------------------------------------

  // Only what is new is written, so that a screen reader does not say the same again and a selection stays.
  function say(key, text) {
    const box = find(`[data-text=${key}]`);
    if (box.textContent !== text) box.textContent = text;
  }

  function show() {
    say("connection", trouble ? word(trouble.key, trouble.values) : "");
    if (!now) return;
    say("dataset", dataset || "mimflow");
    document.title = dataset ? `${dataset}: mimflow` : "mimflow";
    const counts =
      Object.entries(now.counts).map(([name, n]) => word("counted", { n, state: word(`state ${name}`) })).join(word("comma"));
    say("summary", now.complete ? word("done_without") : counts || word("nothing"));
    const controller = now.controller ? word("controller", { who: now.controller }) : word("no_controller");
    say("source", word("at", { time: now.time, controller }));
    showLinks();
    rows("runs", now.runs.map(run => {
      const [val, loss, rate, elapsed, left, silent] = run.numbers;
      const epochs = run.epochs ? ` (${word("epochs", { done: run.epochs[0], all: run.epochs[1] })})` : "";
      return { key: run.key, kind: run.kind, cells: [run.experiment, run.which, word(`state ${run.state}`) + epochs, left,
        progress(run), val, loss, rate, elapsed, silent] };
    }));
    list("problems", now.problems.length ? now.problems.map(texts => ["wrong", texts[state.language]]) : [["", word("all_well")]]);
    rows("leaderboard", now.board.map(row => ({ key: row.experiment, kind: "", cells: [row.experiment,
      `${row.done} / ${row.runs}`, percent(row.val), percent(row.test)] })));
  }

  function progress(run) {
    const bar = element("progress", { max: 1, value: run.fraction ?? 0, "aria-label": word("progress_of", { name: run.key }) });
    return element("span", {}, bar, ` ${run.fraction === null ? "-" : percent(run.fraction, 0)}`);
  }

  function showLinks() {
    const others = now.datasets.filter(name => name !== dataset);
    find("[data-text=others]").hidden = !others.length;
    const links = find("[data-list=datasets]");
    if (links.dataset.names !== others.join()) {
      links.dataset.names = others.join();
      links.replaceChildren(...others.flatMap(name => [" ", element("a", { href: folder(name) }, name)]));
    }
    const link = find("[data-link=report]");
    link.hidden = !now.report;
    link.href = `${folder(dataset)}report.html`;
  }

  // Bring a table up to date: rows and cells that are as they were stay.
  function rows(section, wanted) {
    const body = find(`#${state.language}-${section} tbody`), names = [...body.parentNode.tHead.rows[0].cells];
    const there = new Map([...body.rows].map(row => [row.dataset.key, row]));
    wanted.forEach(({ key, kind, cells }, index) => {
      const row = there.get(key) ?? element("tr", { "data-key": key }, ...names.map((head, i) =>
        i ? element("td", { class: head.className || null }) : element("th", { scope: "row" })));
      there.delete(key);
      if (row.className !== kind) row.className = kind;
      if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
      cells.forEach((content, i) => {
        const cell = row.cells[i], markup = content.outerHTML ?? null;
        if (markup === null ? cell.textContent !== content : cell.innerHTML !== markup) cell.replaceChildren(content);
      });
    });
    for (const row of there.values()) row.remove();
  }

  function list(name, wanted) {
    const box = find(`[data-list=${name}]`);
    if (wanted.length === box.children.length && wanted.every(([, text], i) => box.children[i].textContent === text)) return;
    box.replaceChildren(...wanted.map(([kind, text]) => element("li", { class: kind || null, lang: kind ? "en" : null }, text)));
  }

  // -- the curves -----------------------------------------------------------------------------------------------------

  function drawCurves() {
    const select = find("[data-choice=run]");
    // The run that somebody chose, else the one that trains, or the last of them.
    const wanted = data.runs.findIndex(run => title(run) === chosen), training = data.runs.findLastIndex(run => run.is_training);
    state.run = wanted >= 0 ? wanted : training >= 0 ? training : data.runs.length - 1;
    select.replaceChildren(...data.runs.map((run, i) => element("option", { value: i }, title(run))));
    select.value = state.run;
    select.parentNode.hidden = data.runs.length < 2;
    const box = find("[data-plot=curves]"), column = find("[data-choice=curve]").value;
    const hasValues = data.runs.some(run => run.curve[column].some(value => value !== null));
    say("curves", data.runs.length === 0 ? word("waiting_for_epoch") : hasValues ? "" : word("no_values"));
    box.replaceChildren(...(hasValues ? [plots.curves(box, column)] : []));
  }

  document.addEventListener("change", event => {
    const { choice } = event.target.dataset;
    if (choice === "run") chosen = title(data.runs[event.target.value]);
    if (choice) drawCurves();
  });
  report.spoken.push(() => {
    show();
    drawCurves();
  });
  let wait = 0;
  addEventListener("resize", () => {
    clearTimeout(wait);
    wait = setTimeout(drawCurves, 200);
  });

  report.speak(data.language ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
  document.documentElement.dataset.ready = "yes";
  follow();
})();
