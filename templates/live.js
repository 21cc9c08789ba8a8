"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const put = (id, text) => { const e = $(id); if (e.textContent !== text) e.textContent = text; };
  const NBSP = "\u00a0";
  const digits = (n) => (n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n.toFixed(2)).replace(/\.?0+$/, (zeros) => (zeros.includes(".") ? "" : zeros));
  const scaled = (n) => {
    for (const unit of ["", "k", "M", "G", "T"]) { if (n < 1000 || unit === "T") return [unit ? digits(n) : String(Math.round(n)), unit]; n /= 1000; }
  };
  const size = (n) => { const [number, unit] = scaled(n); return `${number}${NBSP}${unit}B`; };
  const count = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");
  const span = (s) => {
    if (!isFinite(s)) return "\u2013";
    s = Math.round(s);
    if (s < 60) return `${s}${NBSP}s`;
    if (s < 3600) return `${Math.floor(s / 60)}${NBSP}min${NBSP}${s % 60}${NBSP}s`;
    if (s < 86400) return `${Math.floor(s / 3600)}${NBSP}h${NBSP}${Math.floor(s / 60) % 60}${NBSP}min`;
    return `${Math.floor(s / 86400)}${NBSP}d${NBSP}${Math.floor(s / 3600) % 24}${NBSP}h`;
  };
  const within = (s) => s === null ? "over an hour" : s < 1 ? `${digits(s * 1000)}${NBSP}ms` : span(s);
  const big = (id, number, unit) => {
    const small = document.createElement("small");
    small.textContent = unit;
    $(id).replaceChildren(number, ...(unit ? [small] : []));
  };
  const known = ["sendfile", "splice", "mmap-write", "read-write", "plain"];
  const shade = (route) => `r-${known.includes(route) ? route : "other"}`;
  const element = (name, shadeOf, text) => {
    const e = document.createElement(name);
    if (shadeOf) e.className = shadeOf;
    if (text !== undefined) e.textContent = text;
    return e;
  };

  // Half of a scale that people can read: 1, 2 or 5 and noughts.
  const ceiling = (n) => {
    const power = 10 ** Math.floor(Math.log10(Math.max(n, 1)));
    return [1, 2, 4, 6, 8, 10].map((m) => m * power).find((c) => c >= n);
  };
  const LENGTH = 300;
  const draw = (seconds) => {
    const svg = $("chart");
    const used = seconds.filter(({ bytes }) => bytes.some((b) => b > 0));
    const length = Math.max(0, ...seconds.map(({ bytes }) => bytes.length));
    const sums = Array.from({ length }, (_, i) => used.reduce((sum, { bytes }) => sum + bytes[i], 0));
    const top = ceiling(Math.max(1000, ...sums));
    const below = new Array(length).fill(0);
    const layers = used.map(({ route, bytes }) => {
      const x = (i) => LENGTH - length + i;
      const y = (sum) => (100 - 100 * sum / top).toFixed(2);
      const floor = below.map((sum, i) => `${x(i) + 1},${y(sum)} ${x(i)},${y(sum)}`).reverse();
      bytes.forEach((b, i) => { below[i] += b; });
      const roof = below.map((sum, i) => `${x(i)},${y(sum)} ${x(i) + 1},${y(sum)}`);
      const path = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
      path.setAttribute("class", shade(route));
      path.setAttribute("points", [...roof, ...floor].join(" "));
      return path;
    });
    svg.replaceChildren(...layers);
    put("peak", `${size(top)}/s`);
    put("half", `${size(top / 2)}/s`);
    put("under", sums.length ? `highest second: ${size(Math.max(...sums))}` : "");
    $("legend").replaceChildren(...used.map(({ route }) => {
      const item = element("span");
      item.append(element("i", shade(route)), route);
      return item;
    }));
  };

  let before = null;
  const rows = new Map();
  const row = () => {
    const tr = element("tr");
    const cells = ["name", "", "num", "num", "way", ""].map((of) => element("td", of));
    const progress = element("div", "progress");
    const bar = element("div", "bar");
    bar.append(element("i"));
    progress.append(bar, element("span"));
    cells[1].append(progress);
    tr.append(...cells);
    return { tr, cells, bar: bar.firstChild, part: progress.lastChild, still: 0, past: [] };
  };
  const text = (cell, value) => { if (cell.textContent !== value) cell.textContent = value; };
  const transfers = (live, seconds) => {
    const old = new Map((before?.transfers ?? []).map((one) => [one.id, one]));
    const body = $("transfers");
    const seen = new Set();
    for (const one of live.transfers) {
      seen.add(one.id);
      let shown = rows.get(one.id);
      if (!shown) { shown = row(); rows.set(one.id, shown); body.append(shown.tr); }
      const was = old.get(one.id);
      // Over ten seconds: what a socket takes, it takes in lumps. At first, since its begin.
      shown.past.push([one.seconds, one.sent]);
      while (shown.past.length > 2 && one.seconds - shown.past[1][0] >= 10) shown.past.shift();
      const [then, had] = shown.past[0];
      shown.rate = one.seconds - then >= 2 ? (one.sent - had) / (one.seconds - then) : one.sent / Math.max(one.seconds, .001);
      shown.still = was && one.sent === was.sent ? shown.still + seconds : 0;
      const stalled = shown.still >= 10;
      shown.tr.className = stalled ? "stalled" : "";
      text(shown.cells[0], one.target);
      shown.cells[0].title = one.target;
      shown.bar.style.setProperty("width", `${100 * one.sent / one.due}%`);
      text(shown.part, `${Math.floor(100 * one.sent / one.due)}${NBSP}%`);
      shown.part.title = `${size(one.sent)} of ${size(one.due)}`;
      text(shown.cells[2], stalled ? `stalled ${span(shown.still)}` : `${size(shown.rate)}/s`);
      text(shown.cells[3], stalled || shown.rate < 1 ? "\u2013" : span((one.due - one.sent) / shown.rate));
      if (shown.route !== one.route) {
        shown.route = one.route;
        shown.cells[4].replaceChildren(element("i", shade(one.route)), one.route);
      }
      text(shown.cells[5], one.peer);
    }
    for (const [id, { tr }] of rows) if (!seen.has(id)) { tr.remove(); rows.delete(id); }
    $("quiet").hidden = live.transfers_now > 0;
    const more = live.transfers_now - live.transfers.length;
    put("count", live.transfers_now ? `${count(live.transfers_now)} of more than 1${NBSP}MiB${more > 0 ? `, the oldest ${live.transfers.length} shown` : ""}` : "");
  };

  const show = (live) => {
    const seconds = before ? live.uptime_seconds - before.uptime_seconds : 0;
    const sum = (sent) => Object.values(sent).reduce((a, b) => a + b, 0);
    const last = live.seconds.map(({ bytes }) => bytes.at(-1) ?? 0).reduce((a, b) => a + b, 0);
    const [number, unit] = scaled(last);
    big("rate", number, `${unit}B/s`);
    put("sent", `${size(sum(live.sent))} since the start`);
    const { now, max } = live.connections;
    big("connections", count(now), "");
    put("room", `of ${count(max)} at most`);
    $("roombar").style.setProperty("width", `${Math.min(100, 100 * now / max)}%`);
    $("roombar").parentElement.classList.toggle("full", now > max * .8);
    const rate = before && seconds > 0 ? (live.responses.total - before.responses.total) / seconds : null;
    big("requests", rate === null ? "\u2013" : count(Math.round(rate)), "/s");
    put("flight", `${count(live.responses.in_flight)} in flight, ${count(live.responses.total)} done`);
    big("first", live.responses.first_byte_p50 === null ? "\u2013" : within(live.responses.first_byte_p50), "");
    put("firstmore", live.responses.first_byte_p50 === null ? "of no response yet" : `half within, 99${NBSP}% within ${within(live.responses.first_byte_p99)}`);
    const all = sum(live.sent);
    const share = all ? 100 * live.user_copied_bytes / all : 0;
    big("copied", share && share < .1 ? "<0.1" : digits(share), "%");
    put("copiedmore", live.user_copied_bytes ? `${size(live.user_copied_bytes)} through user memory` : "no byte through user memory");
    const [cold, coldUnit] = scaled(live.cold_bytes);
    big("cold", cold, `${coldUnit}B`);
    put("coldmore", `${count(live.cold_waits)} waits`);
    draw(live.seconds);
    transfers(live, seconds);

    const refused = Object.entries(live.connections.refused);
    $("trouble").hidden = !refused.length;
    $("refused").replaceChildren(...refused.map(([reason, times]) => {
      const item = element("li");
      item.append(element("b", "", count(times)), reason);
      return item;
    }));
    $("nohot").hidden = live.hottest.length > 0;
    $("hottest").replaceChildren(...live.hottest.map((one) => {
      const tr = element("tr");
      const name = element("td", "name", one.path);
      name.title = one.path;
      tr.append(name, element("td", "num", count(one.responses)), element("td", "num", size(one.bytes)));
      return tr;
    }));
    const { by_class: classes, aborted } = live.responses;
    const { descriptors, descriptors_max: most, resident_bytes: resident, processor_seconds: processor } = live.process;
    const facts = [
      ...Object.entries(classes).filter(([, n]) => n).map(([name, n]) => [`Responses ${name}`, count(n)]),
      ["Cut short", count(aborted)],
      ["Connections", count(live.connections.total)],
      ...Object.entries(live.sent).filter(([, n]) => n).map(([route, n]) => [`Sent by ${route}`, size(n)]),
      ["Step-downs", count(live.step_downs)],
      ["Processor time", span(processor)],
      ...(resident === null ? [] : [["Memory", size(resident)]]),
      ...(descriptors === null ? [] : [["Descriptors", most === null ? count(descriptors) : `${count(descriptors)} of ${count(most)}`]]),
      ...(live.log_lines_lost ? [["Log lines lost", count(live.log_lines_lost)]] : []),
    ];
    $("since").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
    put("about", `pagewire ${live.version}, up ${span(live.uptime_seconds)}`);
    state(live.stopping ? "warn" : "good", live.stopping ? "stopping: running responses finish" : "serving");
    before = live;
  };
  const state = (of, said) => { $("state").className = `state ${of}`; put("said", said); };

  let lost = 0;
  const ask = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch("live.json", { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      show(await answer.json());
      lost = 0;
    } catch {
      lost += 1;
      state("bad", `no answer for ${span(lost)}: these figures are old`);
    }
  };
  let asking = false;
  const turn = async () => { if (asking) return; asking = true; await ask(); asking = false; };
  setInterval(turn, 1000);
  document.addEventListener("visibilitychange", turn);
  turn();
})();
