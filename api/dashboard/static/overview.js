// The overview: figures, charts and bars, moved by the stream.

import { TimeChart, bar, compact, duration, rate } from "./charts.js";
import { watch } from "./stream.js";

const root = document.getElementById("overview");
const connection = document.getElementById("connection");
const base = document.body.dataset.base;
const rates = new TimeChart(document.getElementById("rates"), {
  series: ["accepted_per_s", "settled_per_s"], seconds: 120, title: "Payments accepted and settled per second, over the last two minutes",
});
const waiting = new TimeChart(document.getElementById("waiting"), {
  series: ["queue_depth", "webhook_backlog"], seconds: 120, title: "Payments and webhooks that wait, over the last two minutes",
});
const charts = [rates, waiting];
const SECONDS = new Set(["oldest_pending_s", "accept_s", "settle_s"]);
const WORDS = {
  live: "Live",
  lost: "The connection is lost. These figures are old.",
  unknown: "The database does not answer. These figures are old.",
  ended: "Your session has ended. Load the page again to sign in.",
  hidden: "Paused",
};

function setState(state) {
  const shown = state === "unknown" || state === "ended" ? "lost" : state;
  if (root.dataset.state !== shown || connection.textContent !== WORDS[state]) {
    root.dataset.state = shown;
    connection.textContent = WORDS[state];
  }
}

function write(figures) {
  const values = { ...figures, workers_count: figures.workers?.length };
  for (const element of root.querySelectorAll("[data-figure]")) {
    const [name, part] = element.dataset.figure.split(".");
    const value = part ? values[name]?.[part] : values[name];
    const text = value == null ? "–" : SECONDS.has(name) ? duration(value) : name.endsWith("_per_s") ? rate(value) : compact(value);
    if (element.textContent !== text) element.textContent = text;
  }
}

const workers = new Map();

function showWorkers(found) {
  const parent = document.getElementById("workers");
  if (!found?.length) {
    workers.clear();
    const note = document.createElement("p");
    note.className = "empty";
    note.textContent = found ? "No worker is alive. Payments are accepted and wait: start one with `payments worker`." : "Redis does not answer, so no worker is known.";
    return parent.replaceChildren(note);
  }
  if (!workers.size) parent.replaceChildren();
  const alive = new Set(found.map((worker) => worker.name));
  for (const [name, row] of workers) {
    if (alive.has(name)) continue;
    // It fades before it goes.
    row.root.classList.add("gone");
    workers.delete(name);
    setTimeout(() => row.root.remove(), 1500);
  }
  for (const worker of found) {
    if (!workers.has(worker.name)) workers.set(worker.name, newWorker(parent, worker));
    const row = workers.get(worker.name);
    row.bar.set(worker.slots ? worker.busy / worker.slots : 0);
    row.figures.textContent = `${compact(worker.busy)}/${compact(worker.slots)} · ${rate(worker.settled_per_s)}/s`;
  }
}

function newWorker(parent, worker) {
  const row = document.createElement("div");
  row.className = "worker";
  const name = document.createElement("span");
  name.className = "name";
  name.textContent = name.title = worker.name;
  const figures = document.createElement("span");
  figures.className = "figures-of-worker";
  const drawn = bar("taken");
  row.append(name, drawn.root, figures);
  parent.append(row);
  return { root: row, bar: drawn, figures };
}

const outcomes = new Map();

function showOutcomes(found) {
  const parent = document.getElementById("outcomes");
  if (!found.length) {
    outcomes.clear();
    const note = document.createElement("p");
    note.className = "empty";
    note.textContent = "No payment has ended in this time.";
    return parent.replaceChildren(note);
  }
  if (!outcomes.size) parent.replaceChildren();
  const total = found.reduce((sum, [, count]) => sum + count, 0);
  const names = new Set(found.map(([name]) => name));
  for (const [name, row] of outcomes) {
    if (!names.has(name)) { row.root.remove(); outcomes.delete(name); }
  }
  found.forEach(([name, count], index) => {
    if (!outcomes.has(name)) outcomes.set(name, newOutcome(name));
    const row = outcomes.get(name);
    if (parent.children[index] !== row.root) parent.insertBefore(row.root, parent.children[index] ?? null);
    row.bar.set(count / total);
    row.count.textContent = `${compact(count)} · ${((100 * count) / total).toFixed(1)} %`;
  });
}

function newOutcome(name) {
  const row = document.createElement("div");
  row.className = name === "COMPLETED" ? "outcome completed" : "outcome";
  const label = document.createElement("span");
  label.textContent = name.toLowerCase().replaceAll("_", " ");
  const count = document.createElement("span");
  count.className = "count";
  const drawn = bar("bar");
  row.append(label, drawn.root, count);
  return { root: row, bar: drawn, count };
}

function showUnwell(found) {
  const parent = document.getElementById("unwell");
  parent.hidden = !found.length;
  parent.replaceChildren(...found.map(({ tone, text, page }) => {
    const item = document.createElement("li");
    item.className = tone;
    const link = document.createElement("a");
    link.href = base + page;
    link.textContent = text;
    item.append(link);
    return item;
  }));
}

let unwellText = "";

function on(name, data) {
  const now = performance.now();
  if (name === "before") {
    for (const chart of charts) chart.points = [];
    for (const [ageS, values] of data.past) {
      const named = Object.fromEntries(data.members.map((member, index) => [member, values[index]]));
      for (const chart of charts) chart.add(now + ageS * 1000, named);
    }
  } else if (name === "figures") {
    write(data);
    rates.limit = data.workers?.length ? data.capacity_per_s : null;
    for (const chart of charts) chart.add(now, data);
    showWorkers(data.workers);
    showOutcomes(data.outcomes);
    const text = JSON.stringify(data.unwell);
    if (text !== unwellText) { unwellText = text; showUnwell(data.unwell); }
  }
}

const FRAME_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 50;
// Figures come once a second. The charts lag by a little more, so that their lines move smoothly.
const LAG_MS = 1300;
let drawnAt = 0;

function frame(now) {
  if (now - drawnAt >= FRAME_MS && root.dataset.state !== "lost") {
    drawnAt = now;
    for (const chart of charts) chart.draw(now - LAG_MS);
  }
  requestAnimationFrame(frame);
}

watch(root.dataset.stream, { on, state: setState });
requestAnimationFrame(frame);
