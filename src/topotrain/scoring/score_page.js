"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["sendChartToCloud"] };
  const body = find("rows");
  const rows = [...body.rows].map((element, place) => ({ element, ...data.rows[place] }));

  // The table: what is looked for, and the order.
  const target = find("target"), text = find("text");
  const isShown = (row) =>
    (!target || target.value === "" || row.target === data.targets[Number(target.value)]) &&
    (row.model + " " + row.target).toLowerCase().includes(text.value.trim().toLowerCase());

  function filter() {
    const shown = rows.filter((row) => (row.element.hidden = !isShown(row)) === false);
    find("count").textContent = `${shown.length} of ${rows.length} models`;
    draw(shown);
  }

  function sort(header, key) {
    const up = header.getAttribute("aria-sort") !== "ascending";
    for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const empty = (value) => value === null;
    rows.sort((one, other) => {
      const [a, b] = [one[key], other[key]];
      if (empty(a) || empty(b)) return empty(a) - empty(b);
      const order = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
      return up ? order : -order;
    });
    body.append(...rows.map((row) => row.element));
  }

  for (const button of document.querySelectorAll("thead button[data-key]")) {
    button.addEventListener("click", () => sort(button.parentNode, button.dataset.key));
  }
  if (target) target.addEventListener("change", filter);
  text.addEventListener("input", filter);

  // The charts of what is shown.
  const axis = (title, more) => ({ title: { text: title }, gridcolor: "#ececec", zeroline: false, ...more });
  const layout = (x, y, more) => ({
    margin: { t: 12, r: 12, b: 48, l: 56 }, font: { family: "system-ui, sans-serif", size: 13, color: "#222" },
    xaxis: x, yaxis: y, hoverlabel: { align: "left" }, ...more,
  });

  function draw(shown) {
    const lines = data.thresholds.map(([at]) => ({
      type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line: { color: "#999", width: 1, dash: "dot" },
    }));
    const names = data.thresholds.map(([at, name]) => ({
      x: at, yref: "paper", y: 1, text: name, showarrow: false, xanchor: "left", yanchor: "top", font: { size: 11, color: "#555" },
    }));
    Plotly.react("distribution", [{
      type: "histogram", x: shown.map((row) => row.score), xbins: { start: 0, end: 1, size: 0.02 },
      marker: { color: "#77aadd" }, hovertemplate: "%{x}: %{y} models<extra></extra>",
    }], layout(axis(data.predicted, { range: [0, 1] }), axis("models"), { bargap: 0.05, shapes: lines, annotations: names }),
    config);
    const beside = data.rows.some((row) => row.pdockq !== null) ? ["pdockq", "pDockQ"] : ["contacts", "contacts"];
    const points = shown.filter((row) => row[beside[0]] !== null);
    Plotly.react("beside", [{
      type: "scatter", mode: "markers", x: points.map((row) => row[beside[0]]), y: points.map((row) => row.score),
      error_y: data.spread
        ? { type: "data", array: points.map((row) => row.spread), color: "#9ab", thickness: 1, width: 0 } : undefined,
      text: points.map((row) => escaped(row.model)), marker: { color: "#4477aa", size: 7, opacity: 0.75 },
      hovertemplate: `%{text}<br>${beside[1]} %{x}<br>${escaped(data.predicted)} %{y:.3f}<extra></extra>`,
    }], layout(axis(beside[1]), axis(data.predicted, { range: [0, 1] })), config);
  }

  // One structure in space: always the same scene, so that there is one WebGL context.
  const colours = ["#7f7f7f", "#bfa46f", "#6f9f8f", "#a58fb5", "#8f9fbf", "#b58f8f"];
  const scale = [[0, "#2166ac"], [0.5, "#f7f7f7"], [1, "#b2182b"]];
  const mix = (value, largest) => {
    const share = Math.min(1, Math.abs(value) / largest), end = value < 0 ? [33, 102, 172] : [178, 24, 43];
    return `rgb(${end.map((part) => Math.round(247 + (part - 247) * share)).join(",")})`;
  };
  const signed = (value) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(4);
  let current = -1;

  function show(place) {
    const view = data.views[place];
    if (place === current || !view) return;
    current = place;
    for (const button of document.querySelectorAll("#choices button")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.view) === place));
    }
    const values = view.residues.map((one) => one[3]), largest = Math.max(...values.map(Math.abs), 1e-9);
    const label = (one) => escaped(`${one[2]} ${one[0]}:${one[1]}`.trim());
    const chains = view.chains.map((chain, number) => ({
      type: "scatter3d", mode: "lines", name: escaped("chain " + chain.name), x: chain.x, y: chain.y, z: chain.z,
      line: { color: colours[number % colours.length], width: 5 }, hoverinfo: "name",
    }));
    Plotly.react("space", [...chains, {
      type: "scatter3d", mode: "markers", name: "interface", x: view.residues.map((one) => one[4]),
      y: view.residues.map((one) => one[5]), z: view.residues.map((one) => one[6]),
      text: view.residues.map((one) => `${label(one)}<br>importance ${signed(one[3])}`), hovertemplate: "%{text}<extra></extra>",
      marker: { size: 6, color: values, colorscale: scale, cmin: -largest, cmax: largest, line: { color: "#555", width: 1 } },
    }], {
      margin: { t: 0, r: 0, b: 0, l: 0 }, uirevision: place, legend: { x: 0, y: 1, bgcolor: "rgba(255,255,255,.7)" },
      font: { family: "system-ui, sans-serif", size: 13 },
      scene: {
        aspectmode: "data", dragmode: "orbit", uirevision: place, camera: { eye: { x: 1.05, y: 1.05, z: 0.7 } },
        ...Object.fromEntries(["xaxis", "yaxis", "zaxis"].map((name) => [name, { visible: false, showspikes: false }])),
      },
    }, config);
    find("space").setAttribute("aria-label",
      `Chains of ${view.model} as lines, ${view.residues.length} interface residues coloured by importance; the list has the same`);
    find("seen").textContent = view.model;
    find("sum").textContent = `${data.predicted} ${view.score.toFixed(4)}; the average interface has ` +
      `${view.reference.toFixed(4)}, and the residues add the difference.`;
    find("low").textContent = signed(-largest);
    find("high").textContent = signed(largest);
    find("residues").replaceChildren(...view.residues.map((one) => {
      const row = document.createElement("tr");
      for (const [number, value] of [one[0], one[1], one[2]].entries()) {
        const cell = document.createElement(number === 1 ? "th" : "td");
        if (number === 1) cell.scope = "row";
        cell.textContent = value;
        row.append(cell);
      }
      const cell = document.createElement("td"), swatch = document.createElement("span");
      cell.className = "number";
      swatch.className = "swatch";
      swatch.style.background = mix(one[3], largest);
      cell.append(swatch, signed(one[3]));
      row.append(cell);
      return row;
    }));
  }

  for (const button of document.querySelectorAll("button[data-view]")) {
    button.addEventListener("click", () => {
      show(Number(button.dataset.view));
      if (!button.closest("#choices")) find("views").scrollIntoView({ behavior: "smooth" });
    });
  }
  const watch = new IntersectionObserver((seen) => {
    if (seen.some((one) => one.isIntersecting)) {
      watch.disconnect();
      if (current < 0) show(0);
    }
  });
  watch.observe(find("views"));
  filter();
})();
