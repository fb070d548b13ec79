// Small drawings: tables, curves, words with errors.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const FIRST = 8, PAGE = 50, UNSURE = 0.5, COLOURS = ["#9ecbff", "#ffd8a8", "#b2f2bb", "#fcc2d7", "#d0bfff", "#ffec99", "#99e9f2", "#ced4da", "#ffc9c9", "#c0eb75"];
const LONG = 80; // longer sessions, in seconds, are shown whole at first
const CLOSEST = 200, CLOSE = 60; // pixels per second
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
const at = (id) => document.getElementById(id);
const percent = (rate) => rate === null ? "-" : (100 * rate).toFixed(1) + " %";

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function table(caption, heads, rows) {
  const number = (i) => i > 0 && i < heads.length - (heads.at(-1) === "measured on") ? { class: "number" } : {};
  return make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption }, make("table", {},
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...heads.map((h, i) => make("th", { scope: "col", ...number(i) }, h)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {},
      ...row.map((cell, i) => i ? make("td", number(i), cell) : make("th", { scope: "row" }, cell)))))));
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function curve(key, points) {
  const steps = points.map((p) => p[0]), values = points.map((p) => p[1]), name = key.replaceAll("_", " ");
  const [low, high] = [Math.min(...values), Math.max(...values)], [first, last] = [steps[0], steps.at(-1)];
  const share = (value, from, to) => to > from ? (value - from) / (to - from) : 0.5;
  const place = ([step, value]) => [46 + 186 * share(step, first, last), 82 - 70 * share(value, low, high)];
  const label = (x, y, words, anchor) => svg("text", { x, y, "text-anchor": anchor }, String(words));
  const text = `${name}: ${values[0].toPrecision(3)} at step ${first}, ${values.at(-1).toPrecision(3)} at step ${last}`;
  return make("figure", {}, make("figcaption", {}, name),
    svg("svg", { viewBox: "0 0 240 104", role: "img", "aria-label": text },
      svg("rect", { x: 40, y: 4, width: 198, height: 86 }),
      svg("polyline", { points: points.map(place).join(" ") }),
      ...(points.length > 50 ? [] : points.map(place)).map(([cx, cy]) => svg("circle", { cx, cy, r: 2.5 })),
      label(36, 15, high.toPrecision(3), "end"), ...(low < high ? [label(36, 86, low.toPrecision(3), "end")] : []),
      label(40, 101, first, "start"), ...(first < last ? [label(238, 101, `step ${last}`, "end")] : [])));
}

function wordLine(pair) {
  const line = make("p", { class: "words" });
  for (const [ref, hyp] of pair[2]) {
    if (ref === hyp) line.append(ref, " ");
    else if (!hyp) line.append(make("del", {}, ref), " ");
    else if (!ref) line.append(make("ins", {}, hyp), " ");
    else line.append(make("span", { class: "swap" }, make("del", {}, ref), make("ins", {}, hyp)), " ");
  }
  return line;
}

const pairName = (session, [ref, hyp]) => session.ref.length ? `${ref ?? "nobody"}, recognized as ${shown(session, hyp) ?? "nobody"}` : shown(session, hyp);

function clock(seconds) {
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  const two = (n) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

function sessionLength(session) {
  return [...session.ref, ...session.hyp].reduce((most, s) => Math.max(most, s[2]), Math.max(session.seconds, 0.1));
}

