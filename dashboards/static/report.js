"use strict";

// Charts: drawn in the page's colours, again when those change; one after the other, so that the
// page can be read and used from the start. A printed page has no gaps.
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

function figureOf(plot) {
  const source = plot.querySelector("script");
  const { data, layout } = JSON.parse(source.textContent);
  source.remove();
  layout.template = inColours(layout.template);
  layout.uirevision = true; // what a reader hid or zoomed into stays, where the figure is drawn again
  if (touch) layout.dragmode = false; // a finger on a chart scrolls the page
  return { data, layout };
}

function draw(plot) {
  const { data, layout } = figureOf(plot);
  Plotly.newPlot(plot, data, layout, config);
}

const waiting = [...document.querySelectorAll(".plot")];
function drawNext() {
  if (!waiting.length) return;
  const plot = waiting.shift();
  if (plot.querySelector("script")) draw(plot); // unless a newer one has come in between
  setTimeout(drawNext);
}
addEventListener("beforeprint", () => waiting.splice(0).forEach(draw));

function recolour() {
  for (const plot of document.querySelectorAll(".plot:has(.main-svg)"))
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
  const heads = [...table.tHead.rows[0].cells];
  let page = 0;
  let sorted = null;

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
    page = Math.min(wanted, pages - 1);
    const first = page * size;
    const last = Math.min(first + size, rows.length);
    body.replaceChildren(...rows.slice(first, last));
    where.textContent = `${first + 1} to ${last} of ${rows.length}`;
    back.disabled = page === 0;
    next.disabled = page === pages - 1;
    table.dataset.state = JSON.stringify({ page, sorted });
  }

  function sortBy(column, sign) {
    const head = heads[column];
    sorted = { column, sign };
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    rows = rows
      .map((row) => [key(row, column), row])
      .sort(([a], [b]) => absent(a) - absent(b) || sign * order(a, b)) // absent ones always last
      .map(([, row]) => row);
    show(0);
  }

  for (const head of heads) {
    const sorter = document.createElement("button");
    sorter.type = "button";
    sorter.textContent = head.textContent;
    const turned = () => (head.getAttribute("aria-sort") === "ascending" ? -1 : 1);
    sorter.addEventListener("click", () => sortBy(head.cellIndex, turned()));
    head.replaceChildren(sorter);
  }
  if (pages > 1) {
    const pager = document.createElement("div");
    pager.className = "pager";
    pager.append(back, next, where);
    table.parentNode.after(pager);
  }
  const kept = JSON.parse(table.dataset.state || '{"page": 0}'); // of the table that this one replaces
  if (kept.sorted && heads[kept.sorted.column]) sortBy(kept.sorted.column, kept.sorted.sign);
  show(kept.page);
}
document.querySelectorAll("table[data-page]").forEach(makePaged);
