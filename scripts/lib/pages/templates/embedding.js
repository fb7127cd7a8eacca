// The map of the images: point at an image to see it, choose classes in the list, walk by the arrow keys.
"use strict";
(() => {
  const find = name => document.getElementById(name);
  const { points, classes, words } = JSON.parse(find("data").textContent);
  const map = find("map"), tooltip = find("tooltip"), picture = tooltip.querySelector("img");
  const lines = [...tooltip.querySelectorAll("p")], wrongOnly = find("wrong");
  const marks = [...map.querySelectorAll("[data-i]")].sort((a, b) => a.dataset.i - b.dataset.i);
  const names = [...map.querySelectorAll("text")], buttons = [...find("legend").querySelectorAll("button")];
  const chosen = new Set();
  let current = -1;
  for (const mark of marks) mark.querySelector("title").remove();  // the tooltip shows it

  function isShown(i) {
    const [, label, prediction] = points[i];
    return (!chosen.size || chosen.has(label)) && (!wrongOnly.checked || label !== prediction);
  }
  function hide() {
    if (current >= 0) marks[current].classList.remove("on");
    tooltip.hidden = true;  // the arrow keys go on from here all the same
  }
  function show(i) {
    hide();
    const [file, label, prediction, confidence, image] = points[i];
    current = i;
    marks[i].classList.add("on");
    picture.hidden = !image;
    if (image) picture.src = "data:image/webp;base64," + image; else picture.removeAttribute("src");
    [file, words["true class: "] + classes[label],
     words["predicted: "] + classes[prediction] + (label === prediction ? "" : words[" (wrong)"]),
     words["confidence: "] + confidence].forEach((text, line) => { lines[line].textContent = text; });
    tooltip.hidden = false;
    place();
  }
  function place() {
    if (tooltip.hidden) return;
    const at = marks[current].getBoundingClientRect(), box = tooltip.getBoundingClientRect();
    const right = at.right + 10 + box.width < innerWidth;
    tooltip.style.left = Math.max(4, right ? at.right + 10 : at.left - 10 - box.width) + "px";
    tooltip.style.top = Math.max(4, Math.min(at.top - 20, innerHeight - box.height - 4)) + "px";
  }
  function update() {
    hide();
    marks.forEach((mark, i) => mark.classList.toggle("off", !isShown(i)));
    for (const name of names) name.classList.toggle("off", chosen.size > 0 && !chosen.has(+name.dataset.c));
    for (const button of buttons) button.setAttribute("aria-pressed", chosen.has(+button.dataset.c));
    find("all").disabled = !chosen.size;
  }

  map.addEventListener("pointerover", event => {
    const mark = event.target.closest("[data-i]");
    if (mark) show(+mark.dataset.i); else hide();
  });
  map.addEventListener("pointerleave", hide);
  map.addEventListener("blur", hide);
  map.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    let next = current < 0 ? (step > 0 ? -1 : points.length) : current;
    do next += step; while (next >= 0 && next < points.length && !isShown(next));
    if (next >= 0 && next < points.length) show(next);
  });
  find("legend").addEventListener("click", event => {
    const button = event.target.closest("button");
    if (!button) return;
    const c = +button.dataset.c, was = chosen.has(c);
    if (!event.shiftKey) chosen.clear();
    if (was) chosen.delete(c); else chosen.add(c);
    update();
  });
  find("all").addEventListener("click", () => { chosen.clear(); update(); });
  wrongOnly.addEventListener("change", update);
  find("filter").addEventListener("input", event => {
    const text = event.target.value.toLowerCase();
    for (const button of buttons)
      button.parentNode.hidden = !classes[+button.dataset.c].toLowerCase().includes(text);
  });
  addEventListener("scroll", place, { passive: true });
  map.setAttribute("tabindex", "0");
  find("tools").hidden = false;
  update();
})();
