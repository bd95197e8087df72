"use strict";
// The drawings in the page stay where this does not run to its end: on paper, without script, in an old browser.
(async () => {
  const packed = document.getElementById("plotly");
  if (!self.DecompressionStream) return;
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
  const text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const script = document.createElement("script");
  script.textContent = text;
  document.head.append(script);
  if (!self.Plotly) return;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // plotly reads a little HTML in its texts; the run's words are text
  const plain = (words) => words.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  const marker = {
    dense: { symbol: "square", colour: "--soft" },
    cut: { symbol: "triangle-down-open", colour: "--cut", size: 15, width: 2.5 },
    trained: { symbol: "circle", colour: "--after" },
    undone: { symbol: "x-thin", colour: "--warn", width: 2 },
  };

  const trace = (series, many) => {
    const shape = marker[series.role];
    const common = {
      x: series.dots.map((dot) => dot.x),
      y: series.dots.map((dot) => dot.y),
      text: series.dots.map((dot) => plain(dot.title)),
      hovertemplate: "%{text}<extra></extra>",
      name: plain(series.name),
      showlegend: Boolean(shape),
    };
    if (shape) {
      const line = { color: colour(shape.colour), width: shape.width || 0 };
      const size = shape.size || 10;
      return { ...common, mode: "markers", marker: { symbol: shape.symbol, size, color: colour(shape.colour), line } };
    }
    const line = { color: colour(many ? "--mark" : "--after"), width: many ? 1.5 : 2, dash: many ? "dot" : "solid" };
    return { ...common, mode: "lines", line, ...(many && { hoverinfo: "skip", hovertemplate: null }) };
  };

  const axis = (title) => ({
    title: { text: plain(title), font: { size: 12 }, standoff: 8 },
    gridcolor: colour("--line"), zeroline: false, linecolor: colour("--line"), automargin: true,
    tickfont: { size: 12 }, nticks: 7,
  });

  const draw = (figure, chart) => {
    const tall = figure.classList.contains("tall");
    const many = chart.series.length > 1;
    const layout = {
      height: tall ? 380 : 240,
      margin: { l: 48, r: 14, t: 8, b: 44 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", color: colour("--soft") },
      hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--ink") }, align: "left" },
      xaxis: { ...axis(chart.x_label), rangemode: many ? "tozero" : "normal" }, yaxis: axis(""),
      showlegend: many, legend: { orientation: "h", y: -0.2, yref: "paper", x: 0 },
      hovermode: many ? "closest" : "x", dragmode: "zoom",
      shapes: chart.marks.map((mark) => ({
        type: "line", x0: mark.at, x1: mark.at, yref: "paper", y0: 0, y1: 1,
        line: { color: colour("--mark"), width: 1, dash: "dot" },
      })),
    };
    const config = { responsive: true, displayModeBar: false };
    figure.classList.add("drawn");
    return Plotly.react(figure.querySelector(".live"), chart.series.map((one) => trace(one, many)), layout, config);
  };

  const all = async () => {
    for (const chart of charts) await draw(document.querySelector(`[data-chart="${chart.key}"]`), chart);
    document.documentElement.dataset.charts = charts.length;
  };
  await all();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
})();
