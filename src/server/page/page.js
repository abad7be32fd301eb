// Draws what /events sends. It changes nothing and loads nothing else.
"use strict";

const SHOWN = 30 * 60 * 1000; // the width of a timeline, in milliseconds
const $ = (id) => document.getElementById(id);

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function drawing(label, parts) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const attributes = { viewBox: "0 0 1000 10", preserveAspectRatio: "none", role: "img", "aria-label": label };
  for (const [key, value] of Object.entries(attributes)) svg.setAttribute(key, value);
  for (const { from, to, kind } of parts) {
    const rect = document.createElementNS(space, "rect");
    const place = { x: from * 1000, width: Math.max(0, to - from) * 1000, y: 0, height: 10, class: kind };
    for (const [key, value] of Object.entries(place)) rect.setAttribute(key, value);
    svg.append(rect);
  }
  return svg;
}

function table(columns, rows, none) {
  if (rows.length === 0) return element("p", none);
  const made = element("table");
  const head = made.createTHead().insertRow();
  for (const column of columns) head.append(element("th", column, { scope: "col" }));
  const body = made.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    for (const cell of cells) {
      row.append(element("td", String(cell), typeof cell === "number" ? { class: "number" } : {}));
    }
  }
  rows[0].forEach((cell, i) => typeof cell === "number" && head.cells[i].setAttribute("class", "number"));
  return made;
}

const put = (id, ...children) => $(id).replaceChildren(...children);
const time = (date) => (date ? new Date(date).toLocaleString() : "never");

function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const found = parts.findIndex(([size]) => seconds >= size);
  if (found < 0) return "0 s";
  const [size, unit] = parts[found];
  const rest = parts[found + 1];
  const more = rest ? Math.floor((seconds % size) / rest[0]) : 0;
  return `${Math.floor(seconds / size)} ${unit}${more ? ` ${more} ${rest[1]}` : ""}`;
}

function summary(status, now) {
  const [first, ...more] = status.findings;
  const sentence = first ? first.sentence : "All is well.";
  $("summary").dataset.party = first ? first.party : "none";
  // Only a new sentence is announced to a screen reader.
  if ($("sentence").textContent !== sentence) $("sentence").textContent = sentence;
  $("since").textContent = first
    ? `Who can act: ${PARTIES[first.party]}. Since ${time(first.since)}, ${span(now - Date.parse(first.since))}.`
    : "";
  put("more", ...more.map((finding) => element("li", `${finding.sentence} (${PARTIES[finding.party]})`)));
  document.title = first ? `holdfast: ${PARTIES[first.party]}` : "holdfast: all is well";
}

const PARTIES = {
  holdfast: "us", issuer: "the identity provider", tenant_limit: "our tenant's limit",
  operator: "an operator of ours", redis: "Redis", disk: "the disk",
};

function tiers(status, now) {
  const by = (series) => Object.fromEntries(series.map(({ tier, value }) => [tier, value]));
  const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);
  const users = by(status.stale_users);
  const people = sum(users);
  const most = Math.max(1, ...Object.values(users));
  const lockout = status.first_lockout;
  $("stale-note").textContent = people === 0
    ? "Nobody: every answer is fresh, or confirmed by the issuer."
    : `${people} in the last ten minutes.` +
      (lockout ? ` If this goes on, the first of them is locked out ${time(lockout)},` +
        ` in ${span(Date.parse(lockout) - now)}.` : "");
  $("stale-answers").textContent = `Such answers since the start: ${sum(by(status.stale_answers))}.`;
  put("tiers", ...status.tiers.map(({ name, age_seconds: age, role }) => {
    const count = users[name] ?? 0;
    const row = element("div", undefined, { class: "row" });
    const label = element("div", undefined, { class: "label" });
    label.append(element("span", `${name} (up to ${span(age * 1000)}, ${role})`), element("span", String(count)));
    row.append(label, drawing(`${name}: ${count} users`, [{ from: 0, to: count / most, kind: "bar" }]));
    return row;
  }));
}

function endpoints(status) {
  return status.issuers.flatMap(({ url, endpoints }) =>
    Object.entries(endpoints).map(([name, endpoint]) => ({ issuer: url, name, ...endpoint })));
}

function breakers(status, now) {
  put("breakers", ...endpoints(status).map(({ issuer, name, breaker, changes, reason, since, until, forced }) => {
    const start = now - SHOWN;
    // Times are whole seconds; the state of this second is drawn, too.
    const at = (moment) => Math.min(0.996, Math.max(0, (moment - start) / SHOWN));
    const changed = changes.map((change) => ({ at: Date.parse(change.at), breaker: change.breaker }));
    const marks = [{ at: 0, breaker: "closed" }, ...changed];
    const parts = marks.map((mark, i) => ({
      from: at(mark.at), to: i + 1 < marks.length ? at(marks[i + 1].at) : 1, kind: `state-${mark.breaker}`,
    })).filter(({ from, to }) => to > from);
    const words = [breaker.replace("_", "-"), forced && "forced by an operator",
      since && breaker !== "closed" && `since ${time(since)}`, breaker !== "closed" && reason && `because of ${reason}`,
      until && `next probe ${time(until)}`].filter(Boolean).join(", ");
    const row = element("div", undefined, { class: "row" });
    const label = element("div", undefined, { class: "label" });
    label.append(element("span", `${name} of ${issuer}`), element("span", words, { class: "words" }));
    row.append(label, drawing(`breaker of ${name} of ${issuer}: ${words}`, parts));
    return row;
  }));
}

function rest(status) {
  put("budgets", table(["endpoint", "issuer", "left", "per second", "burst", "waiting", "left at the issuer"],
    endpoints(status).map(({ issuer, name, budget }) => [name, issuer, Math.floor(budget.available), budget.rate,
      budget.burst, budget.waiting, budget.learned
        ? `${budget.learned.available} until ${time(budget.learned.until)}` : "not said"])));
  const fetched = Object.fromEntries(status.keys_fetched.map(({ issuer, value }) => [issuer, value]));
  const date = (seconds) => (seconds > 0 ? time(seconds * 1000) : "never");
  put("keys", table(["issuer", "fetched", "keys in use", "held", "skipped"], status.issuers.map((issuer) =>
    [issuer.url, date(fetched[issuer.url]), issuer.keys.join(", ") || "none", issuer.held_keys.join(", ") || "none",
      issuer.skipped_keys.join("; ") || "none"])));
  const refused = status.requests.filter(({ outcome, value }) => outcome !== "allow" && value > 0);
  refused.sort((a, b) => b.value - a.value);
  put("refusals", table(["answers", "outcome", "reason"],
    refused.map(({ outcome, reason, value }) => [value, outcome, reason]), "None."));
  put("fleet", table(["part", "state"], [
    ["disk store", status.disk_degraded ? "degraded" : "well, or none"],
    ["Redis", status.shared_degraded ? "degraded" : "well, or none"],
    ["revocations", status.revocations_behind ? "may be missing" : "current"],
  ]));
  const { configuration } = status;
  put("configuration", table(["what", "value"], [
    ["hash of all settings", configuration.hash], ["hash of the issuers", configuration.issuers ?? "none"],
    ["hash of the store", configuration.store ?? "none"], ["loaded", time(configuration.loaded)],
    ["plan", configuration.plan || "not set"], ["verdict ceiling", status.verdict_ceiling],
    ...status.certificates_expire.map(({ listener, value }) => [`certificate of ${listener} expires`, date(value)]),
  ]));
}

function draw(status) {
  const now = Date.parse(status.time);
  $("version").textContent = status.version;
  summary(status, now);
  tiers(status, now);
  breakers(status, now);
  rest(status);
}

function connection(state, words) {
  $("connection").dataset.state = state;
  if ($("connection").textContent !== words) $("connection").textContent = words;
}

const events = new EventSource("/events");
events.onmessage = (event) => {
  draw(JSON.parse(event.data));
  connection("live", "live");
};
events.onerror = () => connection("lost", "no connection to holdfast: what you see is old");
