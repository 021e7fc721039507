"use strict";
// Keys for the queue, errors of htmx in words, and the curves. The pages work without any of it but htmx.

const typing = (target) => target.closest("input, select, textarea");
const cards = () => [...document.querySelectorAll(".card")];

function move(step) {
  const all = cards();
  const here = all.indexOf(document.activeElement.closest(".card"));
  const next = all[Math.min(all.length - 1, Math.max(0, here + step))];
  if (next) { next.focus(); next.scrollIntoView({block: "nearest"}); }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (event.key === "j" || event.key === "k") return move(event.key === "j" ? 1 : -1);
  const card = document.activeElement.closest(".card");
  const button = card && card.querySelector(`button[data-key="${CSS.escape(event.key)}"]`);
  if (button) { event.preventDefault(); button.click(); }
});

// A card that was decided is replaced: the focus stays where it was.
document.addEventListener("htmx:afterSwap", (event) => {
  document.getElementById("told").textContent = "";
  const id = event.detail.target.id;
  const card = id && document.getElementById(id);
  if (card && card.matches(".card")) card.focus();
});

document.addEventListener("htmx:responseError", (event) => {
  let message = `Error ${event.detail.xhr.status}`;
  try { message = JSON.parse(event.detail.xhr.responseText).error.message; } catch { /* no JSON */ }
  document.getElementById("told").textContent = message;
});
document.addEventListener("htmx:sendError", () => {
  document.getElementById("told").textContent = "The server does not answer.";
});

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const HUES = [["--link", []], ["--warn", [6, 4]], ["--good", [2, 3]]];
let drawn = [];

function draw(id, x, series, {time = false, share = false} = {}) {
  const place = document.getElementById(id);
  place.textContent = "";
  if (!x.length) { place.textContent = "Nothing was measured yet."; return; }
  const [low, high, room] = [x[0], x[x.length - 1], time ? 60 : 1];
  const axis = {stroke: colour("--dim"), grid: {stroke: colour("--line")}, ticks: {stroke: colour("--line")}};
  const lines = series.map(([label, _], i) => ({
    label, stroke: colour(HUES[i][0]), dash: HUES[i][1], width: 2, points: {size: 6}, spanGaps: true,
  }));
  drawn.push(new uPlot({
    hooks: {ready: [(plot) => queueMicrotask(() => plot.setLegend({idx: x.length - 1}))]}, // the newest
    width: Math.max(240, place.clientWidth), height: 220,
    scales: {x: {time, range: () => low < high ? [low, high] : [low - room, high + room]}, y: share ? {range: [0, 1.02]} : {}},
    axes: [time ? axis : {...axis, incrs: [1, 2, 5].flatMap((n) => [1, 10, 100, 1e3, 1e4, 1e5].map((by) => n * by)).sort((a, b) => a - b)}, axis],
    series: [{label: time ? "time" : "corrections"}, ...lines],
  }, [x, ...series.map(([_, values]) => values)], place));
}

const mean = (values) => {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
};

function curves(told) {
  const byTime = document.getElementById("against").value === "time";
  const [edits, accuracy, generality, locality, perplexity] = told.readings;
  const key = byTime ? told.times.map((t) => Date.parse(t) / 1000) : edits;
  const order = key.map((_, i) => i).sort((a, b) => key[a] - key[b]);
  const sorted = (values) => order.map((i) => values[i]);
  const ages = (from, to) => told.ages.map((groups) =>
    mean(groups.slice(Math.floor(from * groups.length), Math.max(1, Math.ceil(to * groups.length)))));
  const x = sorted(key);
  drawn.forEach((plot) => plot.destroy());
  drawn = [];
  draw("shares", x, [["reliability", sorted(accuracy)], ["generality", sorted(generality)],
    ["locality", sorted(locality)]], {time: byTime, share: true});
  draw("ages", x, [["oldest third", sorted(ages(0, 1 / 3))], ["middle", sorted(ages(1 / 3, 2 / 3))],
    ["newest third", sorted(ages(2 / 3, 1))]], {time: byTime, share: true});
  draw("perplexity", x, [["perplexity", sorted(perplexity)]], {time: byTime});
  const [minutes, fires, seconds] = told.trend;
  draw("fires", minutes, [["share", fires]], {time: true, share: true});
  draw("latency", minutes, [["seconds", seconds]], {time: true});
}

async function chart() {
  const charts = document.querySelector("[data-curves]");
  if (!charts) return;
  const told = await (await fetch(charts.dataset.curves)).json();
  const again = () => curves(told);
  document.getElementById("against").addEventListener("change", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; again(); } });
  again();
}
chart();
