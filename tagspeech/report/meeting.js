// An open session: player, shares of talk, names of speakers, and the transcript as one reads it.

// The names that a reader gave to speakers, kept by the browser for this file and session.
const place = (session) => `tagspeech names ${location.pathname} ${session.name}`;
function names(session) {
  if (!session.names) {
    let kept = {};
    try { kept = JSON.parse(localStorage.getItem(place(session)) ?? "{}"); } catch { session.forgets = true; }
    session.names = new Map(Object.entries(kept).filter(([, name]) => typeof name === "string"));
  }
  return session.names;
}
const shown = (session, speaker) => names(session).get(speaker) ?? speaker;

function rename(session, speaker, name) {
  if (name && name !== speaker) names(session).set(speaker, name); else names(session).delete(speaker);
  try { localStorage.setItem(place(session), JSON.stringify(Object.fromEntries(names(session)))); } catch { session.forgets = true; }
  if (session.forgets) at("status").textContent = "This browser keeps no names for this page; download them.";
}

function speakersOf(session) {
  return session.pairs.map(([, speaker]) => speaker).filter((speaker) => speaker !== null);
}

const colourOf = (session, speaker) => COLOURS[Math.max(0, session.pairs.findIndex((pair) => pair[1] === speaker)) % COLOURS.length];

function nameFields(session, redraw) {
  const fields = speakersOf(session).map((speaker) => {
    const field = make("input", { value: shown(session, speaker), autocomplete: "off" });
    field.addEventListener("change", () => { rename(session, speaker, field.value.trim()); redraw(); });
    return make("label", {}, `name of speaker ${speaker}`, field);
  });
  const save = make("button", { type: "button" }, "Download names");
  save.addEventListener("click", () => {
    const lines = [...names(session)].map(([speaker, name]) => `${speaker}=${name}\n`);
    const link = make("a", { download: `${session.name}.names.txt`, href: `data:text/plain;charset=utf-8,${encodeURIComponent(lines.join(""))}` });
    link.click();
  });
  return make("details", { class: "names" }, make("summary", {}, "Rename speakers"), make("div", { class: "fields" }, ...fields), save,
    make("p", {}, "Names stay in this browser. ", make("code", {}, "tagspeech convert --rename @FILE"), " puts the downloaded ones into a transcript."));
}

function shareOfTalk(session) {
  const sides = ["ref", "hyp"].filter((side) => session[side].length);
  const sum = (side, speaker) => session[side].filter((s) => speaker === undefined || s[0] === speaker).reduce((all, s) => all + s[2] - s[1], 0);
  const bar = (share, number) => make("span", { class: "bar", style: `width: ${(6 * share).toFixed(2)}rem; background: ${COLOURS[number % COLOURS.length]}` });
  const cells = (side, speaker, number) => {
    const share = sum(side, speaker) / (sum(side) || 1);
    const words = session[side].filter((s) => s[0] === speaker).reduce((all, s) => all + s[3].split(" ").filter(Boolean).length, 0);
    return [bar(share, number), percent(share), `${sum(side, speaker).toFixed(1)} s`, String(words)];
  };
  const rows = session.pairs.map((pair, number) => [pairName(session, pair), ...sides.flatMap((side) => cells(side, pair[side === "ref" ? 0 : 1], number))]);
  const heads = sides.flatMap((side) => [sides.length > 1 ? side === "ref" ? "reference" : "hypothesis" : "", "share", "time", "words"]);
  return table("Share of talk", ["speaker", ...heads], rows);
}

// The one bar at the bottom of the window plays the session that was opened or played last.
function makePlayer(session) {
  if (!session.audio) return { play() {}, stop() {}, show() {}, leave() {}, attach() {}, watch() {} };
  const fragment = session.begins ? `#t=${session.begins},${session.begins + session.seconds}` : "";
  const audio = make("audio", { controls: "", preload: "metadata", src: session.audio + fragment, "aria-label": `audio of ${session.name}` });
  const bar = at("player"), watchers = [];
  let end = Infinity;
  const tell = () => {
    if (audio.currentTime >= end) { audio.pause(); end = Infinity; }
    for (const watch of watchers) watch(audio.currentTime - session.begins);
    if (!audio.paused) requestAnimationFrame(tell);
  };
  for (const event of ["play", "seeked", "pause", "timeupdate"]) audio.addEventListener(event, tell);
  const player = {
    show() {
      if (bar.contains(audio)) return;
      bar.querySelector("audio")?.pause();
      bar.replaceChildren(...(data.sessions.length > 1 ? [make("span", {}, session.name)] : []), audio);
      bar.hidden = false;
    },
    leave() {
      audio.pause();
      if (bar.contains(audio)) { bar.replaceChildren(); bar.hidden = true; }
    },
    play(from, to) {
      player.show();
      audio.currentTime = session.begins + from;
      end = session.begins + to;
      audio.play().catch((error) => { at("status").textContent = `${session.name}: audio cannot be played: ${error.message}`; });
    },
    stop() { audio.pause(); },
    watch(change) { watchers.push(change); },
    attach(time, length) {
      const cursor = make("div", { class: "cursor", "aria-hidden": "true" });
      time.append(cursor);
      watchers.push((seconds) => {
        const now = Math.min(Math.max(seconds, 0), length) / length;
        cursor.style.left = `calc(var(--names) + ${now} * (100% - var(--names)))`;
      });
      tell();
    },
  };
  return player;
}

// Segments of a speaker that follow each other within two seconds are one turn.
function turnsOf(session) {
  const turns = [];
  for (const segment of session.hyp) {
    const last = turns.at(-1);
    if (last && last.speaker === segment[0] && segment[1] - last.end < 2) {
      last.segments.push(segment);
      last.end = Math.max(last.end, segment[2]);
    } else turns.push({ speaker: segment[0], start: segment[1], end: segment[2], segments: [segment] });
  }
  return turns;
}

// The words of a turn: unsure ones dimmed, those that contain what is searched for marked.
function said(turn, wanted) {
  const line = make("p", { class: "said" });
  for (const [, , , words, , unsure = [], places = []] of turn.segments) {
    words.split(" ").filter(Boolean).forEach((word, number) => {
      const unsureAt = places.indexOf(number), isHit = wanted.some((part) => word.toLowerCase().includes(part));
      let node = isHit ? make("mark", {}, word) : word;
      if (unsureAt >= 0) node = make("span", { class: "dim", title: `confidence ${unsure[unsureAt][1].toFixed(2)}` }, node);
      line.append(node, " ");
    });
  }
  if (!line.childNodes.length) line.append(make("span", { class: "dim" }, "no words"));
  return line;
}

function transcript(session, player, view) {
  const list = make("ol", { class: "transcript" }), find = make("input", { type: "search" }), status = make("span", { role: "status" });
  const rows = turnsOf(session).map((turn) => {
    const stamp = make("button", { type: "button", class: "stamp", "aria-label": `play from ${clock(turn.start)}` }, clock(turn.start));
    stamp.addEventListener("click", () => {
      view.to(turn.start);
      player.play(turn.start, sessionLength(session));
    });
    const name = shown(session, turn.speaker);
    const row = make("li", { class: "turn" }, stamp,
      make("b", { class: "who", title: name, style: `background: ${colourOf(session, turn.speaker)}` }, name), said(turn, []));
    list.append(row);
    return { turn, row, text: turn.segments.map((segment) => segment[3]).join(" ").toLowerCase() };
  });
  const search = () => {
    const text = find.value.trim().toLowerCase(), wanted = text.split(/\s+/).filter(Boolean);
    let found = 0;
    for (const { turn, row, text: all } of rows) {
      const isFound = all.includes(text);
      row.hidden = !isFound;
      row.lastChild.replaceWith(said(turn, isFound ? wanted : []));
      found += isFound;
    }
    status.textContent = text ? `${found} of ${rows.length} turns` : "";
  };
  find.addEventListener("input", search);
  player.watch((seconds) => {
    for (const { turn, row } of rows) row.classList.toggle("now", turn.start <= seconds && seconds < turn.end);
  });
  return [make("h3", {}, "Transcript"), make("div", { class: "controls" }, make("label", {}, "Search ", find), status), list];
}

// An open session. A long one, one without a reference, or the only one of the page is read first.
function body(session) {
  const player = makePlayer(session), length = sessionLength(session), isScored = session.ref.length > 0;
  const isRead = length > LONG || !isScored || data.sessions.length === 1;
  const node = make("div", { class: "body" });
  const fill = () => {
    const { whole, all, view } = lanes(session, player, length);
    const map = length > LONG ? [overview(session, view, length)] : [];
    node.replaceChildren(...(session.audio || data.sessions.length > 1 ? [] : [make("p", {}, "No audio.")]), ...map, zoomButtons(session, view), whole);
    const compared = session.pairs.flatMap((pair) => [make("h3", {}, pairName(session, pair)), wordLine(pair)]);
    if (!isRead) { node.append(...compared); return; }
    const side = make("div", { class: "side", role: "group", "aria-label": `speakers of ${session.name}` }, shareOfTalk(session), nameFields(session, fill));
    node.append(make("div", { class: isScored ? "reading" : "reading plain" },
      ...(isScored ? [side] : []), make("div", {}, ...transcript(session, player, view)), ...(isScored ? [] : [side])));
    if (isScored) node.append(index(session, all, view), make("details", {}, make("summary", {}, "Words compared with the reference"), ...compared));
  };
  fill();
  player.show();
  node.addEventListener("keydown", (event) => { if (event.key === "Escape") player.stop(); });
  return { node, leave: player.leave };
}
