"use strict";
// The page of a report: lists of images, filters, and a decision for each. What comes from files (paths, labels)
// enters the page as text only, never as HTML.
(() => {
  const PAGE = 48;
  const MARKS = { keep: "Keep", drop: "Drop", relabel: "Relabel" };
  const $ = (id) => document.getElementById(id);
  const report = JSON.parse($("data").textContent);
  const served = report.served;
  const collator = new Intl.Collator("en", { numeric: true });
  let samples; // columns, one entry a sample; see divacli/report/page/payload.py
  let classes;
  let decided = new Map(); // place -> {decision, label, given}
  const undoable = []; // [row or null, what was decided before, by place]
  let gallery;
  let scale = 0; // of the bars: the largest derivative of the list, with its error
  let rows = []; // samples of the list that pass the filters, sorted
  let page = 0;
  let current = 0; // position on the page of the card that keys act on

  // ---- Light and dark -----------------------------------------------------------------------------------

  const remembered = (() => {
    try {
      localStorage.setItem("diva-probe", "1");
      localStorage.removeItem("diva-probe");
      return localStorage;
    } catch {
      return null;
    }
  })();

  function setTheme(dark) {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    $("theme").textContent = dark ? "Light" : "Dark";
  }
  const preference = matchMedia("(prefers-color-scheme: dark)");
  const chosen = remembered?.getItem("diva-theme");
  setTheme(chosen ? chosen === "dark" : preference.matches);
  preference.addEventListener("change", (event) => remembered?.getItem("diva-theme") || setTheme(event.matches));
  $("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme !== "dark";
    setTheme(dark);
    remembered?.setItem("diva-theme", dark ? "dark" : "light");
  });

  // ---- Decisions ----------------------------------------------------------------------------------------

  const storageKey = `diva-decisions-${report.key}`;
  const RETRY = 3000;

  function alertOf(text) {
    $("alert").textContent = text;
    $("alert").hidden = !text;
  }

  function say(text) {
    $("said").textContent = text;
  }

  const entry = (decision, label, given) => ({ decision, label, given });
  const entries = (list) => new Map(list.map(([place, ...made]) => [place, entry(...made)]));
  const listed = (map) => [...map].map(([place, made]) => [place, made.decision, made.label, made.given]);

  // Decisions that the browser keeps. Another tab may have made some since: each is changed by itself.
  function stored() {
    try {
      return entries(JSON.parse(remembered?.getItem(storageKey) ?? "[]"));
    } catch {
      return new Map();
    }
  }

  function store(places) {
    const all = stored();
    for (const place of places) {
      if (decided.has(place)) all.set(place, decided.get(place));
      else all.delete(place);
    }
    try {
      if (!remembered) throw new Error("no storage");
      remembered.setItem(storageKey, JSON.stringify(listed(all)));
    } catch {
      alertOf("This browser does not keep decisions: download them before you close the page.");
    }
  }

  addEventListener("storage", (event) => {
    if (served || event.key !== storageKey || !gallery) return;
    decided = stored();
    refresh();
  });

  // Decisions on their way to the server: those that are waiting go together, again and again until they arrive.
  // The server takes all of a batch or none. Of a batch that it refuses a smaller part is sent, until the one
  // decision is found that it does not take; that one is taken back.
  const BATCH = 10_000; // some megabytes: the server reads no request without end
  const pending = new Set();
  let saved = new Map(); // what the server holds
  let most = BATCH;
  let sending = false;
  let failing = false;
  let refused = 0;
  async function send() {
    if (sending || !pending.size) return;
    sending = true;
    const batch = [...pending].slice(0, most).map((place) => [place, decided.get(place)]);
    const body = JSON.stringify(batch.map(([place, made]) => ({ place, ...(made ?? { decision: null }) })));
    const headers = { "Content-Type": "application/json" };
    try {
      const answer = await fetch("decisions", { method: "POST", headers, body, keepalive: body.length < 60_000 });
      const reason = answer.ok ? "" : await answer.text();
      if (!answer.ok && answer.status !== 400) throw new Error(reason);
      if (failing) alertOf("");
      failing = false;
      if (answer.ok) arrived(batch);
      else if (batch.length > 1) most = Math.ceil(batch.length / 2);
      else takeBack(...batch[0], reason);
    } catch (error) {
      failing = true;
      alertOf(`Decisions are not saved yet: ${error.message}. This page tries again; is diva review still running? They can be downloaded, too.`);
    }
    sending = false;
    refresh();
    if (failing) setTimeout(send, RETRY);
    else send();
  }

  function arrived(batch) {
    most = Math.min(2 * most, BATCH);
    for (const [place, made] of batch) {
      assign(saved, place, made);
      if (decided.get(place) === made) pending.delete(place);
    }
  }

  function takeBack(place, made, reason) {
    if (decided.get(place) !== made) return; // another one was made meanwhile, and is sent next
    pending.delete(place);
    assign(decided, place, saved.get(place));
    refused++;
    alertOf(`Not saved, and taken back: the decision about ${place}${refused > 1 ? ` and ${refused - 1} more` : ""}. ${reason}`);
  }

  function assign(map, place, made) {
    if (made) map.set(place, made);
    else map.delete(place);
  }

  addEventListener("beforeunload", (event) => {
    if (pending.size) event.preventDefault();
  });

  function save(places) {
    if (!served) return store(places);
    for (const place of places) pending.add(place);
    send();
  }

  // Change decisions in one step that can be undone: a map of places to what is decided, or to nothing.
  function change(changes, row) {
    if (refused) alertOf("");
    refused = 0;
    undoable.push([row, new Map([...changes.keys()].map((place) => [place, decided.get(place)]))]);
    put(changes);
  }

  function put(changes) {
    for (const [place, made] of changes) assign(decided, place, made);
    save([...changes.keys()]);
  }

  function decide(row, decision, label) {
    const given = classes[samples.label[row]] ?? "";
    change(new Map([[samples.place[row], entry(decision, decision === "relabel" ? label : given, given)]]), row);
    say(`${MARKS[decision]}${decision === "relabel" ? ` as ${label}` : ""}: ${samples.path[row]}`);
  }

  function undo() {
    if (!undoable.length) return say("There is nothing to undo.");
    const [row, before] = undoable.pop();
    put(before);
    refresh();
    if (row === null) return say(`Undone: ${before.size} decisions are as they were.`);
    say(`Undone: ${samples.path[row]}`);
    const position = rows.indexOf(row);
    if (position < 0) return;
    if (Math.floor(position / PAGE) !== page) showPage(Math.floor(position / PAGE));
    focusCard(position % PAGE);
    if ($("zoom").open) zoom(row);
  }

  // Cells that a spreadsheet would run as formulas, as divacli/manifest/formulas.py writes and reads them: a path
  // gets "./" before it, other text an apostrophe.
  const START = String.raw`(?:[ \t\n\r\f\v]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\n\r])`;
  const NUMBER = /^ *[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf|infinity) *$/i;
  const harmless = (text, mark) =>
    new RegExp(`^(?:${mark.replace(".", "\\.")})*${START}`).test(text) && !NUMBER.test(text) ? mark + text : text;
  const restoredCell = (text, mark) =>
    text.startsWith(mark) && harmless(text.slice(mark.length), mark) === text ? text.slice(mark.length) : text;
  const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const line = (place, ...others) => [harmless(place, "./"), ...others.map((text) => harmless(text, "'"))].map(quoted).join(",") + "\n";

  function download() {
    const header = "path,decision,label,given_label\n";
    const lines = [...decided].map(([place, made]) => line(place, made.decision, made.label, made.given));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([header, ...lines.sort()], { type: "text/csv" }));
    link.download = "decisions.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    say(`${decided.size} decisions downloaded`);
  }

  // As divacli/curate/decisions.py sees it: no label.
  const blank = (label) => /^[\s\x1c-\x1f\x85]*$/.test(label);

  function parsed(text) {
    const table = [[""]];
    let inQuotes = false;
    for (let i = text.charCodeAt(0) === 0xfeff ? 1 : 0; i < text.length; i++) {
      const c = text[i];
      const row = table.at(-1);
      if (inQuotes) {
        if (c !== '"') row[row.length - 1] += c;
        else if (text[i + 1] === '"') row[row.length - 1] += text[++i];
        else inQuotes = false;
      } else if (c === '"') inQuotes = true;
      else if (c === ",") row.push("");
      else if (c === "\n") table.push([""]);
      else if (c !== "\r") row[row.length - 1] += c;
    }
    return table.filter((row) => row.length > 1);
  }

  async function load(file) {
    const [header, ...lines] = parsed(await file.text());
    const at = (name) => header?.indexOf(name) ?? -1;
    if (at("path") < 0 || at("decision") < 0) {
      return alertOf(`${file.name} has no columns path and decision: it holds no decisions.`);
    }
    const cell = (row, name) => restoredCell(row[at(name)] ?? "", name === "path" ? "./" : "'");
    const onPage = new Map(samples.place.map((place, row) => [place, row]));
    const found = new Map();
    const left = { "about other images": 0, "made when the label was another": 0, "without a decision": 0 };
    let replaced = 0;
    for (const row of lines) {
      const place = cell(row, "path");
      const decision = cell(row, "decision").trim().toLowerCase();
      const given = onPage.has(place) ? (classes[samples.label[onPage.get(place)]] ?? "") : cell(row, "given_label");
      const label = decision === "relabel" ? cell(row, "label") : given;
      if (!onPage.has(place) && (served || !report.root || !place.startsWith(`${report.root}/`))) left["about other images"]++;
      else if (!Object.hasOwn(MARKS, decision) || (decision === "relabel" && blank(label))) left["without a decision"]++;
      else if (cell(row, "given_label") && cell(row, "given_label") !== given) left["made when the label was another"]++;
      else {
        const mine = decided.get(place);
        if (mine && (mine.decision !== decision || mine.label !== label)) replaced++;
        found.set(place, entry(decision, label, given));
      }
    }
    if (found.size) change(found, null);
    const lost = Object.entries(left).filter(([, n]) => n).map(([why, n]) => `${n} ${why}`);
    alertOf(lost.length ? `Of ${file.name} were left out: ${lost.join(", ")}.` : "");
    say(`${found.size} decisions loaded${replaced ? `; ${replaced} of them replaced others` : ""}. U takes all of them back.`);
    refresh();
  }

  // ---- Lists --------------------------------------------------------------------------------------------

  const SORTS = {
    list: ["as listed", null],
    harmful: ["most harmful", (a, b) => samples.derivative[b] - samples.derivative[a]],
    useful: ["most useful", (a, b) => samples.derivative[a] - samples.derivative[b]],
    wrong: ["most probably wrong", (a, b) => samples.wrong[b] - samples.wrong[a]],
    loss: ["largest LOO loss", (a, b) => samples.loss[b] - samples.loss[a]],
    path: ["path", (a, b) => collator.compare(samples.path[a], samples.path[b])],
  };
  const NEEDS = { harmful: "derivative", useful: "derivative", wrong: "wrong", loss: "loss" };

  function options(select, items) {
    select.replaceChildren(...items.map(([value, text]) => new Option(text, value)));
  }

  function choose(name) {
    gallery = report.galleries.find((one) => one.name === name) ?? report.galleries[0];
    for (const button of $("galleries").children) button.setAttribute("aria-pressed", button.value === gallery.name);
    $("about").textContent = gallery.about;
    scale = largest();
    for (const [id, column] of [["by-label", "label"], ["by-suggested", "suggested"]]) {
      const counts = new Map();
      for (const row of samples[column] ? gallery.rows : []) {
        const number = samples[column][row];
        if (number >= 0) counts.set(number, (counts.get(number) ?? 0) + 1);
      }
      const names = [...counts].map(([number, n]) => [number, `${classes[number]} (${n})`]);
      options($(id), [["", "all"], ...names.sort((a, b) => collator.compare(a[1], b[1]))]);
      $(id).parentElement.hidden = !counts.size;
    }
    filter();
  }

  function filter() {
    const [label, suggested, decision] = ["by-label", "by-suggested", "by-decision"].map((id) => $(id).value);
    const wanted = $("search").value.toLowerCase();
    rows = gallery.rows.filter((row) => {
      if (label && samples.label[row] !== Number(label)) return false;
      if (suggested && samples.suggested[row] !== Number(suggested)) return false;
      const made = decided.get(samples.place[row])?.decision;
      if (decision && (decision === "none" ? made : decision === "any" ? !made : made !== decision)) return false;
      return !wanted || samples.path[row].toLowerCase().includes(wanted);
    });
    const order = SORTS[$("sort").value]?.[1];
    if (order) rows = [...rows].sort(order);
    showPage(0);
  }

  // Bars are as long whatever the filters and the page.
  function largest() {
    const sizes = (row) => Math.abs(samples.derivative?.[row] ?? 0) + (samples.se?.[row] ?? 0);
    return gallery.rows.reduce((most, row) => Math.max(most, sizes(row)), 0);
  }

  function showPage(number) {
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    page = Math.min(Math.max(number, 0), pages - 1);
    current = 0;
    const shown = rows.slice(page * PAGE, (page + 1) * PAGE);
    $("cards").replaceChildren(...shown.map(card));
    $("page").textContent = rows.length ? `Page ${page + 1} of ${pages}` : "No image passes the filters";
    $("previous").disabled = page === 0;
    $("next").disabled = page >= pages - 1;
    $("pager").hidden = rows.length > 0 && pages === 1;
    tabStop();
    refresh();
    if (served && report.neighbours && shown.length) fetchNeighbours(shown);
  }

  // One question for all cards of a page: answering it takes one pass over the features of all samples.
  async function fetchNeighbours(shown) {
    const items = [...$("cards").children];
    try {
      const found = await (await fetch(`near?rows=${shown.join(",")}`)).json();
      shown.forEach((row, position) => neighbours(items[position].querySelector(".near"), row, found[position]));
    } catch {
      // The cards say without neighbours what they can.
    }
  }

  function refresh() {
    const inList = gallery.rows.filter((row) => decided.has(samples.place[row])).length;
    const more = gallery.total > gallery.rows.length ? ` (the first of ${gallery.total.toLocaleString("en")}; diva review shows all)` : "";
    const shown = rows.length === gallery.rows.length ? "" : `${rows.length.toLocaleString("en")} shown of `;
    $("progress").textContent =
      `${shown}${gallery.rows.length.toLocaleString("en")} images${more}; ` +
      `${inList.toLocaleString("en")} of them decided, ${decided.size.toLocaleString("en")} in all` +
      (!served ? "" : pending.size ? `; ${pending.size.toLocaleString("en")} not saved yet` : "; saved in decisions.csv");
    $("download").disabled = !decided.size;
    [...$("cards").children].forEach((item, position) => mark(item, rows[page * PAGE + position]));
  }

  // ---- Cards --------------------------------------------------------------------------------------------

  const known = (column, row) => samples[column] && samples[column][row] !== null && samples[column][row] !== undefined;

  // The class that the label may be in place of the given one; null where none is known.
  function suggestion(row) {
    const number = samples.suggested?.[row] ?? -1;
    return number >= 0 && number !== samples.label[row] ? classes[number] : null;
  }

  function amount(value) {
    const size = Math.abs(value);
    return size >= 0.01 || size === 0 ? value.toFixed(size >= 100 ? 1 : size >= 1 ? 3 : 4) : value.toExponential(2);
  }
  const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + amount(Math.abs(value));
  const percent = (share) =>
    share > 0.9995 ? "> 99.9 %" : share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(share > 0.995 || share < 0.005 ? 1 : 0)} %`;

  function picture(image, source, side, missing) {
    if (!source) return missing();
    image.addEventListener("load", () => image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= side));
    image.addEventListener("error", missing);
    image.src = source;
  }

  const thumbnail = (row) => (served ? (samples.image[row] ? `thumbnail/${row}` : null) : report.thumbnails[row]);

  function card(row, position) {
    const item = $("card").content.firstElementChild.cloneNode(true);
    const find = (selector) => item.querySelector(selector);
    const article = find("article");
    const given = classes[samples.label[row]] ?? "";
    const suggested = suggestion(row);
    article.setAttribute("aria-label", `${samples.path[row]}, labelled ${given}${suggested ? `, suggested ${suggested}` : ""}`);
    article.addEventListener("focusin", () => { current = position; tabStop(); });

    const image = find(".image img");
    image.alt = "";
    picture(image, thumbnail(row), 64, () => { image.hidden = true; find(".no-image").hidden = false; find(".image").disabled = !served; });
    find(".image").setAttribute("aria-label", `See ${samples.path[row]} large`);
    find(".image").addEventListener("click", () => { current = position; zoom(row); });

    find(".given").textContent = given || "no label";
    find(".suggested").textContent = suggested ?? "";
    find(".suggested").classList.toggle("unlikely", known("wrong", row) && samples.wrong[row] <= 0.5);
    find(".arrow").hidden = suggested === null;
    const verdict = [];
    if (suggested && known("sure", row)) verdict.push(`${suggested} is right: ${percent(samples.sure[row])}`);
    if (known("reason", row) && samples.reason[row]) verdict.push(samples.reason[row]);
    find(".verdict").textContent = verdict.join("; ");

    const figure = (name, text, kind) => {
      const part = find(`.of-${name}`);
      part.hidden = text === null;
      part.querySelector("dd").textContent = text ?? "";
      if (kind) part.querySelector("dd").className = kind;
    };
    const derivative = known("derivative", row) ? samples.derivative[row] : null;
    const error = known("se", row) ? samples.se[row] : null;
    const kind = derivative > 0 ? "harmful" : "useful";
    figure("derivative", derivative === null ? null : `${signed(derivative)}${error === null ? "" : ` ± ${amount(error)}`}, ${kind}`, kind);
    figure("loss", known("loss", row) ? amount(samples.loss[row]) : null);
    figure("wrong", known("wrong", row) ? percent(samples.wrong[row]) : null);
    figure("outlier", known("outlier", row) ? amount(samples.outlier[row]) : null);
    figure("weight", known("weight", row) && samples.weight[row] !== 1 ? amount(samples.weight[row]) : null);
    if (derivative !== null && scale > 0) find(".bar-of").append(bar(derivative, error ?? 0));
    find(".path").textContent = samples.path[row];
    if (report.near?.[row]) neighbours(find(".near"), row, report.near[row]);

    const relabel = find('[data-do="relabel"]');
    relabel.textContent = suggested === null ? "Relabel" : `→ ${suggested}`;
    relabel.hidden = suggested === null;
    for (const button of item.querySelectorAll(".choice button")) {
      const name = button.dataset.do;
      const what = name === "other" ? "Another label for" : name === "relabel" ? `Relabel as ${suggested}:` : MARKS[name];
      button.setAttribute("aria-label", `${button.textContent} (${what} ${samples.path[row]})`);
      button.addEventListener("click", () => act(position, name, button.getAttribute("aria-pressed") === "true"));
    }
    return item;
  }

  function mark(item, row) {
    const made = decided.get(samples.place[row]);
    item.firstElementChild.dataset.decision = made?.decision ?? "";
    item.querySelector(".state").textContent = !made ? "" : made.decision === "relabel" ? `relabel as ${made.label}` : made.decision;
    for (const button of item.querySelectorAll(".choice button")) {
      const other = made?.decision === "relabel" && made.label !== suggestion(row);
      button.setAttribute("aria-pressed", other ? button.dataset.do === "other" : button.dataset.do === made?.decision);
    }
  }

  function bar(derivative, error) {
    const shape = (name, attributes) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      return made;
    };
    const x = (value) => 100 + (98 * value) / scale;
    const svg = shape("svg", { viewBox: "0 0 200 12", preserveAspectRatio: "none", "aria-hidden": "true" });
    const [low, high] = [x(Math.min(0, derivative)), x(Math.max(0, derivative))];
    svg.append(
      shape("line", { class: "zero", x1: 100, x2: 100, y1: 0, y2: 12 }),
      shape("rect", { class: derivative > 0 ? "harm" : "use", x: low, width: Math.max(high - low, 0.5), y: 3, height: 6 }),
      shape("line", { class: "span", x1: x(derivative - error), x2: x(derivative + error), y1: 6, y2: 6 }),
    );
    return svg;
  }

  function neighbours(place, row, near) {
    const parts = [[classes[samples.label[row]], near[0]], [suggestion(row), near[1]]];
    for (const [label, found] of parts) {
      if (label === null || !found) continue;
      const part = document.createElement("div");
      const text = document.createElement("p");
      text.textContent = found.length ? `nearest of ${label}: ${found.map((one) => one[1].toFixed(2)).join(", ")}` : `no other of ${label}`;
      const list = document.createElement("ul");
      for (const [number, cosine] of found) {
        const item = document.createElement("li");
        const image = document.createElement("img");
        const path = served ? samples.path[number] : report.others.path[number];
        image.alt = `labelled ${label}, similarity ${cosine.toFixed(2)}: ${path}`;
        item.title = image.alt;
        const source = served ? (samples.image[number] ? `thumbnail/${number}?small` : null) : report.others.thumbnail[number];
        picture(image, source, 48, () => { image.remove(); item.textContent = cosine.toFixed(2); });
        item.append(image);
        list.append(item);
      }
      part.append(text, list);
      place.append(part);
    }
  }

  // ---- Keys and dialogs ---------------------------------------------------------------------------------

  const cards = () => [...$("cards").querySelectorAll("article")];

  function tabStop() {
    cards().forEach((article, position) => { article.tabIndex = position === current ? 0 : -1; });
  }

  function focusCard(position) {
    const all = cards();
    if (!all.length) return;
    current = Math.min(Math.max(position, 0), all.length - 1);
    tabStop();
    if (!$("zoom").open) all[current].focus();
    all[current].scrollIntoView({ block: "nearest", behavior: "instant" });
  }

  function columns() {
    const all = cards();
    const top = all[0]?.getBoundingClientRect().top;
    const next = all.findIndex((one) => one.getBoundingClientRect().top > top + 1);
    return next < 0 ? all.length : next;
  }

  function move(by) {
    const focused = $("zoom").open || cards()[current] === document.activeElement;
    const target = focused ? current + by : current;
    const full = cards().length;
    if (target >= full && (page + 1) * PAGE < rows.length) {
      showPage(page + 1);
      focusCard(0);
    } else if (target < 0 && page > 0) {
      showPage(page - 1);
      focusCard(PAGE - 1);
    } else focusCard(target);
    if ($("zoom").open) zoom(rows[page * PAGE + current]);
  }

  // Cards that can be seen: a key never decides about another one.
  function inView(article) {
    const { top, bottom } = article.getBoundingClientRect();
    return bottom > 60 && top < innerHeight - 20;
  }

  function focusVisible() {
    const all = cards();
    const first = inView(all[current] ?? document.body) ? current : all.findIndex(inView);
    focusCard(first < 0 ? current : first);
  }

  // Decide about a card, and go to the next one; a button that is pressed already takes the decision back.
  function act(position, name, pressed = false) {
    const row = rows[page * PAGE + position];
    if (row === undefined) return;
    current = position;
    if (pressed && name !== "other") {
      change(new Map([[samples.place[row], undefined]]), row);
      say(`Undecided: ${samples.path[row]}`);
      refresh();
      return focusCard(position);
    }
    if (name === "other") return otherLabel(row);
    const suggested = suggestion(row);
    if (name === "relabel" && suggested === null) return otherLabel(row);
    settle(row, name, suggested);
  }

  function settle(row, name, label) {
    const position = current;
    decide(row, name, label);
    refresh();
    if (page * PAGE + position + 1 >= rows.length) say(`${$("said").textContent}. This was the last image of the list.`);
    if (!$("zoom").open) focusCard(position);
    move(1);
  }

  function otherLabel(row) {
    const position = current;
    const made = decided.get(samples.place[row]);
    $("relabel-label").value = made?.decision === "relabel" ? made.label : "";
    $("relabel-path").textContent = samples.path[row];
    $("relabel-image").hidden = !thumbnail(row);
    $("relabel-image").src = thumbnail(row) ?? "data:,";
    newLabel();
    $("relabel").returnValue = "";
    $("relabel").onclose = () => {
      const label = meant($("relabel-label").value);
      focusCard(position);
      if ($("relabel").returnValue === "ok" && !blank(label)) settle(row, label === classes[samples.label[row]] ? "keep" : "relabel", label);
    };
    $("relabel").showModal();
    $("relabel-label").focus();
  }

  // The class that was typed. An input has no line breaks, and people type no outer spaces; labels may have both.
  function meant(typed) {
    const normal = (text) => text.trim().replaceAll(/\s+/g, " ");
    return classes.find((name) => name === typed) ?? classes.find((name) => normal(name) === normal(typed)) ?? typed.trim();
  }

  function newLabel() {
    const label = meant($("relabel-label").value);
    $("relabel-new").textContent = label && !classes.includes(label) ? `“${label}” is a new class.` : "";
    delete $("relabel-new").dataset.confirmed;
  }

  // A new class may be a slip: it is asked for twice.
  function confirmed(event) {
    const label = meant($("relabel-label").value);
    if (classes.includes(label) || $("relabel-new").dataset.confirmed) return;
    event.preventDefault();
    $("relabel-new").textContent = `“${label}” is a new class. Press Relabel, or Enter, once more to make it.`;
    $("relabel-new").dataset.confirmed = "once";
  }

  function zoom(row) {
    const suggested = suggestion(row);
    $("zoom-labels").textContent = (classes[samples.label[row]] ?? "") + (suggested === null ? "" : ` → ${suggested}`);
    const made = decided.get(samples.place[row]);
    $("zoom-state").textContent = !made ? "" : `(${made.decision === "relabel" ? `relabel as ${made.label}` : made.decision})`;
    const image = $("zoom-image");
    const small = thumbnail(row);
    // The server sends every image as one; a file by its own name may be a page, which a link would open.
    const file = served ? (samples.image[row] ? `image/${row}` : null) : samples.file[row];
    const link = served ? file : samples.link[row];
    image.onload = () => image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= 64);
    image.onerror = () => { image.onerror = null; if (small) image.src = small; };
    image.src = (small && file) ?? small ?? "data:,";
    image.alt = samples.path[row];
    $("zoom-title").textContent = samples.path[row];
    $("zoom-file").hidden = link === null;
    if (link === null) $("zoom-file").removeAttribute("href");
    else $("zoom-file").href = link;
    // The browser gives the focus back to the card that had it; the one that was seen last is to have it.
    const position = current;
    $("zoom").onclose = () => focusCard(position);
    if (!$("zoom").open) $("zoom").showModal();
  }

  const KEYS = {
    ArrowRight: () => move(1),
    ArrowLeft: () => move(-1),
    ArrowDown: () => move(columns()),
    ArrowUp: () => move(-columns()),
    k: () => act(current, "keep"),
    d: () => act(current, "drop"),
    r: () => act(current, "relabel"),
    l: () => act(current, "other"),
    u: undo,
    "/": () => $("search").focus(),
    "?": () => $("keys").showModal(),
    "[": () => { showPage(page - 1); focusCard(0); },
    "]": () => { showPage(page + 1); focusCard(0); },
    Enter: () => zoom(rows[page * PAGE + current]),
  };

  const IN_ZOOM = ["ArrowRight", "ArrowLeft", "k", "d", "r", "l", "u"];

  let byPointer = false;
  document.addEventListener("pointerdown", () => { byPointer = true; }, true);

  document.addEventListener("keydown", (event) => {
    byPointer = false;
    const zoomed = $("zoom").open && IN_ZOOM.includes(event.key.length === 1 ? event.key.toLowerCase() : event.key);
    const typing = event.target.closest?.("input, select, textarea, dialog, .plot, .scroll");
    if (event.key === "Escape" && event.target === $("search")) return focusCard(current);
    if ((typing && !zoomed) || event.ctrlKey || event.metaKey || event.altKey || !gallery) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    // A key that is held down decides about one image.
    if (event.repeat && "kdrlu".includes(key)) return;
    // Keys that buttons and links answer themselves; and decisions are of the card that has the focus.
    const onCard = event.target.closest?.("#cards article");
    if (key === "Enter" && (!onCard || event.target !== onCard)) return;
    if (["k", "d", "r", "l", "Enter"].includes(key) && !zoomed && (!onCard || !inView(onCard))) {
      event.preventDefault();
      say("This card is the one that keys decide about.");
      return focusVisible();
    }
    if (Object.hasOwn(KEYS, key)) {
      event.preventDefault();
      KEYS[key]();
    }
  });

  // ---- Start --------------------------------------------------------------------------------------------

  function start() {
    samples = report.samples;
    classes = report.classes;
    if (!report.galleries.length) return;
    decided = served ? entries(report.decisions) : stored();
    saved = new Map(decided);
    $("galleries").append(
      ...report.galleries.map((one) => {
        const button = document.createElement("button");
        button.type = "button";
        button.value = one.name;
        button.textContent = `${one.title} (${one.total.toLocaleString("en")})`;
        button.addEventListener("click", () => choose(one.name));
        return button;
      }),
    );
    options($("sort"), Object.entries(SORTS).filter(([name]) => !NEEDS[name] || samples[NEEDS[name]]).map(([name, [text]]) => [name, text]));
    options($("classes"), classes.map((name) => [name, ""]));
    for (const id of ["by-label", "by-suggested", "by-decision", "sort"]) {
      $(id).addEventListener("change", () => {
        filter();
        if (byPointer) $(id).blur(); // keys decide again, and do not choose in the filter
      });
    }
    let typed;
    $("search").addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(filter, 120); });
    $("previous").addEventListener("click", () => showPage(page - 1));
    $("next").addEventListener("click", () => showPage(page + 1));
    $("download").addEventListener("click", download);
    $("load").addEventListener("click", () => $("file").click());
    $("file").addEventListener("change", async () => {
      if ($("file").files[0]) await load($("file").files[0]);
      $("file").value = "";
    });
    $("help").addEventListener("click", () => $("keys").showModal());
    $("relabel-label").addEventListener("input", newLabel);
    $("relabel-form").addEventListener("submit", confirmed);
    for (const name of classes.length <= 40 ? classes : []) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => { $("relabel-label").value = name; $("relabel").close("ok"); });
      $("relabel-classes").append(button);
    }
    for (const button of $("zoom").querySelectorAll("[data-do]")) {
      const name = button.dataset.do;
      button.addEventListener("click", () => (name === "previous" ? move(-1) : name === "next" ? move(1) : act(current, name)));
    }
    $("relabel-cancel").addEventListener("click", () => $("relabel").close());
    $("reviewer").hidden = false;
    choose(report.galleries[0].name);
  }

  if (served) {
    fetch("data")
      .then((answer) => answer.json())
      .then((found) => { Object.assign(report, found); start(); })
      .catch((error) => { $("review").append(`The samples could not be loaded: ${error.message}`); });
  } else start();
})();
