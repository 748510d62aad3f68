"use strict";

// Charts: drawn in the page's colours, again when those change; one after the other, so that the
// page can be read and used from the start. A printed page has no gaps.
const plots = [...document.querySelectorAll(".plot")];
const style = getComputedStyle(document.documentElement);
const touch = matchMedia("(pointer: coarse)").matches;
const config = { responsive: true, displayModeBar: false };

function inColours(template) {
  const colour = (name) => style.getPropertyValue(name).trim();
  const layout = template.layout;
  layout.font.color = colour("--ink");
  for (const axis of [layout.xaxis, layout.yaxis]) axis.gridcolor = colour("--grid");
  layout.annotationdefaults.bgcolor = colour("--veil");
  layout.hoverlabel = {
    ...layout.hoverlabel, bgcolor: colour("--wash"), bordercolor: colour("--line"), font: { color: colour("--ink") },
  };
  return template;
}

function draw(plot) {
  const source = plot.querySelector("script");
  const { data, layout } = JSON.parse(source.textContent);
  source.remove();
  layout.template = inColours(layout.template);
  if (touch) layout.dragmode = false; // a finger on a chart scrolls the page
  Plotly.newPlot(plot, data, layout, config);
}

const waiting = [...plots];
function drawNext() {
  if (!waiting.length) return;
  draw(waiting.shift());
  setTimeout(drawNext);
}
addEventListener("beforeprint", () => waiting.splice(0).forEach(draw));

function recolour() {
  for (const plot of plots.filter((plot) => !waiting.includes(plot)))
    Plotly.relayout(plot, { template: inColours(structuredClone(plot.layout.template)) });
}

setTimeout(drawNext);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);

// Tables: sorted by a click on a column's head, a page at a time.
function key(row, column) {
  const cell = row.cells[column];
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
}

const absent = (value) => value === "" || value === "–";
const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));

function makePaged(table) {
  const size = Number(table.dataset.page);
  const [body, later] = table.tBodies;
  let rows = [...table.rows].slice(1);
  later?.remove();
  const pages = Math.ceil(rows.length / size);
  let page = 0;

  const button = (label, step) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = label;
    made.addEventListener("click", () => show(page + step));
    return made;
  };
  const back = button("Previous", -1);
  const next = button("Next", 1);
  const where = document.createElement("span");
  where.setAttribute("role", "status");

  function show(wanted) {
    page = wanted;
    const first = page * size;
    const last = Math.min(first + size, rows.length);
    body.replaceChildren(...rows.slice(first, last));
    where.textContent = `${first + 1} to ${last} of ${rows.length}`;
    back.disabled = page === 0;
    next.disabled = page === pages - 1;
  }

  function sortBy(head) {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    rows = rows
      .map((row) => [key(row, head.cellIndex), row])
      .sort(([a], [b]) => absent(a) - absent(b) || sign * order(a, b)) // absent ones always last
      .map(([, row]) => row);
    show(0);
  }

  for (const head of table.tHead.rows[0].cells) {
    const sorter = document.createElement("button");
    sorter.type = "button";
    sorter.textContent = head.textContent;
    sorter.addEventListener("click", () => sortBy(head));
    head.replaceChildren(sorter);
  }
  if (pages > 1) {
    const pager = document.createElement("div");
    pager.className = "pager";
    pager.append(back, next, where);
    table.parentNode.after(pager);
  }
  show(0);
}
document.querySelectorAll("table[data-page]").forEach(makePaged);
