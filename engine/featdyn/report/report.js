"use strict";
(() => {
  const { steps, figures, maps } = JSON.parse(document.getElementById("data").textContent);
  const hover = document.getElementById("hover");
  const config = { displaylogo: false, displayModeBar: "hover", responsive: true, modeBarButtons: [["toImage", "resetScale2d"]] };
  const number = (value) => value.toLocaleString("en");
  const percent = (share) => `${(100 * share).toFixed(1)} %`;

  // The value of a radio button in the section of an element.
  const choice = (element, name) => element.closest("section").querySelector(`input[name="${name}"]:checked`).value;

  function layout(own) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const axis = { gridcolor: colour("rule"), linecolor: colour("rule"), zeroline: false, automargin: true, title: { font: { size: 12 } } };
    const merged = (one, other) => ({ ...one, ...other, title: { ...one.title, ...other?.title } });
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: colour("soft") },
      margin: { l: 8, r: 8, t: 10, b: 8 },
      hoverlabel: { bgcolor: colour("paper"), bordercolor: colour("rule"), font: { color: colour("ink"), size: 12.5, family: "system-ui, sans-serif" }, align: "left", namelength: -1 },
      legend: { font: { color: colour("ink") }, ...own.legend },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("rule"), activecolor: colour("accent") },
      showlegend: own.showlegend,
      xaxis: merged(axis, own.xaxis),
      yaxis: merged(axis, own.yaxis),
    };
  }

  function drawLines(plot) {
    const chosen = (plot.dataset.by || "").split(" ").filter(Boolean).map((name) => choice(plot, name));
    const figure = figures[plot.dataset.slot][chosen.join("|")];
    const traces = figure.data.map((trace) => trace.x ? trace : {
      hovertemplate: "<b>%{fullData.name}</b> %{y}<br>checkpoint %{x}, step %{customdata[0]:,}<extra></extra>",
      ...trace,
      x: steps.map((_, i) => i),
      customdata: steps.map((step, i) => [step, trace.meta?.spread[i]]),
    });
    Plotly.react(plot, traces, layout(figure.layout), config);
  }

  function drawHeatmap(plot) {
    const grid = maps[plot.dataset.maps], cut = plot.dataset.cut, set = choice(plot, "set"), measure = choice(plot, "measure");
    const size = grid.sizes[set], [zmin, zmax] = grid.extremes[measure][set];
    const trace = {
      type: "heatmap",
      z: grid.measures[measure][cut][set].map((row) => row.map((count) => count === null ? null : count / size)),
      zmin, zmax: Math.max(zmax, zmin + 0.01),
      colorscale: "Cividis",
      colorbar: { thickness: 9, outlinewidth: 0, tickformat: ".0%", nticks: 6, xpad: 6 },
      hoverinfo: "none",
    };
    const xaxis = { ...grid.axis2, showgrid: false, title: { text: "t2, deep half: checkpoint / step" }, constrain: "domain" };
    const yaxis = { ...grid.axis1, showgrid: false, title: { text: "t1, shallow half: checkpoint" }, ticktext: grid.axis1.tickvals.map((i) => grid.t1[i]), constrain: "domain", scaleanchor: "x" };
    Plotly.react(plot, [trace], layout({ xaxis, yaxis }), config);
  }

  // What a square of a heatmap says. Text is made on hover: made ahead, it would outweigh the numbers many times.
  function describe(grid, cut, set, i, j) {
    const size = grid.sizes[set];
    const lines = [
      `Shallow half: checkpoint ${grid.t1[i]} (step ${number(grid.step1[i])})`,
      `Deep half: checkpoint ${grid.t2[j]} (step ${number(grid.step2[j])})`,
    ];
    for (const [measure, title] of Object.entries(grid.titles)) {
      const count = grid.measures[measure][cut][set][i][j];
      if (count === null) continue;
      const ends = grid.bounds[measure]?.map((bound) => bound[cut][set][i][j] / 1000).map(percent);
      lines.push(`${title}: ${percent(count / size)}` + (ends ? ` (95 %: ${ends[0]} to ${ends[1]})` : ""));
    }
    const loss = grid.loss?.[cut][set][i][j] ?? null;
    if (loss !== null) lines.push(`Mean loss: ${loss}`);
    lines.push(`${number(size)} probes`);
    return lines.join("\n");
  }

  function showHover(plot, { points: [point], event }) {
    const [i, j] = point.pointIndex || point.pointNumber;
    hover.textContent = describe(maps[plot.dataset.maps], plot.dataset.cut, choice(plot, "set"), i, j);
    hover.hidden = false;
    const { clientX: x, clientY: y } = event, { offsetWidth: w, offsetHeight: h } = hover;
    hover.style.left = `${x + 18 + w > innerWidth ? Math.max(0, x - 18 - w) : x + 18}px`;
    hover.style.top = `${Math.max(0, Math.min(y + 14, innerHeight - h))}px`;
  }

  const draw = (plot) => plot.dataset.slot ? drawLines(plot) : drawHeatmap(plot);
  const plots = [...document.querySelectorAll(".plot")];
  for (const plot of plots) {
    draw(plot);
    if (!plot.dataset.cut) continue;
    plot.on("plotly_hover", (event) => showHover(plot, event));
    plot.on("plotly_unhover", () => { hover.hidden = true; });
  }
  for (const form of document.forms) {
    form.addEventListener("change", () => form.closest("section").querySelectorAll(".plot").forEach(draw));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach(draw));
})();
