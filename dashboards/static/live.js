"use strict";

// The same page again, every few seconds: what has changed in it is replaced, and what a reader has
// opened, sorted, hidden or zoomed into stays so. A part that holds the keyboard's focus waits.
const PARTS = "header, nav, section, main > .scroll";
const EVERY = 3000; // milliseconds
const told = document.querySelector("#live [role=status]");
const pause = document.querySelector("#live button");
let source = document.cloneNode(true); // as it came: this script runs before any chart is drawn
let etag = null;

const byId = (of) => new Map([...of.querySelectorAll(PARTS)].map((part) => [part.id || part.localName, part]));

function carryOver(old, fresh) {
  fresh.querySelectorAll("details").forEach((details, i) => {
    details.open = old.querySelectorAll("details")[i]?.open ?? false;
  });
  old.querySelectorAll("table[data-page]").forEach((table, i) => {
    const made = fresh.querySelectorAll("table[data-page]")[i];
    if (made) made.dataset.state = table.dataset.state ?? "";
  });
}

function replace(old, fresh) {
  carryOver(old, fresh);
  const drawn = [...old.querySelectorAll(".plot")];
  old.replaceWith(fresh);
  fresh.querySelectorAll(".plot").forEach((plot, i) => {
    const { data, layout } = figureOf(plot);
    if (!drawn[i]?.querySelector(".main-svg")) return Plotly.newPlot(plot, data, layout, config);
    for (const name of ["style", "aria-label"]) drawn[i].setAttribute(name, plot.getAttribute(name));
    plot.replaceWith(drawn[i]);
    return Plotly.react(drawn[i], data, layout, config);
  });
  fresh.querySelectorAll("table[data-page]").forEach(makePaged);
}

function insert(part, previous) {
  const main = document.getElementById("main");
  if (main.contains(previous)) previous.after(part);
  else main.prepend(part);
  replace(part, part);
}

// Whether all of it could be taken over.
function update(next) {
  const [before, shown, wanted] = [source, document, next].map(byId);
  let previous = null;
  let complete = true;
  for (const [name, fresh] of wanted) {
    const old = shown.get(name);
    const made = document.importNode(fresh, true);
    const changed = before.get(name)?.outerHTML !== fresh.outerHTML;
    if (!old) insert(made, previous);
    else if (changed && old.contains(document.activeElement)) complete = false;
    else if (changed) replace(old, made);
    previous = made.isConnected ? made : old;
  }
  for (const [name, old] of shown) if (!wanted.has(name)) old.remove();
  document.title = next.title;
  return complete;
}

async function refresh() {
  const answer = await fetch(location.pathname, { cache: "no-cache" });
  if (!answer.ok) throw new Error(await answer.text());
  if (answer.headers.get("ETag") !== etag) {
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (update(next)) etag = answer.headers.get("ETag");
    source = next;
  }
  told.textContent = `as of ${new Date().toLocaleTimeString()}`;
}

async function keepFresh() {
  if (pause.ariaPressed !== "true" && !document.hidden)
    await refresh().catch(() => (told.textContent = "no answer; trying again"));
  setTimeout(keepFresh, EVERY);
}
setTimeout(keepFresh, EVERY);

pause.addEventListener("click", () => {
  pause.ariaPressed = String(pause.ariaPressed !== "true");
});
