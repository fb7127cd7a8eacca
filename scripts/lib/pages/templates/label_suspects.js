// The labels that may be wrong: decide by mouse or keys, and save the decisions as corrections.csv.
"use strict";
(() => {
  const find = name => document.getElementById(name);
  if (!find("data")) return;
  const { columns, classes, earlier } = JSON.parse(find("data").textContent);
  const articles = [...document.querySelectorAll("article")], words = find("bar").dataset;
  const actions = ["relabel", "keep", "drop"];
  // The rows of the file that is saved, by what they are about: those that hold already, of this page, of a loaded file.
  const keyOf = row => row.sha256 || row.path;
  const rows = new Map(earlier.map(row => [keyOf(row), row]));
  const isEarlier = new Set(rows.keys());
  let isSaved = true;  // whether the last file that was saved has all of them
  // The path, and not the content: what was decided about an image holds when this page is made again.
  const storage = `mimflow-labels ${location.pathname}`;

  function restore() {
    let kept;
    try { kept = JSON.parse(localStorage.getItem(storage)); } catch { find("kept").hidden = false; }
    if (!kept) return;
    forget();
    for (const row of kept.rows) if (!isEarlier.has(keyOf(row))) rows.set(keyOf(row), row);
    isSaved = kept.isSaved || rows.size === isEarlier.size;
  }
  function keep() {
    const kept = [...rows].filter(([key]) => !isEarlier.has(key)).map(([, row]) => row);
    try { localStorage.setItem(storage, JSON.stringify({ rows: kept, isSaved })); } catch {
      find("kept").hidden = false;  // in a frame, or where the browser keeps nothing
    }
  }
  function forget() {
    for (const key of [...rows.keys()]) if (!isEarlier.has(key)) rows.delete(key);
  }
  function say(text) { find("message").textContent = text; }
  function fill(select) {
    if (select.length > 1) return;
    for (const name of classes) select.add(new Option(name, name));
  }
  function show(article) {
    const { sha256, label, suggested } = article.dataset;
    const { action, new_label: chosen } = rows.get(sha256) || {}, select = article.querySelector("select");
    if (action) article.dataset.action = action; else delete article.dataset.action;
    const pressed = { accept: action === "relabel" && chosen === suggested, keep: action === "keep",
                      drop: action === "drop" };
    for (const button of article.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", pressed[button.dataset.do]);
    }
    const isOther = action === "relabel" && chosen !== suggested && chosen !== label;
    if (isOther) {
      fill(select);
      if (![...select.options].some(option => option.value === chosen)) select.add(new Option(chosen, chosen));
    }
    select.value = isOther ? chosen : "";
  }
  function count() {
    const numbers = { relabel: 0, keep: 0, drop: 0, open: 0 };
    for (const article of articles) numbers[article.dataset.action || "open"] += 1;
    find("counts").textContent = Object.keys(numbers).map(name => `${words[name]} ${numbers[name]}`).join(" · ");
    find("unsaved").hidden = isSaved;
  }
  function changed(isNowSaved) {
    isSaved = isNowSaved;
    count();
    keep();
  }
  function decide(article, action, chosen = "") {
    const { sha256, path, label } = article.dataset;
    if (action === "relabel" && chosen === label) action = "keep";
    if (!action) rows.delete(sha256);
    else rows.set(sha256, { sha256, path, label, new_label: action === "keep" ? label : chosen, action });
    show(article);
    changed(false);
  }
  function act(article, name) {
    if (name === "accept") decide(article, "relabel", article.dataset.suggested);
    else decide(article, name);
  }
  function go(article, step) {
    const next = articles[articles.indexOf(article) + step];
    if (next) { next.focus({ preventScroll: true }); next.scrollIntoView({ block: "nearest" }); }
  }
  function cell(text) {
    return /[",\r\n]/.test(text) || text !== text.trim() ? `"${text.replaceAll('"', '""')}"` : text;
  }
  function table() {
    const lines = [...rows.values()].map(row => columns.map(name => cell(row[name])).join(","));
    return [columns.join(","), ...lines].join("\n") + "\n";
  }
  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
    link.download = "corrections.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    changed(true);
  }
  function cellsOf(text) {
    const lines = [[]];
    let read = 0;
    for (const [all, field, end] of text.matchAll(/("(?:[^"]|"")*"|[^",\r\n]*)(,|\r?\n|\r|$)/gy)) {
      lines.at(-1).push(field.startsWith('"') ? field.slice(1, -1).replaceAll('""', '"') : field);
      if (end !== ",") lines.push([]);
      read += all.length;
    }
    return read === text.length ? lines.filter(line => line.join("")) : [];
  }
  function rowsOf(bytes) {
    let text;
    try { text = new TextDecoder("utf-8", { fatal: true }).decode(bytes); } catch { return null; }
    const [head, ...lines] = cellsOf(text);
    if (!head || head.join() !== columns.join()) return null;
    const loaded = lines.map(line => Object.fromEntries(columns.map((name, index) => [name, line[index]])));
    const isRight = row => columns.every(name => row[name] !== undefined) && keyOf(row) && actions.includes(row.action);
    return loaded.every(isRight) ? loaded : null;
  }
  async function load(file) {
    const loaded = rowsOf(await file.arrayBuffer());
    if (!loaded) {
      say(words.refused.replace("{}", file.name));
      return;
    }
    const bySha256 = new Map(articles.map(article => [article.dataset.sha256, article]));
    const byPath = new Map(articles.map(article => [article.dataset.path, article]));
    let shown = 0;
    for (const row of loaded) {
      const article = row.sha256 ? bySha256.get(row.sha256) : byPath.get(row.path);
      const sha256 = article ? article.dataset.sha256 : row.sha256;
      rows.set(sha256 || row.path, { ...row, sha256 });
      if (article) shown += 1;
    }
    articles.forEach(show);
    changed(rows.size === new Set(loaded.map(keyOf)).size);  // a file with all of them need not be saved again
    say(words.loaded.replace("{}", shown).replace("{}", loaded.length - shown));
  }

  restore();
  for (const article of articles) {
    const select = article.querySelector("select");
    for (const event of ["pointerdown", "focus"]) select.addEventListener(event, () => fill(select));
    select.addEventListener("change", () => decide(article, select.value && "relabel", select.value));
    article.addEventListener("click", event => {
      const button = event.target.closest("button");
      if (button) act(article, button.getAttribute("aria-pressed") === "true" ? "" : button.dataset.do);
    });
    show(article);
  }
  count();
  find("save").addEventListener("click", save);
  find("load").addEventListener("click", () => find("file").click());
  find("file").addEventListener("change", async ({ target }) => {
    await load(target.files[0]);
    target.value = "";  // so that the same file can be loaded again
  });
  find("clear").addEventListener("click", () => {
    if (!confirm(words.forget)) return;
    forget();
    articles.forEach(show);
    changed(true);
  });
  // What another tab decides; and what this page itself wrote just before it was loaded again, which a browser may pass
  // on only after this script has read: so restore() writes nothing.
  window.addEventListener("storage", event => {
    if (event.key !== storage) return;
    restore();
    articles.forEach(show);
    count();
  });
  window.addEventListener("beforeunload", event => {
    if (isSaved) return;
    event.preventDefault();
    event.returnValue = true;  // older browsers ask by this
  });
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    // With an input method for Chinese on, `key` is "Process"; the code names the key.
    const letter = /^[a-z]$/i.test(event.key) ? event.key.toUpperCase() : event.code.replace(/^Key/, "");
    const inSelect = event.target.tagName === "SELECT";
    const article = document.activeElement.closest("article");
    if (letter === "S" && !inSelect) { event.preventDefault(); save(); return; }
    if (letter === "L" && !inSelect) { event.preventDefault(); find("file").click(); return; }
    if (inSelect && event.key === "Escape") { article.focus(); return; }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (inSelect) return;  // its own keys choose
    if (!article) {
      if (step === 1 && articles.length) { event.preventDefault(); articles[0].focus(); }
      return;
    }
    const action = { A: "accept", K: "keep", D: "drop", U: "" }[letter];
    if (step) { event.preventDefault(); go(article, step); }
    else if (letter === "C") { event.preventDefault(); article.querySelector("select").focus(); }
    else if (action !== undefined) {
      event.preventDefault();
      act(article, action);
      if (action) go(article, 1);
    }
  });
})();
