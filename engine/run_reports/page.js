"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const MARGIN = { left: 54, right: 10, top: 8 };
  const MOST_VALUES = 8;
  const hidden = new Set();
  const charts = [];

  // Numbers
  const grouped = (value) => Math.round(value).toLocaleString("en-US");
  function shown(value) {
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (size < 1e-3 || size >= 1e7) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
    if (Number.isInteger(value)) return grouped(value);
    if (size >= 1000) return grouped(value);
    return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4);
  }
  function tickText(value, step) {
    if (value === 0) return "0";
    if (Math.abs(value) < 1e-3 || step < 1e-4) {
      const digits = Math.max(0, Math.floor(Math.log10(Math.abs(value)) + 1e-9) - Math.floor(Math.log10(step) + 1e-9));
      return value.toExponential(digits).replace("e+", "e");
    }
    if (Math.abs(value) >= 1e6) return `${+(value / 1e6).toPrecision(4)}M`;
    if (Math.abs(value) >= 1e4) return `${+(value / 1e3).toPrecision(4)}k`;
    return value.toLocaleString("en-US", { maximumFractionDigits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) });
  }
  function ticks(low, high, most) {
    const rough = (high - low) / Math.max(1, most);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step);
    return { found, step };
  }

  // Drawing
  function element(parent, name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.appendChild(made);
    return made;
  }
  const colour = (run) => `var(--c${run % 8})`;
  const dash = (run) => ["", "6 3", "2 3", "8 3 2 3"][Math.floor(run / 8) % 4];
  const highest = Math.max(1, ...data.panels.flatMap((panel) => panel.lines.map((line) => line.x[line.x.length - 1])));

  function draw(chart) {
    const { panel, svg, hasAxis } = chart;
    const width = svg.clientWidth;
    if (!width) return;
    const inner = panel.group === "quality" ? 132 : panel.group === "details" ? 96 : 84;
    const height = MARGIN.top + inner + (hasAxis ? 24 : 6);
    svg.setAttribute("height", height);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    const lines = panel.lines.filter((line) => !hidden.has(line.run));
    const values = lines.flatMap((line) => line.y);
    let low = Math.min(...values), high = Math.max(...values);
    if (!values.length) [low, high] = [0, 1];
    if (panel.zero || (low > 0 && low < 0.35 * high)) low = Math.min(0, low);
    if (low === high) [low, high] = low === 0 ? [0, 1] : [low - Math.abs(low) * 0.1, high + Math.abs(high) * 0.1];
    const span = high - low;
    if (low !== 0) low -= span * 0.06;
    high += span * 0.06;
    const right = width - MARGIN.right;
    const x = (value) => MARGIN.left + (value / highest) * (right - MARGIN.left);
    const y = (value) => MARGIN.top + inner - ((value - low) / (high - low)) * inner;
    const bottom = MARGIN.top + inner;
    const { found, step } = ticks(low, high, Math.floor(inner / 21));
    for (const value of found) {
      element(svg, "line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(value), y2: y(value) });
      element(svg, "text", { x: MARGIN.left - 8, y: y(value) + 4, "text-anchor": "end" }, tickText(value, step));
    }
    element(svg, "line", { class: "axis", x1: MARGIN.left, x2: right, y1: bottom, y2: bottom });
    if (hasAxis) {
      const along = ticks(0, highest, Math.max(2, Math.floor((right - MARGIN.left) / 90)));
      const last = along.found[along.found.length - 1];
      for (const value of along.found) {
        const isLast = value === last;
        const atEnd = isLast && x(value) > right - 40;
        element(svg, "line", { class: "axis", x1: x(value), x2: x(value), y1: bottom, y2: bottom + 4 });
        element(svg, "text", { x: atEnd ? right : x(value), y: bottom + 18,
          "text-anchor": value === 0 ? "start" : atEnd ? "end" : "middle" },
          tickText(value, along.step) + (isLast ? " examples" : ""));
      }
    }
    for (const at of data.changes) {
      element(svg, "line", { class: "change", x1: x(at), x2: x(at), y1: MARGIN.top, y2: bottom });
    }
    for (const line of lines) {
      let path = "";
      line.x.forEach((at, n) => {
        if (!n) path = `M${x(panel.step ? 0 : at).toFixed(1)},${y(line.y[0]).toFixed(1)}`;
        // A row tells of the step that ended there, so a step changes before its row.
        if (panel.step && n) path += `V${y(line.y[n]).toFixed(1)}`;
        if (panel.step) path += `H${x(at).toFixed(1)}`;
        else if (n) path += `L${x(at).toFixed(1)},${y(line.y[n]).toFixed(1)}`;
      });
      if (line.x.length === 1 && !panel.step) {
        element(svg, "circle", { cx: x(line.x[0]), cy: y(line.y[0]), r: 3, style: `fill:${colour(line.run)}` });
      }
      element(svg, "path", { class: "curve", d: path, style: `stroke:${colour(line.run)}`, "stroke-dasharray": dash(line.run) });
    }
    chart.cursor = element(svg, "line", { class: "cursor", y1: MARGIN.top, y2: bottom, visibility: "hidden" });
    chart.dots = lines.map((line) =>
      element(svg, "circle", { r: 3.5, style: `fill:${colour(line.run)}`, visibility: "hidden" }));
    Object.assign(chart, { x, y, lines, right });
    read(chart, null);
  }

  // Reading values: at the pointer, or else the last ones.
  function nearest(line, at, isStep) {
    let low = 0, high = line.x.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (line.x[middle] < at) low = middle + 1; else high = middle;
    }
    if (!isStep && low > 0 && at - line.x[low - 1] < line.x[low] - at) low -= 1;
    return low;
  }
  function read(chart, at) {
    if (!chart.lines) return;
    const several = chart.lines.length > 1;
    const readings = [];
    chart.values.replaceChildren();
    chart.cursor.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at !== null) {
      chart.cursor.setAttribute("x1", chart.x(at));
      chart.cursor.setAttribute("x2", chart.x(at));
    }
    chart.lines.forEach((line, n) => {
      const found = at === null ? line.x.length - 1 : nearest(line, at, chart.panel.step);
      const dot = chart.dots[n];
      dot.setAttribute("visibility", at === null ? "hidden" : "visible");
      dot.setAttribute("cx", chart.x(chart.panel.step && at !== null ? Math.min(at, line.x[line.x.length - 1]) : line.x[found]));
      dot.setAttribute("cy", chart.y(line.y[found]));
      if (chart.lines.length <= MOST_VALUES) {
        const text = document.createElement("span");
        text.textContent = shown(line.y[found]);
        if (several) text.style.color = colour(line.run);
        chart.values.appendChild(text);
      }
      readings.push(line.y[found]);
    });
    if (chart.lines.length > MOST_VALUES) {
      const ends = [Math.min(...readings), Math.max(...readings)];
      chart.values.textContent = ends.map(shown).join(" to ");
    }
  }
  const where = document.querySelector(".where");
  function point(at) {
    for (const chart of charts) read(chart, at);
    if (!where) return;
    const epochs = new Set(data.runs.map((run) => run.epoch));
    const epoch = epochs.size === 1 && data.runs[0].epoch ? `, epoch ${(at / data.runs[0].epoch).toFixed(2)}` : "";
    where.textContent = at === null ? "last values" : `at ${grouped(at)} examples${epoch}`;
  }
  function listen(chart) {
    const move = (event) => {
      if (!chart.x) return;
      const box = chart.svg.getBoundingClientRect();
      const part = (event.clientX - box.left - MARGIN.left) / (chart.right - MARGIN.left);
      point(Math.min(1, Math.max(0, part)) * highest);
    };
    chart.svg.addEventListener("pointermove", move);
    chart.svg.addEventListener("pointerdown", move);
    chart.svg.addEventListener("pointerleave", () => point(null));
  }

  for (const figure of document.querySelectorAll(".panel")) {
    const chart = {
      panel: data.panels[+figure.dataset.panel],
      svg: figure.querySelector("svg"),
      values: figure.querySelector(".values"),
      hasAxis: figure.classList.contains("last") || Boolean(figure.closest(".details")),
    };
    charts.push(chart);
    listen(chart);
    draw(chart);
    let drawn = chart.svg.clientWidth;
    new ResizeObserver(() => requestAnimationFrame(() => {
      if (chart.svg.clientWidth !== drawn) draw(chart);
      drawn = chart.svg.clientWidth;
    })).observe(chart.svg);
  }
  for (const button of document.querySelectorAll(".bar button")) {
    button.addEventListener("click", () => {
      const run = +button.dataset.run;
      if (!hidden.delete(run)) hidden.add(run);
      button.setAttribute("aria-pressed", String(!hidden.has(run)));
      charts.forEach(draw);
    });
  }

  // Samples: each run shows its newest grid at or before the position of the slider.
  const slider = document.querySelector(".slider input");
  if (slider) {
    const positions = [...new Set(data.frames.flat().map((frame) => frame.at))].sort((a, b) => a - b);
    const images = [...document.querySelectorAll(".grids img")];
    for (const image of images) {
      const frames = data.frames[+image.dataset.run];
      frames[frames.length - 1].src = image.src;
    }
    const show = () => {
      const at = positions[+slider.value];
      document.querySelector(".slider output").textContent = `${grouped(at)} examples`;
      for (const image of images) {
        const frames = data.frames[+image.dataset.run];
        const frame = frames.filter((each) => each.at <= at).pop() || frames[0];
        if (image.src !== frame.src) image.src = frame.src;
      }
    };
    slider.max = positions.length - 1;
    slider.value = slider.max;
    slider.addEventListener("input", show);
    show();
  }
})();
