"use strict";
(async () => {
  document.getElementById("old").hidden = "DecompressionStream" in window;
  const nonce = document.currentScript.nonce;

  // Data and library lie in the page as base64 of gzip.
  async function unpacked(id) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }
  let { name, checkpoints, steps, figures, maps, live } = JSON.parse(await unpacked("data"));
  document.head.append(Object.assign(document.createElement("script"), { nonce, textContent: await unpacked("library") }));

  const root = document.documentElement, hover = document.getElementById("hover");
  let plots = [], sliders = [];
  const config = { displayModeBar: false, responsive: true };
  const number = (value) => value.toLocaleString("en");
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const plain = (value) => String(Number(value.toPrecision(4)));
  // Names come escaped for plotly, which reads tags; elsewhere they are plain words.
  const words = (text) => String(text).replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&").replaceAll("<br>", " / ");
  const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  // A name that has no room loses its middle; what is pointed at, Values and CSV have it whole.
  const LETTER = 6.8; // pixels, on the average
  const brief = (text, room) => {
    const name = words(text), half = Math.max(4, Math.floor(room / LETTER / 2));
    return name.length <= 2 * half ? text : escaped(`${name.slice(0, half - 1)}…${name.slice(-half)}`);
  };
  let now = checkpoints.length - 1; // where all sliders stand

  const colour = (of) => getComputedStyle(root).getPropertyValue(`--${of}`).trim();
  const dark = () => colour("theme") === "dark";
  const nearest = (values, wanted) => values.reduce((best, value, i) => Math.abs(value - wanted) < Math.abs(values[best] - wanted) ? i : best, 0);

  // The value of a radio button in the section of a plot.
  const choice = (plot, of) => plot.closest("section").querySelector(`input[name="${of}"]:checked`);

  // The checkpoint that a figure of one shows: of those that its result holds, the nearest to the slider's.
  function timeOf(plot) {
    const at = plot.dataset.by.split(" ").indexOf("t");
    if (at < 0) return null;
    const times = [...new Set(Object.keys(figures[plot.dataset.slot]).map((key) => Number(key.split("|")[at])))];
    return times[nearest(times, checkpoints[now])];
  }

  // What to say of a figure that does not know the slider's checkpoint.
  function remark(plot) {
    const wanted = checkpoints[now], drawn = timeOf(plot), { meta } = figureOf(plot).layout;
    if (drawn !== null && drawn !== wanted) return `Drawn is checkpoint ${drawn}, the nearest to ${wanted} that there is.`;
    const axis = [meta?.x, meta?.y].find((held) => held && placeOf(held, wanted) === null);
    if (!axis) return "";
    return wanted > axis[0] ? `Ends at checkpoint ${axis.at(-1)}, before ${wanted}.` : `Begins at checkpoint ${axis[0]}, after ${wanted}.`;
  }

  function say(plot) {
    const said = plot.parentElement.querySelector(".drawn"), words = remark(plot);
    if (said.textContent !== words) said.textContent = words;
  }

  // The figure that the choices of its section show.
  function figureOf(plot) {
    if (plot.dataset.maps) return pairMap(plot);
    const chosen = plot.dataset.by.split(" ").filter(Boolean).map((of) => of === "t" ? timeOf(plot) : choice(plot, of).value);
    return figures[plot.dataset.slot][chosen.join("|")];
  }

  function pairMap(plot) {
    const grid = maps[plot.dataset.maps], cut = plot.dataset.cut, [set, measure] = ["set", "measure"].map((of) => choice(plot, of).value);
    const size = grid.sizes[set], [zmin, zmax] = grid.extremes[measure][set], bounds = grid.bounds[measure];
    const end = (i) => bounds[i][cut][set].map((row) => row.map((value) => value === null ? null : value / 1000));
    const trace = {
      type: "heatmap",
      z: grid.measures[measure][cut][set].map((row) => row.map((count) => count === null ? null : count / size)),
      x: grid.t2.map((_, i) => i),
      y: grid.t1.map((_, i) => i),
      meta: bounds && { low: end(0), high: end(1) },
      zmin, zmax: Math.max(zmax, zmin + 0.01),
      colorscale: "Cividis",
      colorbar: { thickness: 9, outlinewidth: 0, tickformat: zmax - zmin < 0.05 ? ".1%" : ".0%", nticks: 6, xpad: 6 },
    };
    const xaxis = { ...grid.axis2, showgrid: false, title: { text: "t2, deep half: checkpoint / step" } };
    const yaxis = { ...grid.axis1, showgrid: false, title: { text: "t1, shallow half: checkpoint" }, ticktext: grid.axis1.tickvals.map((i) => grid.t1[i]) };
    return { data: [trace], layout: { xaxis, yaxis, meta: { x: grid.t2, y: grid.t1 } } };
  }

  // Names along an axis of names: two fifths of the figure are theirs.
  function ticks(own, names, room) {
    const some = own?.type === "category" ? [...new Set(names)] : [];
    return some.length ? { tickvals: some, ticktext: some.map((text) => brief(text, 0.4 * room)) } : {};
  }

  function layout({ data, layout: own }, [width, height]) {
    const named = (of, room) => ticks(own[`${of}axis`], data.flatMap((trace) => trace[of] ?? []), room);
    const axis = { gridcolor: colour("rule"), linecolor: colour("rule"), zeroline: false, automargin: true };
    const merged = (other, more) => ({ ...axis, ...more, ...other, title: { font: { size: 12 }, ...(other?.type === "category" && { standoff: 10 }), ...other?.title } });
    const format = (share) => ({ hoverformat: share ? ".1%" : ".4~g" });
    return {
      paper_bgcolor: colour("paper"),
      plot_bgcolor: colour("paper"),
      font: { family: "system-ui, sans-serif", size: 12, color: colour("soft") },
      margin: { l: 8, r: 8, t: own.annotations ? 26 : 10, b: 8 },
      hoverlabel: { bgcolor: colour("paper"), bordercolor: colour("rule"), font: { color: colour("ink"), size: 12.5, family: "system-ui, sans-serif" }, align: "left", namelength: -1 },
      legend: { font: { color: colour("ink") }, orientation: "h", x: 0, y: -0.02, yref: "container", yanchor: "bottom" },
      showlegend: Boolean(own.showlegend),
      scattermode: own.scattermode,
      annotations: own.annotations,
      xaxis: merged({ ...own.xaxis, ...named("x", height) }, format(false)),
      yaxis: merged({ ...own.yaxis, ...named("y", width) }, format(own.meta?.share)),
      shapes: shapesOf(own),
    };
  }

  function shapesOf(own) {
    const marks = (own.shapes || []).map((shape) => shape.type === "rect" ? { ...shape, fillcolor: colour("accent") } : { ...shape, line: { ...shape.line, color: colour("ink") } });
    return [...marks, ...cursor(own.meta)];
  }

  // Where a checkpoint is on an axis of some of them, between two if need be; null where the axis does not reach it.
  function placeOf(axis, wanted) {
    const next = axis.findIndex((held) => held >= wanted);
    if (next < 0 || (next === 0 && axis[0] > wanted)) return null;
    return axis[next] === wanted ? next : next - (axis[next] - wanted) / (axis[next] - axis[next - 1]);
  }

  // A line where the checkpoint of the slider is, on every axis of checkpoints that reaches it.
  function cursor(meta) {
    if (checkpoints.length < 2) return [];
    const line = { width: 1.5, color: colour("cursor"), dash: "dot" };
    const [x, y] = ["x", "y"].map((of) => meta?.[of] ? placeOf(meta[of], checkpoints[now]) : null);
    const shapes = [];
    if (x !== null) shapes.push({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line });
    if (y !== null) shapes.push({ type: "line", y0: y, y1: y, xref: "paper", x0: 0, x1: 1, line });
    return shapes;
  }

  const stepOf = (checkpoint) => steps[checkpoints.indexOf(checkpoint)] ?? 0;

  // Low and high of point i of a line; null where there are none.
  function ends(trace, i) {
    const bars = trace.error_y;
    if (!bars || trace.y[i] === null || bars.array[i] === null || bars.arrayminus[i] === null) return null;
    return [trace.y[i] - bars.arrayminus[i], trace.y[i] + bars.array[i]];
  }

  // Text of what is pointed at is made when a figure is drawn: made ahead, it would outweigh the numbers many times.
  function told(trace, { meta = {} }, width) {
    const show = meta.share || trace.colorbar?.tickformat ? percent : plain;
    const between = (pair) => pair ? `<br>95 %: ${show(pair[0])} to ${show(pair[1])}` : "";
    if (trace.type === "heatmap") {
      const place = (axis, of, i) => meta[axis] ? `${of}: checkpoint ${meta[axis][i]}, step ${number(stepOf(meta[axis][i]))}` : trace[axis][i];
      const bounds = trace.meta;
      const customdata = trace.z.map((row, i) => row.map((_, j) =>
        [place("y", meta.x && meta.y ? "t1" : "", i), place("x", meta.y ? "t2" : "", j)].map((text) => String(text).replace(/^: /, "")).concat(
          bounds && bounds.low[i][j] !== null && bounds.high[i][j] !== null ? between([bounds.low[i][j], bounds.high[i][j]]) : "")));
      return { ...trace, customdata, hovertemplate: "%{customdata[0]}<br>%{customdata[1]}<br><b>%{z:.4~g}</b>%{customdata[2]}<extra></extra>" };
    }
    const line = dark() ? { line: { ...trace.line, color: trace.meta.dark }, marker: { ...trace.marker, color: trace.meta.dark } } : {};
    const customdata = trace.y.map((_, i) => [
      meta.x ? `checkpoint ${meta.x[i]}, step ${number(stepOf(meta.x[i]))}` : trace.x[i],
      between(ends(trace, i)),
      trace.text?.[i] ? `<br>${meta.beside}: ${trace.text[i]}` : "",
      trace.name,
    ]);
    const name = brief(trace.name, width - 60); // beside its line in the legend
    return { ...trace, ...line, name, customdata, hovertemplate: "<b>%{customdata[3]}</b> %{y}%{customdata[1]}%{customdata[2]}<br>%{customdata[0]}<extra></extra>", hoverinfo: "text", textposition: "none" };
  }

  // What a square over two halves says: all its measures.
  function describe(grid, cut, set, i, j) {
    const size = grid.sizes[set];
    const lines = [
      `Shallow half: checkpoint ${grid.t1[i]} (step ${number(grid.step1[i])})`,
      `Deep half: checkpoint ${grid.t2[j]} (step ${number(grid.step2[j])})`,
    ];
    for (const [measure, title] of Object.entries(grid.titles)) {
      const count = grid.measures[measure][cut][set][i][j];
      if (count === null) continue;
      const bounds = grid.bounds[measure]?.map((bound) => bound[cut][set][i][j] / 1000).map(percent);
      lines.push(`${title}: ${percent(count / size)}` + (bounds ? ` (95 %: ${bounds[0]} to ${bounds[1]})` : ""));
    }
    const loss = grid.loss?.[cut][set][i][j] ?? null;
    if (loss !== null) lines.push(`Mean loss: ${loss}`);
    lines.push(`${number(size)} probes`);
    return lines.join("\n");
  }

  function showHover(plot, { points: [point], event }) {
    const [i, j] = point.pointIndex || point.pointNumber;
    hover.textContent = describe(maps[plot.dataset.maps], plot.dataset.cut, choice(plot, "set").value, i, j);
    hover.hidden = false;
    const { clientX: x, clientY: y } = event, { offsetWidth: w, offsetHeight: h } = hover;
    hover.style.left = `${x + 18 + w > innerWidth ? Math.max(0, x - 18 - w) : x + 18}px`;
    hover.style.top = `${Math.max(0, Math.min(y + 14, innerHeight - h))}px`;
  }

  function tracesOf(plot, width) {
    const { data, layout: own } = figureOf(plot);
    return data.map((trace) => plot.dataset.maps ? { ...trace, hoverinfo: "none" } : told(trace, own, width));
  }

  function draw(plot) {
    const figure = figureOf(plot), pairs = plot.dataset.maps, size = [plot.clientWidth, plot.clientHeight];
    Plotly.react(plot, tracesOf(plot, size[0]), layout(figure, size), config);
    plot.stale = false;
    say(plot);
    if (pairs && !plot.told) {
      plot.told = true;
      plot.on("plotly_hover", (event) => showHover(plot, event));
      plot.on("plotly_unhover", () => { hover.hidden = true; });
    }
    const values = plot.parentElement.querySelector(".tools details");
    if (values.open) fill(plot, values);
  }

  // Only what is near the window is drawn; the rest is when it comes there.
  const renew = (some) => some.forEach((plot) => { plot.stale = true; if (plot.near) draw(plot); });
  const watch = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
    target.near = isIntersecting;
    if (isIntersecting && target.stale) draw(target);
  }), { rootMargin: "600px" });
  addEventListener("beforeprint", () => plots.filter((plot) => plot.stale).forEach(draw));

  function move(to) {
    now = to;
    const place = `${checkpoints[now]} / step ${number(steps[now])}`;
    for (const slider of sliders) {
      slider.value = now;
      slider.setAttribute("aria-valuetext", `checkpoint ${checkpoints[now]}, step ${number(steps[now])}`);
      slider.parentElement.querySelector("output").textContent = place;
    }
    for (const plot of plots) {
      if (plot.dataset.by.split(" ").includes("t") || !plot.near || plot.stale) { renew([plot]); continue; }
      const own = figureOf(plot).layout;
      say(plot);
      if (own.meta?.x || own.meta?.y) Plotly.relayout(plot, { shapes: shapesOf(own) });
    }
  }
  let asked = null;

  // Let what is in the page, or has come into it, answer.
  function adopt(part) {
    plots = [...document.querySelectorAll(".plot")];
    sliders = [...document.querySelectorAll("input[name=t]")];
    for (const plot of part.querySelectorAll(".plot")) { plot.stale = true; watch.observe(plot); }
    for (const slider of part.querySelectorAll("input[name=t]")) {
      slider.addEventListener("input", () => {
        if (asked === null) requestAnimationFrame(() => { move(asked); asked = null; });
        asked = Number(slider.value);
      });
    }
    for (const form of part.querySelectorAll("form")) {
      form.addEventListener("submit", (event) => event.preventDefault());
      form.addEventListener("change", ({ target }) => { if (target.type === "radio") renew([...form.closest("section").querySelectorAll(".plot")]); });
    }
    for (const tools of part.querySelectorAll(".tools")) {
      const plot = tools.parentElement.querySelector(".plot"), details = tools.querySelector("details");
      tools.hidden = false;
      tools.addEventListener("click", ({ target }) => { if (target.dataset.save) { if (plot.stale) draw(plot); save(plot, target.dataset.save); } });
      details.addEventListener("toggle", () => { if (details.open) fill(plot, details); });
    }
    if (sliders.length) move(now);
  }

  // What a figure is called: its caption and what was chosen.
  function titleOf(plot) {
    const caption = plot.parentElement.querySelector("figcaption").firstChild.textContent.trim();
    const chosen = plot.dataset.by.split(" ").filter(Boolean).map((of) => of === "t" ? `checkpoint ${timeOf(plot)}` : choice(plot, of).parentElement.title);
    return [caption, chosen.join(", ")].filter(Boolean).join(": ");
  }

  // One line a value: (series or row, place, value, low, high).
  function rowsOf({ data, layout: { meta = {} } }) {
    const place = (axis, trace, i) => meta[axis] ? `checkpoint ${meta[axis][i]}, step ${stepOf(meta[axis][i])}` : words(trace[axis][i]);
    return data.flatMap((trace) => trace.type === "heatmap"
      ? trace.z.flatMap((row, i) => row.map((value, j) => [place("y", trace, i), place("x", trace, j), value, trace.meta?.low[i][j] ?? null, trace.meta?.high[i][j] ?? null]))
      : trace.y.map((value, i) => [words(trace.name), meta.x ? place("x", trace, i) : trace.x[i], value, ...(ends(trace, i)?.map((end) => Number(end.toPrecision(4))) ?? [null, null])]));
  }

  function table(plot) {
    const rows = rowsOf(figureOf(plot)), columns = [...new Set(rows.map((row) => row[0]))], places = [...new Set(rows.map((row) => row[1]))];
    const cell = new Map(rows.map(([of, place, value, low, high]) => [`${of}\n${place}`, value === null ? "–" : `${value}${low === null || high === null ? "" : ` (${low} to ${high})`}`]));
    const element = (tag, text, more = {}) => Object.assign(document.createElement(tag), { textContent: text ?? "" }, more);
    const found = element("table", "", { className: "grid" }), head = found.createTHead().insertRow(), body = found.createTBody();
    head.append(element("td"), ...columns.map((of) => element("th", of, { scope: "col" })));
    for (const place of places) {
      const row = body.insertRow();
      row.append(element("th", words(place), { scope: "row" }), ...columns.map((of) => element("td", cell.get(`${of}\n${place}`))));
    }
    return found;
  }

  function fill(plot, details) {
    const scroll = Object.assign(document.createElement("div"), { className: "scroll", tabIndex: 0, role: "group", ariaLabel: `Values: ${titleOf(plot)}` });
    scroll.append(table(plot));
    details.querySelector(".scroll")?.remove();
    details.append(scroll);
  }

  function save(plot, kind) {
    const titled = titleOf(plot), stem = name.replace(/\.zarr$/, "");
    const filename = `${stem} ${plot.closest("[id]").id} ${titled}`.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 120);
    if (kind === "csv") {
      // A spreadsheet would run what starts like this.
      const quoted = (value) => typeof value === "number" ? value : `"${String(value ?? "").replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
      const lines = [["series", "place", "value", "low", "high"], ...rowsOf(figureOf(plot))].map((row) => row.map((value) => value === null ? "" : quoted(value)).join(","));
      const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv" })), download: `${filename}.csv` });
      link.click();
      URL.revokeObjectURL(link.href);
      return;
    }
    const figure = figureOf(plot), size = plot.classList.contains("square") ? [720, 680] : [900, 540];
    const { xaxis, yaxis, ...rest } = layout(figure, size), { range: x } = plot.layout.xaxis, { range: y } = plot.layout.yaxis;
    const title = { text: escaped(`${name} · ${titled}`), font: { size: 14, color: colour("ink") }, x: 0.02, xanchor: "left" };
    const headed = { ...rest, xaxis: { ...xaxis, range: x }, yaxis: { ...yaxis, range: y }, shapes: rest.shapes.slice(0, (figure.layout.shapes || []).length), title, margin: { l: 12, r: 16, t: 56, b: 12 } };
    Plotly.downloadImage({ data: tracesOf(plot, size[0]), layout: headed, config }, { format: kind, width: size[0], height: size[1], scale: 2, filename });
  }

  adopt(document);

  const button = document.getElementById("theme");
  const label = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Use ${dark() ? "light" : "dark"} colours`); };
  const kept = (value) => { try { return value ? localStorage.setItem("featdyn-theme", value) : localStorage.getItem("featdyn-theme"); } catch { return null; } };
  if (kept()) root.dataset.theme = kept();
  const themed = () => { label(); renew(plots); };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; kept(root.dataset.theme); themed(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themed);
  label();

  // Put a part in place of what it was, with what the reader has chosen there; figures are drawn into what they were.
  function swap(old, fresh) {
    const pairs = (of) => { const found = [...fresh.querySelectorAll(of)]; return [...old.querySelectorAll(of)].map((e, i) => [e, found[i]]).filter(([, e]) => e); };
    for (const [was, is] of pairs("form")) for (const { name, value } of was.querySelectorAll("input[type=radio]:checked")) {
      const same = [...is.querySelectorAll("input[type=radio]")].find((input) => input.name === name && input.value === value);
      if (same) same.checked = true;
    }
    for (const [was, is] of pairs("details")) is.open = was.open;
    const place = ({ dataset: { slot, maps, cut } }) => slot ?? `${maps} ${cut}`;
    const drawn = new Map([...old.querySelectorAll(".plot")].map((plot) => [place(plot), plot]));
    for (const plot of [...fresh.querySelectorAll(".plot")]) {
      const same = drawn.get(place(plot));
      if (!same) continue;
      for (const of of ["square", "tall"]) same.classList.toggle(of, plot.classList.contains(of));
      same.dataset.by = plot.dataset.by;
      same.ariaLabel = plot.ariaLabel;
      plot.replaceWith(same);
    }
    const can = "a, button, input, summary, [tabindex]", at = [...old.querySelectorAll(can)].indexOf(document.activeElement);
    old.replaceWith(fresh);
    if (at >= 0) fresh.querySelectorAll(can)[at]?.focus({ preventScroll: true });
    adopt(fresh);
    renew([...fresh.querySelectorAll(".plot")]);
    for (const details of fresh.querySelectorAll(".tools details[open]")) fill(details.closest("figure").querySelector(".plot"), details);
  }

  // Of a store that is still written: ask what is new, and take those parts that have changed.
  const tags = new Map();
  async function take(of, before) {
    const { tag, html, ...news } = await (await fetch(`parts/${encodeURIComponent(of)}.json`)).json();
    const last = now === checkpoints.length - 1;
    ({ checkpoints, steps } = news);
    now = last ? checkpoints.length - 1 : Math.min(now, checkpoints.length - 1);
    Object.assign(figures, news.figures);
    Object.assign(maps, news.maps);
    const fresh = Object.assign(document.createElement("div"), { innerHTML: html });
    fresh.dataset.part = of;
    const old = document.querySelector(`[data-part="${CSS.escape(of)}"]`);
    if (old) swap(old, fresh);
    else { before.after(fresh); adopt(fresh); }
    tags.set(of, tag);
  }

  async function follow() {
    const said = document.getElementById("live");
    let words;
    try {
      const state = await (await fetch("state.json", { cache: "no-cache" })).json();
      let before = null;
      for (const [of, tag] of state.parts) {
        if (tags.get(of) !== tag) await take(of, before);
        before = document.querySelector(`[data-part="${CSS.escape(of)}"]`);
      }
      const there = new Set(state.parts.map(([of]) => of));
      for (const part of document.querySelectorAll("[data-part]")) if (!there.has(part.dataset.part)) { tags.delete(part.dataset.part); part.remove(); }
      plots = plots.filter((plot) => plot.isConnected);
      words = state.problem ? `Shown is commit ${state.commit}. The store cannot be read now: ${state.problem}` : `Live: commit ${state.commit}, ${checkpoints.length} checkpoints.`;
    } catch {
      words = "The server does not answer; this page shows what it last said.";
    }
    if (said.textContent !== words) said.textContent = words;
    root.dataset.seen = Number(root.dataset.seen ?? 0) + 1;
    setTimeout(follow, document.hidden ? 5 * live : live);
  }
  if (live) {
    for (const [of, tag] of Object.entries(live.tags)) tags.set(of, tag);
    live = live.every;
    setTimeout(follow, live);
  }
  root.dataset.ready = "";
})();
