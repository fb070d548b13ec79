"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const LANE = 26, AXIS = 22, LEAST = 2; // pixels, pixels, seconds that are shown at least
const COLOURS = ["#9ecbff", "#ffd8a8", "#b2f2bb", "#fcc2d7", "#d0bfff", "#ffec99", "#99e9f2", "#ced4da", "#e6c9a8", "#c0eb75"];
const STEPS = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600];
const SIDES = ["ref", "hyp"];
const at = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
const two = (n) => String(n).padStart(2, "0");
let meeting, lanes, audio, list, view, now = 0, until = Infinity, queued = false;

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function clock(seconds) {
  const s = Math.floor(seconds);
  const hours = Math.floor(s / 3600), rest = `${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
  return hours ? `${hours}:${rest}` : rest;
}

// One lane for each speaker and side; a pair of speakers has one colour.
function lanesOf(one) {
  const found = [];
  one.pairs.forEach((pair, number) => SIDES.forEach((side, column) => {
    if (pair[column] === null) return;
    const segments = one[side].filter((s) => s[0] === pair[column]);
    const longest = segments.reduce((most, s) => Math.max(most, s[2] - s[1]), 0);
    found.push({ side, speaker: pair[column], number, colour: COLOURS[number % COLOURS.length], segments, longest });
  }));
  return found;
}

const label = (lane) => meeting.ref.length ? `${lane.side} ${lane.speaker}` : lane.speaker;

// Index of the first segment that may reach into what begins at `time`.
function firstOf(lane, time) {
  let low = 0, high = lane.segments.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lane.segments[middle][1] < time - lane.longest) low = middle + 1; else high = middle;
  }
  return low;
}

function size(canvas, height) {
  const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  return [pen, width];
}

function drawLanes() {
  const [pen, width] = size(at("lanes"), AXIS + lanes.length * LANE), each = width / (view.to - view.from);
  const place = (time) => (time - view.from) * each;
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "middle";
  const step = STEPS.find((s) => s * each >= 60) ?? STEPS.at(-1);
  for (let t = Math.ceil(view.from / step) * step; t <= view.to; t += step) {
    pen.fillStyle = css("--line");
    pen.fillRect(place(t), 0, 1, AXIS + lanes.length * LANE);
    pen.fillStyle = css("--quiet");
    pen.fillText(clock(t), place(t) + 3, AXIS / 2);
  }
  lanes.forEach((lane, row) => {
    const top = AXIS + row * LANE;
    pen.fillStyle = css("--line");
    pen.fillRect(0, top, width, 1);
    for (let i = firstOf(lane, view.from); i < lane.segments.length && lane.segments[i][1] < view.to; i++) {
      const [, start, end, words, sure] = lane.segments[i], left = place(start), wide = Math.max(1, (end - start) * each);
      pen.fillStyle = lane.colour;
      pen.fillRect(left, top + 3, wide, LANE - 5);
      if (wide < 24) continue;
      pen.save();
      pen.beginPath();
      pen.rect(left, top + 3, wide - 1, LANE - 5);
      pen.clip();
      pen.fillStyle = "#1b1f24";
      pen.fillText((sure < 0.5 ? "? " : "") + words, Math.max(left, 0) + 3, top + LANE / 2 + 1);
      pen.restore();
    }
  });
  pen.fillStyle = css("--mark");
  pen.fillRect(place(now) - 1, 0, 2, AXIS + lanes.length * LANE);
}

function drawOverview() {
  const [pen, width] = size(at("overview"), 56), each = width / meeting.seconds, high = 56 / lanes.length;
  lanes.forEach((lane, row) => {
    pen.fillStyle = lane.colour;
    for (const [, start, end] of lane.segments)
      pen.fillRect(start * each, row * high, Math.max(1, (end - start) * each), Math.max(1, high - 1));
  });
  pen.strokeStyle = css("--focus");
  pen.lineWidth = 2;
  pen.strokeRect(view.from * each + 1, 1, Math.max(4, (view.to - view.from) * each - 2), 54);
  pen.fillStyle = css("--mark");
  pen.fillRect(now * each - 1, 0, 2, 56);
}

// Drawn at most once a frame, however many events ask for it.
function draw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => {
    queued = false;
    drawLanes();
    drawOverview();
    at("span").textContent = `${clock(view.from)} to ${clock(view.to)} of ${clock(meeting.seconds)}`;
    at("time").setAttribute("aria-valuenow", now.toFixed(1));
    at("time").setAttribute("aria-valuetext", `${clock(now)}; ${clock(view.from)} to ${clock(view.to)} shown`);
  });
}

function show(from, length = view.to - view.from) {
  const wide = Math.min(Math.max(length, Math.min(LEAST, meeting.seconds)), meeting.seconds);
  const start = Math.min(Math.max(from, 0), meeting.seconds - wide);
  view = { from: start, to: start + wide };
  draw();
}

// The point of time `share` of the way through what is shown stays where it is.
function zoom(factor, share = (now >= view.from && now <= view.to) ? (now - view.from) / (view.to - view.from) : 0.5) {
  const length = view.to - view.from, wide = Math.min(Math.max(length * factor, LEAST), meeting.seconds);
  show(view.from + share * (length - wide), wide);
}

function go(time, reveal = true) {
  now = Math.min(Math.max(time, 0), meeting.seconds);
  const length = view.to - view.from;
  if (reveal && (now < view.from || now > view.to)) show(now - length / 4); else draw();
}

function seek(time) {
  until = Infinity;
  if (audio) audio.currentTime = time;
  go(time);
}

function play(from, to) {
  go(from);
  if (!audio) return;
  audio.currentTime = from;
  until = to;
  audio.play().catch((error) => { at("status").textContent = `The audio cannot be played: ${error.message}`; });
}

function follow() {
  if (audio.currentTime >= until) { audio.pause(); until = Infinity; }
  go(audio.currentTime, now >= view.from && now <= view.to); // who has moved away from what plays stays there
  if (!audio.paused) requestAnimationFrame(follow);
}

function makePlayer() {
  audio?.pause();
  audio = null;
  if (!meeting.audio) { at("player").replaceChildren(make("p", {}, "No audio.")); return; }
  audio = make("audio", { controls: "", preload: "metadata", src: meeting.audio, "aria-label": `audio of ${meeting.name}` });
  for (const event of ["play", "seeked", "pause"]) audio.addEventListener(event, follow);
  at("player").replaceChildren(audio);
}

function shares() {
  const sides = SIDES.filter((side) => meeting[side].length), name = { ref: "reference", hyp: "hypothesis" };
  const talk = (lane) => lane ? lane.segments.reduce((sum, s) => sum + s[2] - s[1], 0) : 0;
  const all = Object.fromEntries(sides.map((side) => [side, lanes.filter((l) => l.side === side).reduce((sum, l) => sum + talk(l), 0)]));
  const heads = ["Speaker", ...sides.flatMap((side) => ["seconds", "%", "words"].map((h) => sides.length > 1 ? `${name[side]} ${h}` : h)), "share"];
  const rows = meeting.pairs.map((pair, number) => {
    const own = sides.map((side) => lanes.find((lane) => lane.number === number && lane.side === side));
    const colour = COLOURS[number % COLOURS.length];
    const cells = own.flatMap((lane, i) => lane ? [talk(lane).toFixed(1), (100 * talk(lane) / all[sides[i]]).toFixed(1),
      String(lane.segments.reduce((sum, s) => sum + s[3].split(" ").filter(Boolean).length, 0))] : ["-", "-", "-"]);
    const bars = own.map((lane, i) => make("i", { class: sides[i], style: `width: ${100 * talk(lane) / (all[sides[i]] || 1)}%; background: ${colour}` }));
    const who = sides.length > 1 ? `${pair[0] ?? "nobody"}, heard as ${pair[1] ?? "nobody"}` : pair[1] ?? pair[0];
    return make("tr", {}, make("th", { scope: "row" }, make("span", { class: "chip", style: `background: ${colour}` }), who),
      ...cells.map((cell) => make("td", { class: "number" }, cell)), make("td", { class: "bar" }, ...bars));
  });
  at("share").replaceChildren(
    make("thead", {}, make("tr", {}, ...heads.map((head, i) => make("th", { scope: "col", ...(i && i < heads.length - 1 ? { class: "number" } : {}) }, head)))),
    make("tbody", {}, ...rows));
}

function choose() {
  const text = at("filter").value.toLowerCase(), only = at("speaker").value;
  const shown = list.filter(({ lane, segment }) => (!only || label(lane) === only) && segment[3].toLowerCase().includes(text));
  at("list").replaceChildren(...shown.map(({ lane, segment }) => {
    const [, start, end, words] = segment;
    const button = make("button", { type: "button" }, make("span", {}, clock(start)),
      make("span", {}, make("span", { class: "chip", style: `background: ${lane.colour}` }), label(lane)), make("span", {}, words || "no words"));
    button.addEventListener("click", () => {
      at("list").querySelector("[aria-current]")?.removeAttribute("aria-current");
      button.setAttribute("aria-current", "true");
      if (view.to - view.from > 60) show(start - 10, 40);
      play(start, end);
    });
    return make("li", {}, button);
  }));
  at("status").textContent = `${shown.length} of ${list.length} segments`;
}

function open(one) {
  meeting = one;
  lanes = lanesOf(one);
  [now, until] = [0, Infinity];
  view = { from: 0, to: one.seconds };
  list = lanes.flatMap((lane) => lane.segments.map((segment) => ({ lane, segment }))).sort((a, b) => a.segment[1] - b.segment[1]);
  at("names").replaceChildren(...lanes.map((lane) => make("div", { title: label(lane) }, label(lane))));
  at("speaker").replaceChildren(make("option", { value: "" }, "all"), ...lanes.map((lane) => make("option", { value: label(lane) }, label(lane))));
  at("time").setAttribute("aria-valuemax", one.seconds.toFixed(1));
  makePlayer();
  shares();
  choose();
  draw();
}

const shareOf = (event, node) => { const box = node.getBoundingClientRect(); return (event.clientX - box.left) / box.width; };

function listen() {
  at("in").addEventListener("click", () => zoom(0.5));
  at("out").addEventListener("click", () => zoom(2));
  at("whole").addEventListener("click", () => show(0, meeting.seconds));
  at("filter").addEventListener("input", choose);
  at("speaker").addEventListener("change", choose);
  at("meeting").addEventListener("change", () => open(data.meetings[at("meeting").value]));
  at("time").addEventListener("keydown", (event) => {
    const length = view.to - view.from;
    const to = { ArrowLeft: now - length / 10, ArrowRight: now + length / 10, PageUp: now - length, PageDown: now + length, Home: 0, End: meeting.seconds }[event.key];
    if (to !== undefined) seek(to);
    else if (event.key === "+") zoom(0.5);
    else if (event.key === "-") zoom(2);
    else if (event.key === "0") show(0, meeting.seconds);
    else if (event.key === "Enter" && audio) { if (audio.paused) play(now, Infinity); else audio.pause(); }
    else return;
    event.preventDefault();
  });
  at("time").addEventListener("wheel", (event) => {
    if (event.ctrlKey) zoom(event.deltaY > 0 ? 1.25 : 0.8, shareOf(event, at("time")));
    else if (event.deltaX || event.shiftKey) show(view.from + (event.deltaX || event.deltaY) / at("time").clientWidth * (view.to - view.from));
    else return;
    event.preventDefault();
  }, { passive: false });
  let held = null;
  at("time").addEventListener("pointerdown", (event) => { held = { x: event.clientX, from: view.from, moved: false }; at("time").setPointerCapture(event.pointerId); });
  at("time").addEventListener("pointermove", (event) => {
    if (!held || !(held.moved ||= Math.abs(event.clientX - held.x) > 4)) return;
    show(held.from - (event.clientX - held.x) / at("time").clientWidth * (view.to - view.from));
  });
  at("time").addEventListener("pointercancel", () => { held = null; });
  at("time").addEventListener("pointerup", (event) => {
    const clicked = held && !held.moved;
    held = null;
    if (!clicked) return;
    const time = view.from + shareOf(event, at("time")) * (view.to - view.from);
    const lane = lanes[Math.floor((event.clientY - at("time").getBoundingClientRect().top - AXIS) / LANE)];
    const hit = lane?.segments.find((s) => s[1] <= time && time < s[2]);
    if (hit) play(hit[1], hit[2]); else seek(time);
  });
  const jump = (event) => show(shareOf(event, at("overview")) * meeting.seconds - (view.to - view.from) / 2);
  at("overview").addEventListener("pointerdown", (event) => { at("overview").setPointerCapture(event.pointerId); jump(event); });
  at("overview").addEventListener("pointermove", (event) => { if (event.buttons) jump(event); });
  window.addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

document.title = at("title").textContent = data.title;
at("choice").hidden = data.meetings.length < 2;
at("meeting").append(...data.meetings.map((one, i) => make("option", { value: i }, one.name)));
listen();
open(data.meetings[0]);
