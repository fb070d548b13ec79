"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 50, UNSURE = 0.5, COLOURS = ["#9ecbff", "#ffd8a8", "#b2f2bb", "#fcc2d7", "#d0bfff", "#ffec99", "#99e9f2", "#ced4da", "#ffc9c9", "#c0eb75"];
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
      svg("rect", { x: 40, y: 4, width: 198, height: 86, fill: "#f6f8fa", stroke: "#d0d7de" }),
      svg("polyline", { points: points.map(place).join(" "), fill: "none", stroke: "#0550ae", "stroke-width": 2 }),
      ...(points.length > 50 ? [] : points.map(place)).map(([cx, cy]) => svg("circle", { cx, cy, r: 2.5, fill: "#0550ae" })),
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

const pairName = (session, [ref, hyp]) => session.ref.length ? `${ref ?? "nobody"}, recognized as ${hyp ?? "nobody"}` : hyp;

function clock(seconds) {
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  const two = (n) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

function sessionLength(session) {
  return [...session.ref, ...session.hyp].reduce((most, s) => Math.max(most, s[2]), Math.max(session.seconds, 0.1));
}

function segmentButton(side, segment, number, part) {
  const [speaker, start, end, words, confidence, unsure = []] = segment;
  const known = confidence === undefined ? "" : `, ${confidence < UNSURE ? "unsure, " : ""}confidence ${confidence.toFixed(2)}`;
  const least = unsure.length ? `; unsure of ${unsure.map(([word, value]) => `${word} ${value.toFixed(2)}`).join(", ")}` : "";
  const label = `${side} ${speaker}, ${start.toFixed(2)} to ${end.toFixed(2)} s: ${words || "no words"}${known}${least}`;
  const node = make("button", { type: "button", class: confidence < UNSURE ? "segment unsure" : "segment", "aria-label": label, title: label, tabindex: "-1",
    style: `left: ${part(start)}; width: ${part(end - start)}; background: ${COLOURS[number % COLOURS.length]}` }, words);
  node.dataset.start = start;
  return node;
}

function lanes(session, player, length) {
  const part = (seconds) => (100 * seconds / length).toFixed(4) + "%";
  const time = make("div", { class: "time" });
  const track = make("div", { class: "track" }), ticks = make("div", { class: "track" });
  if (data.anchors && length <= LONG) for (let n = 0; n * data.anchors <= length; n++)
    track.append(make("span", { class: "anchor", title: `anchor ${n + 1}`, style: `left: ${part(n * data.anchors)}` }, `${n + 1}`));
  time.append(make("div", { class: "lane axis", "aria-hidden": "true" }, make("span", { class: "name" }, length > LONG ? "time" : "s, anchors"), track, ticks));
  for (const side of ["ref", "hyp"]) {
    const column = side === "ref" ? 0 : 1;
    session.pairs.forEach((pair, number) => {
      const speaker = pair[column];
      if (speaker === null) return;
      const lane = make("div", { class: "track" });
      for (const segment of session[side].filter((s) => s[0] === speaker)) {
        const button = segmentButton(side, segment, number, part);
        button.addEventListener("click", () => player.play(segment[1], segment[2]));
        lane.append(button);
      }
      time.append(make("div", { class: "lane", role: "group", "aria-label": `${side} ${speaker}` },
        make("span", { class: "name", title: speaker }, `${side} ${speaker}`), lane));
    });
  }
  const whole = make("div", { class: "lanes", role: "group", "aria-label": `${session.name}: reference above hypothesis` }, time);
  const view = zoomed(whole, time, ticks, part, length);
  const all = [...whole.querySelectorAll(".segment")].sort((a, b) => a.dataset.start - b.dataset.start);
  walkable(whole, all, view);
  if (session.audio) player.attach(time, length);
  return { whole, all, view };
}

// The visible part of a session. `scale` sets the pixels per second, `by` multiplies them, `to` centres a time.
function zoomed(whole, time, ticks, part, length) {
  const seen = () => { // pixels per second, width in pixels, first and last visible second
    const pixels = ticks.clientWidth / length || 1, width = whole.clientWidth - time.firstChild.firstChild.offsetWidth;
    return { pixels, width, from: whole.scrollLeft / pixels, until: (whole.scrollLeft + width) / pixels };
  };
  const width = (pixels) => { time.style.width = pixels ? `calc(var(--names) + ${Math.round(length * pixels)}px)` : "100%"; };
  const watchers = [];
  const draw = () => {
    const { pixels, from, until } = seen();
    const step = STEPS.find((seconds) => seconds * pixels >= 56) ?? STEPS.at(-1);
    const marks = [];
    for (let t = Math.max(0, Math.floor(from / step) * step); t <= Math.min(length, until); t += step)
      marks.push(make("span", { class: "tick", style: `left: ${part(t)}` }, length > LONG ? clock(t) : `${t} s`));
    ticks.replaceChildren(...marks);
    for (const watch of watchers) watch(from, until);
  };
  const view = {
    watch(change) { watchers.push(change); },
    to(second) { whole.scrollLeft = second * seen().pixels - seen().width / 2; draw(); },
    scale(pixels) {
      const { from, until, width: room } = seen(), next = Math.min(pixels, CLOSEST);
      width(next * length > room ? next : 0);
      view.to((from + until) / 2);
    },
    by(factor) { view.scale(seen().pixels * factor); },
    all() { width(0); draw(); },
  };
  width(length > LONG ? 0 : CLOSE);
  whole.addEventListener("scroll", draw);
  new ResizeObserver(draw).observe(whole);
  whole.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    view.by(event.deltaY < 0 ? 1.5 : 1 / 1.5);
    event.preventDefault();
  }, { passive: false });
  return view;
}

// Only one segment of a session is a tab stop: the first, or the last focused.
function walkable(whole, all, view) {
  let current = all[0];
  if (current) current.tabIndex = 0;
  whole.addEventListener("focusin", (event) => {
    if (!event.target.classList.contains("segment")) return;
    current.tabIndex = -1;
    current = event.target;
    current.tabIndex = 0;
  });
  whole.addEventListener("keydown", (event) => {
    const zoom = { "+": () => view.by(2), "=": () => view.by(2), "-": () => view.by(0.5), 0: () => view.all() }[event.key];
    if (zoom && !event.ctrlKey && !event.metaKey) {
      zoom();
      event.target.scrollIntoView({ inline: "center", block: "nearest" });
      event.preventDefault();
    }
    const index = all.indexOf(event.target);
    const to = { ArrowRight: index + 1, ArrowDown: index + 1, ArrowLeft: index - 1, ArrowUp: index - 1, Home: 0, End: all.length - 1 }[event.key];
    if (index < 0 || to === undefined) return;
    all[to]?.focus();
    event.preventDefault();
  });
}

function zoomButtons(session, view) {
  const button = (words, label, act) => {
    const node = make("button", { type: "button", "aria-label": `${label} ${session.name}` }, words);
    node.addEventListener("click", act);
    return node;
  };
  return make("div", { class: "controls" }, button("+", "zoom into", () => view.by(2)), button("\u2212", "zoom out of", () => view.by(0.5)),
    button("all", "show all of", () => view.all()));
}

// An overview of a long session with a stroke per segment; the part visible below is shaded.
function overview(session, view, length) {
  const count = session.pairs.length, height = 2 * count + 1;
  const strokes = ["ref", "hyp"].flatMap((side, row) => session.pairs.flatMap((pair, number) =>
    session[side].filter((s) => s[0] === pair[row]).map((s) => svg("rect", { x: s[1], width: Math.max(s[2] - s[1], 0.01), y: row * (count + 1) + number + 0.1,
      height: 0.8, fill: COLOURS[number % COLOURS.length], stroke: "#57606a", "stroke-width": 0.5, "vector-effect": "non-scaling-stroke" }))));
  const veil = svg("rect", { class: "view", y: 0, height });
  const strip = svg("svg", { viewBox: `0 0 ${length} ${height}`, preserveAspectRatio: "none", class: "overview", "aria-hidden": "true" }, ...strokes, veil);
  view.watch((from, until) => { veil.setAttribute("x", from); veil.setAttribute("width", Math.max(0, Math.min(until, length) - from)); });
  const go = (event) => {
    const place = strip.getBoundingClientRect();
    if (event.buttons) view.to(length * (event.clientX - place.left) / place.width);
  };
  strip.addEventListener("pointerdown", go);
  strip.addEventListener("pointermove", go);
  return strip;
}

// The segments of a long session as a list; an entry scrolls to its segment and plays it.
function index(session, all, view) {
  const list = make("ol", { class: "index" }), find = make("input", { type: "search" });
  const status = make("span", { role: "status" });
  const fill = () => {
    const text = find.value.toLowerCase(), found = all.filter((segment) => segment.textContent.toLowerCase().includes(text));
    status.textContent = `${found.length} of ${all.length}`;
    list.replaceChildren(...found.map((segment) => {
      const speaker = segment.getAttribute("aria-label").split(",")[0];
      const entry = make("button", { type: "button" }, `${clock(segment.dataset.start)} ${speaker}: ${segment.textContent || "no words"}`);
      entry.addEventListener("click", () => {
        view.scale(CLOSE);
        view.to(Number(segment.dataset.start));
        segment.focus({ preventScroll: true });
        segment.click();
      });
      return make("li", {}, entry);
    }));
  };
  find.addEventListener("input", fill);
  const node = make("details", {}, make("summary", {}, `All ${all.length} segments`),
    make("div", { class: "controls" }, make("label", {}, "Words contain ", find), status), list);
  node.addEventListener("toggle", () => { if (node.open && !list.childElementCount) fill(); });
  return node;
}

function shareOfTalk(session) {
  const sides = ["ref", "hyp"].filter((side) => session[side].length);
  const sum = (side, speaker) => session[side].filter((s) => speaker === undefined || s[0] === speaker).reduce((all, s) => all + s[2] - s[1], 0);
  const cells = (side, speaker) => {
    const share = sum(side, speaker) / sum(side);
    const words = session[side].filter((s) => s[0] === speaker).reduce((all, s) => all + s[3].split(" ").filter(Boolean).length, 0);
    return [make("span", { class: "bar", style: `width: ${(8 * share).toFixed(2)}rem` }), percent(share), `${sum(side, speaker).toFixed(1)} s`, String(words)];
  };
  const rows = session.pairs.map((pair) => [pairName(session, pair), ...sides.flatMap((side) => cells(side, pair[side === "ref" ? 0 : 1]))]);
  const heads = sides.flatMap((side) => ["", side === "ref" ? "reference" : "hypothesis", "time", "words"]);
  return table(`Share of talk in ${session.name}`, ["speaker", ...heads], rows);
}

function makePlayer(session) {
  if (!session.audio) return { node: make("p", {}, "No audio."), play() {}, stop() {}, attach() {} };
  const fragment = session.begins ? `#t=${session.begins},${session.begins + session.seconds}` : "";
  const audio = make("audio", { controls: "", preload: "metadata", src: session.audio + fragment, "aria-label": `audio of ${session.name}` });
  let end = Infinity;
  return {
    node: audio,
    play(from, to) {
      audio.currentTime = session.begins + from;
      end = session.begins + to;
      audio.play().catch((error) => { at("status").textContent = `${session.name}: audio cannot be played: ${error.message}`; });
    },
    stop() { audio.pause(); },
    attach(time, length) {
      const cursor = make("div", { class: "cursor", "aria-hidden": "true" });
      time.append(cursor);
      const draw = () => {
        if (audio.currentTime >= end) { audio.pause(); end = Infinity; }
        const now = Math.min(Math.max(audio.currentTime - session.begins, 0), length) / length;
        cursor.style.left = `calc(var(--names) + ${now} * (100% - var(--names)))`;
        if (!audio.paused) requestAnimationFrame(draw);
      };
      for (const event of ["play", "seeked", "pause", "timeupdate"]) audio.addEventListener(event, draw);
      draw();
    },
  };
}

function body(session) {
  const player = makePlayer(session), length = sessionLength(session);
  const { whole, all, view } = lanes(session, player, length);
  const node = make("div", { class: "body" }, player.node, zoomButtons(session, view), whole);
  if (length > LONG) {
    whole.before(overview(session, view, length));
    node.append(index(session, all, view), shareOfTalk(session));
  }
  node.addEventListener("keydown", (event) => { if (event.key === "Escape") player.stop(); });
  for (const pair of session.pairs)
    node.append(make("h3", {}, pairName(session, pair)), wordLine(pair));
  return node;
}

function item(session) {
  const flag = session.malformed ? [make("i", {}, "malformed")] : [];
  const head = make("button", { type: "button", class: "head", "aria-expanded": "false" }, make("b", {}, session.name),
    ...(session.errors === undefined ? [] : [make("span", {}, `cpWER ${percent(session.cpwer)}`),
      make("span", {}, `DER ${percent(session.der)}`), make("span", {}, `${session.errors} errors`)]),
    make("span", {}, session.seconds > LONG ? clock(session.seconds) : `${session.seconds.toFixed(1)} s`), ...flag);
  const row = make("li", {}, head);
  let opened = null;
  head.addEventListener("click", () => {
    if (opened) { opened.querySelector("audio")?.pause(); opened.remove(); opened = null; }
    else { opened = body(session); row.append(opened); }
    head.setAttribute("aria-expanded", String(opened !== null));
  });
  return row;
}

const orders = [null, (a, b) => b.errors - a.errors, (a, b) => (b.der ?? -1) - (a.der ?? -1), (a, b) => a.name < b.name ? -1 : 1];
let chosen = [];
function more() {
  const shown = at("sessions").childElementCount;
  at("sessions").append(...chosen.slice(shown, shown + PAGE).map(item));
  const now = at("sessions").childElementCount;
  at("more").hidden = now === chosen.length;
  at("status").textContent = `${now} of ${chosen.length} sessions shown`;
}
function choose() {
  const text = at("filter").value.toLowerCase();
  const holds = (s) => s.name.toLowerCase().includes(text) || [...s.ref, ...s.hyp].some((segment) => segment[3].toLowerCase().includes(text));
  chosen = data.sessions.filter((s) => !text || holds(s));
  const order = orders[at("order").value];
  if (order) chosen.sort(order);
  at("sessions").replaceChildren();
  more();
}

at("scores").hidden = !data.tables.length;
at("parts").hidden = !data.breakdowns.length;
document.title = at("title").textContent = data.title;
for (const rows of data.tables) at("tables").append(table(rows[0][0], ["metric", ...rows[0].slice(1)], rows.slice(1)));
for (const part of data.breakdowns) at("breakdowns").append(table(part.title, part.heads, part.rows));
at("folded").hidden = !data.folded;
at("training").hidden = !data.curves.length;
for (const { name, figures } of data.curves)
  at("curves").append(make("h3", {}, name), make("div", { class: "curves" }, ...Object.entries(figures).map(([key, points]) => curve(key, points))));
at("order").addEventListener("change", choose);
at("filter").addEventListener("input", choose);
at("more").addEventListener("click", more);
choose();
