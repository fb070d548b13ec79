// The time-line of a session: lanes of segments, zoom, overview, and keys.

function segmentButton(side, segment, name, number, part) {
  const [, start, end, words, confidence, unsure = []] = segment;
  const known = confidence === undefined ? "" : `, ${confidence < UNSURE ? "unsure, " : ""}confidence ${confidence.toFixed(2)}`;
  const least = unsure.length ? `; unsure of ${unsure.map(([word, value]) => `${word} ${value.toFixed(2)}`).join(", ")}` : "";
  const label = `${side} ${name}, ${start.toFixed(2)} to ${end.toFixed(2)} s: ${words || "no words"}${known}${least}`;
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
      const lane = make("div", { class: "track" }), name = side === "hyp" ? shown(session, speaker) : speaker;
      for (const segment of session[side].filter((s) => s[0] === speaker)) {
        const button = segmentButton(side, segment, name, number, part);
        button.addEventListener("click", () => player.play(segment[1], segment[2]));
        lane.append(button);
      }
      time.append(make("div", { class: "lane", role: "group", "aria-label": `${side} ${name}` },
        make("span", { class: "name", title: name }, session.ref.length ? `${side} ${name}` : name), lane));
    });
  }
  const whole = make("div", { class: "lanes", role: "group", "aria-label": `time-line of ${session.name}` }, time);
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
  const node = make("details", { class: "all" }, make("summary", {}, `All ${all.length} segments`),
    make("div", { class: "controls" }, make("label", {}, "Words contain ", find), status), list);
  node.addEventListener("toggle", () => { if (node.open && !list.childElementCount) fill(); });
  return node;
}
