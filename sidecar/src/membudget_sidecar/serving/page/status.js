// Draws one sidecar's answers, again every second. Names come from other people's collections: every text is set as
// text, never as markup. A figure that could not be read is a dash with its reason, never a zero.
"use strict";

const EVERY_MS = 1000;
const MIB = 1024 * 1024;
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const mebibytes = (bytes) => (bytes == null ? "–" : `${(bytes / MIB).toFixed(1)} MiB`);
const percent = (part, whole) => (part == null || !whole ? "–" : `${((100 * part) / whole).toFixed(0)} %`);
const clamped = (share) => Math.max(0, Math.min(1, share));

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" });
  const said = await answer.json();
  if (!answer.ok) throw new Error(`${said.reason}: ${said.detail}`);
  return said;
}

function drawn(name, attributes, text) {
  const shape = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
  if (text !== undefined) shape.textContent = text;
  return shape;
}

function cell(text, kind) {
  const made = document.createElement("td");
  if (kind) made.className = kind;
  if (text instanceof Node) made.append(text);
  else made.textContent = text;
  return made;
}

function rows(id, lines) {
  const made = lines.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells);
    return row;
  });
  byId(id).tBodies[0].replaceChildren(...made);
}

function shareOf(part, whole) {
  if (part == null || !whole) return "–";
  const meter = document.createElement("meter");
  meter.max = 1;
  meter.value = clamped(part / whole);
  meter.title = percent(part, whole);
  return meter;
}

function drawHead(status) {
  const policy = status.policy || "built-in profile";
  byId("subject").textContent = `${policy} · ${status.mode} · engine ${status.engine}` + (status.enginePid ? `, pid ${status.enginePid}` : "");
  byId("level").textContent = status.level;
  byId("level").className = `level ${status.level}`;
  byId("alerts").replaceChildren(
    ...status.alerts.map((alert) => {
      const line = document.createElement("li");
      line.textContent = `${alert.name}: ${alert.detail}`;
      return line;
    }),
  );
}

function drawBudget(status, thresholds) {
  const used = status.usage.value;
  byId("usage").textContent = `${mebibytes(used)} of ${mebibytes(status.budgetBytes)} (${percent(used, status.budgetBytes)})`;
  byId("signal").textContent = used == null ? `not read: ${status.usage.absent}` : `${status.signal}, container limit ${mebibytes(status.limit.value)}`;
  const shapes = [drawn("rect", { class: "track", x: 0, y: 0, width: 1000, height: 26, rx: 4 })];
  if (used != null) shapes.push(drawn("rect", { class: "used", x: 0, y: 0, width: 1000 * clamped(used / status.budgetBytes), height: 26, rx: 4 }));
  for (const rung of thresholds.rungs) {
    const x = 1000 * clamped(rung.entryBytes / status.budgetBytes);
    shapes.push(drawn("line", { class: `mark ${rung.name}-line`, x1: x, x2: x, y1: 0, y2: 34 }));
    const last = rung.name === "Emergency";
    if (rung.name !== "Collect") shapes.push(drawn("text", { x, y: 54, "text-anchor": last ? "start" : "middle", dx: last ? -18 : 0 }, `${rung.percent}`));
  }
  byId("bar").replaceChildren(...shapes);
  const foretold = status.forecast;
  byId("outlook").textContent = foretold.seconds == null
    ? `No time to the limit: ${foretold.absent}.`
    : `${mebibytes(foretold.limitBytes)} are met in ${foretold.seconds.toFixed(0)} s, ${(100 * (foretold.confidence || 0)).toFixed(0)} % confidence.`;
}

function drawHistory(history, thresholds, budget) {
  const samples = history.samples.filter((sample) => sample.usedBytes != null);
  const top = Math.max(budget, ...samples.map((sample) => sample.usedBytes));
  const y = (bytes) => 210 - 200 * (bytes / top);
  const shapes = thresholds.rungs
    .filter((rung) => rung.name !== "Collect")
    .map((rung) => drawn("line", { class: `entry ${rung.name}-line`, x1: 0, x2: 1000, y1: y(rung.entryBytes), y2: y(rung.entryBytes) }));
  if (samples.length > 1) {
    const [first, last] = [samples[0].at, samples[samples.length - 1].at];
    const x = (at) => (last > first ? (1000 * (at - first)) / (last - first) : 0);
    shapes.push(drawn("polyline", { class: "trace", points: samples.map((sample) => `${x(sample.at).toFixed(1)},${y(sample.usedBytes).toFixed(1)}`).join(" ") }));
    byId("span").textContent = `${samples.length} samples over ${(last - first).toFixed(0)} s; peak since the engine began ${mebibytes(history.peakBytes)}.`;
  } else {
    byId("span").textContent = "Not enough samples yet.";
  }
  byId("history").replaceChildren(...shapes);
}

function drawBreakdown(breakdown) {
  rows("components", breakdown.components.map((use) => [
    cell(use.name), cell(mebibytes(use.countedBytes), "figure"), cell(use.enforced ? mebibytes(use.ceilingBytes) : "not enforced", "figure"),
    cell(shareOf(use.countedBytes, use.ceilingBytes)), cell(use.state || "–", use.state || ""),
  ]));
  const whole = breakdown.resident.figure.value;
  rows("owners", breakdown.resident.parts.map((part) => [
    cell(part.name), cell(mebibytes(part.partBytes), "figure"), cell(shareOf(part.partBytes, whole)), cell(part.source),
  ]));
}

function freed(record) {
  const [before, after] = [record.signalBeforeBytes, record.signalAfterBytes];
  return before == null || after == null ? null : before - after;
}

function drawActions(actions) {
  rows("actions", actions.slice(-12).reverse().map((record) => [
    cell(new Date(1000 * record.queuedAt).toLocaleTimeString([], { hour12: false })), cell(record.kind), cell(record.status, record.status),
    cell(record.askedBytes ? mebibytes(record.askedBytes) : "–", "figure"), cell(mebibytes(freed(record)), "figure"),
    cell(record.durationSeconds == null ? "–" : `${(1000 * record.durationSeconds).toFixed(0)} ms`, "figure"), cell(record.harm || record.error || record.cause),
  ]));
}

async function look() {
  try {
    const [status, thresholds, history, actions, breakdown] = await Promise.all(
      ["v1/status", "v1/thresholds", "v1/history?last=300", "v1/actions", "v1/breakdown"].map(ask),
    );
    drawHead(status);
    drawBudget(status, thresholds);
    drawHistory(history, thresholds, status.budgetBytes);
    drawBreakdown(breakdown);
    drawActions(actions.actions);
    byId("trouble").hidden = true;
  } catch (error) {
    byId("trouble").textContent = `No answer since ${new Date().toLocaleTimeString([], { hour12: false })}: ${error.message}. What stands below is older.`;
    byId("trouble").hidden = false;
  }
  setTimeout(look, EVERY_MS);
}

look();
