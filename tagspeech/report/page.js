// The page: figures, curve, sessions, scores. A page of one session opens on it.

function item(session) {
  const flag = session.malformed ? [make("i", {}, "malformed")] : [];
  const head = make("button", { type: "button", class: "head", "aria-expanded": "false" }, make("b", {}, session.name),
    ...(session.errors === undefined ? [] : [make("span", {}, `cpWER ${percent(session.cpwer)}`),
      make("span", {}, `DER ${percent(session.der)}`), make("span", {}, `${session.errors} errors`)]),
    make("span", {}, session.seconds > LONG ? clock(session.seconds) : `${session.seconds.toFixed(1)} s`), ...flag);
  const row = make("li", {}, head);
  let opened = null;
  head.addEventListener("click", () => {
    if (opened) { opened.leave(); opened.node.remove(); opened = null; }
    else { opened = body(session); row.append(opened.node); }
    head.setAttribute("aria-expanded", String(opened !== null));
  });
  return row;
}

const orders = [null, (a, b) => b.errors - a.errors, (a, b) => (b.der ?? -1) - (a.der ?? -1), (a, b) => a.name < b.name ? -1 : 1];
let chosen = [];
function more() {
  const count = at("sessions").childElementCount;
  at("sessions").append(...chosen.slice(count, count + (count ? PAGE : FIRST)).map(item));
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

const between = (ends) => ends ? `${(100 * ends[0]).toFixed(1)}-${(100 * ends[1]).toFixed(1)}` : "";

// Error rates as dots on one scale, with their confidence intervals.
function chart({ title, rows }, most) {
  const part = (rate) => `${(100 * rate / most).toFixed(2)}%`;
  return make("div", {}, make("h3", {}, title), make("ul", { class: "chart" }, ...rows.map(([name, rate, ends]) => {
    const line = make("span", { class: "track-line", "aria-hidden": "true" });
    if (ends) line.append(make("span", { class: "range", style: `left: ${part(ends[0])}; width: ${part(ends[1] - ends[0])}` }));
    if (rate !== null) line.append(make("span", { class: "dot", style: `left: ${part(rate)}` }));
    return make("li", {}, make("span", {}, name), line, make("span", { class: "value" }, percent(rate), " ", make("small", {}, between(ends))));
  })));
}

function facts() {
  if (data.sessions.length !== 1) return `${data.sessions.length} sessions`;
  const [session] = data.sessions, speakers = speakersOf(session).length;
  const words = session.hyp.reduce((sum, segment) => sum + segment[3].split(" ").filter(Boolean).length, 0);
  return `${clock(sessionLength(session))} \u00b7 ${speakers} speaker${speakers === 1 ? "" : "s"} \u00b7 ${words} words`;
}

// The curve that tells most: of the last stage of training, its error rate if it has one.
const TELLING = ["cpwer", "wer", "der", "loss"];
function mainCurve() {
  const stage = data.curves.find(({ name }) => name === "tagspeech") ?? data.curves.at(-1);
  if (!stage) return [];
  const key = TELLING.find((name) => stage.figures[name]) ?? Object.keys(stage.figures)[0];
  return key ? [make("h3", {}, `Training of ${stage.name}`), curve(key, stage.figures[key])] : [];
}

document.title = at("title").textContent = data.title;
at("facts").textContent = facts();
at("folded").hidden = !data.folded;
for (const node of document.querySelectorAll("[data-scored]")) node.hidden = !data.tables.length;
for (const node of document.querySelectorAll("[data-anchors]")) node.hidden = !data.anchors;
at("scores").hidden = !data.tables.length;
at("parts").hidden = !data.breakdowns.length;
const most = Math.max(0.01, ...data.charts.flatMap(({ rows }) => rows.flatMap(([, rate, ends]) => [rate ?? 0, ends?.[1] ?? 0])));
at("charts").append(...data.charts.map((part) => chart(part, most)));
for (const rows of data.tables) at("tables").append(table(rows[0][0], ["metric", ...rows[0].slice(1)], rows.slice(1)));
for (const part of data.breakdowns) at("breakdowns").append(table(part.title, part.heads, part.rows));
at("training").hidden = !data.curves.length;
for (const { name, figures } of data.curves)
  at("curves").append(make("h3", {}, name), make("div", { class: "curves" }, ...Object.entries(figures).map(([key, points]) => curve(key, points))));
if (data.sessions.length === 1) {
  const [session] = data.sessions;
  at("sessions-head").textContent = session.name === data.title ? "Time-line" : `Time-line of ${session.name}`;
  for (const id of ["choice", "sessions", "more"]) at(id).hidden = true;
  at("sessions").before(body(session).node);
  at("all").append(document.querySelector(".help"));
} else {
  at("sessions-head").textContent = data.figures.length ? "Sessions, worst first" : "Sessions";
  at("overview").hidden = !data.figures.length;
  at("figures").append(...data.figures.map(([name, rate, ends]) => make("div", {}, make("dt", {}, name),
    make("dd", { class: "large" }, percent(rate)), make("dd", { class: "small" }, ends ? `95 %: ${between(ends)}` : ""))));
  at("curve").append(...mainCurve());
  at("order").addEventListener("change", choose);
  at("filter").addEventListener("input", choose);
  at("more").addEventListener("click", more);
  choose();
}
