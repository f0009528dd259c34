"use strict";
// Sorting, tooltips and enlarged images. The page says everything without them.

const element = (name, properties) => Object.assign(document.createElement(name), properties);

// Tables: a button in every head cell sorts by its column; cells without a number stay last.

const words = new Intl.Collator("en", { numeric: true });

function sortBy(table, head, column) {
  const down = head.getAttribute("aria-sort") === "ascending";
  const body = table.tBodies[0];
  const key = (row) => {
    const cell = row.cells[column];
    const text = cell.dataset.value;
    if (text === undefined) return cell.textContent;
    return text === "" ? NaN : Number(text);
  };
  const compare = (a, b) => {
    if (typeof a === "string") return down ? words.compare(b, a) : words.compare(a, b);
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return down ? b - a : a - b;
  };
  const rows = [...body.rows].map((row) => [key(row), row]).sort((a, b) => compare(a[0], b[0]));
  body.append(...rows.map(([, row]) => row));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (head.tagName !== "TH") return;
    const button = element("button", { type: "button", textContent: head.textContent });
    button.addEventListener("click", () => sortBy(table, head, column));
    head.replaceChildren(button);
  });
}

// Images: a button around each opens it large; the arrow keys step to its neighbours.

const dialog = document.querySelector("dialog");
const images = [...document.querySelectorAll("main img")];
let current = 0;

function show(index) {
  current = (index + images.length) % images.length;
  const large = images[current].cloneNode();
  large.removeAttribute("width");
  large.removeAttribute("height");
  dialog.querySelector("figure").replaceChildren(large);
  dialog.querySelector("p").textContent = `${large.alt} (${current + 1} of ${images.length})`;
}

function enlarge(image) {
  show(images.indexOf(image));
  dialog.showModal();
}

for (const image of images) {
  const button = element("button", { type: "button", className: "enlarge" });
  button.setAttribute("aria-haspopup", "dialog");
  button.addEventListener("click", () => enlarge(image));
  image.replaceWith(button);
  button.append(image);
}

dialog.addEventListener("click", (event) => {
  const step = event.target.dataset.step;
  if (event.target === dialog || step === "0") dialog.close();
  else if (step) show(current + Number(step));
});

dialog.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) show(current + step);
});

// Charts and the map: one mark of each takes the focus, the arrow keys move it; what is pointed at or focused is told.

const tip = element("div", { className: "tip", hidden: true });
tip.setAttribute("role", "tooltip");
document.body.append(tip);
const named = (role, key) => `${role} ${key}`;
const known = new Map(images.map((image) => [named(image.dataset.role, image.dataset.key), image]));
const texts = new Map();

const imageOf = (mark) => {
  const text = texts.get(mark);
  const role = mark.classList.contains("real") ? "real" : "after";
  return mark.tagName === "circle" ? known.get(named(role, text.slice(text.indexOf(": ") + 2))) : undefined;
};

function tell(mark) {
  const image = imageOf(mark);
  tip.replaceChildren(...(image ? [element("img", { src: image.src, alt: "" })] : []), texts.get(mark));
  tip.hidden = false;
  const at = mark.getBoundingClientRect();
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(Math.max((at.left + at.right - width) / 2, 8), document.documentElement.clientWidth - width - 8);
  const above = at.top - height - 8;
  tip.style.left = `${Math.max(left, 8)}px`;
  tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
}

const hide = () => { tip.hidden = true; };

function rest() {  // nothing is pointed at: back to the mark with the focus
  const focused = document.activeElement;
  if (!tip.hidden && texts.has(focused)) tell(focused);
  else hide();
}

function nearest(marks, from, [right, down]) {
  const centre = (mark) => {
    const box = mark.getBoundingClientRect();
    return [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
  };
  const [x, y] = centre(from);
  let [best, least] = [from, Infinity];
  for (const mark of marks) {
    const [dx, dy] = centre(mark).map((value, axis) => value - [x, y][axis]);
    const [along, aside] = [dx * right + dy * down, Math.abs(dx * down) + Math.abs(dy * right)];
    const cost = along + 3 * aside;
    if (along > 0.01 && cost < least) [best, least] = [mark, cost];
  }
  return best;
}

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function focusOn(plot, mark) {
  plot.querySelector("[tabindex='0']").setAttribute("tabindex", "-1");
  mark.setAttribute("tabindex", "0");
  mark.focus();
}

for (const plot of document.querySelectorAll("svg.tips")) {
  const marks = [...plot.querySelectorAll("title")].map((title) => {
    const mark = title.parentNode;
    texts.set(mark, title.textContent);
    mark.setAttribute("aria-label", title.textContent);
    mark.setAttribute("role", "img");
    mark.setAttribute("tabindex", "-1");
    title.remove();
    return mark;
  });
  if (!marks.length) continue;
  plot.setAttribute("role", "group");
  marks[0].setAttribute("tabindex", "0");
  const markAt = (event) => event.target.closest("[tabindex]");
  plot.addEventListener("pointerover", (event) => (markAt(event) ? tell(markAt(event)) : rest()));
  plot.addEventListener("pointerleave", rest);
  plot.addEventListener("focusin", (event) => tell(event.target));
  plot.addEventListener("focusout", hide);
  plot.addEventListener("click", (event) => {
    const image = markAt(event) && imageOf(markAt(event));
    if (image) enlarge(image);
  });
  plot.addEventListener("keydown", (event) => {
    const ends = { Home: marks[0], End: marks[marks.length - 1] };
    const direction = DIRECTIONS[event.key];
    const next = direction ? nearest(marks, event.target, direction) : ends[event.key];
    const image = event.key === "Enter" && imageOf(event.target);
    if (image) enlarge(image);
    if (next) focusOn(plot, next);
    if (next || image) event.preventDefault();
  });
}

document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
document.addEventListener("scroll", rest, { passive: true, capture: true });
