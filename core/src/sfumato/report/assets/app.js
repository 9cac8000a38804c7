"use strict";
// Sorting, filtering, playback and plots. No network, no storage but the theme.
(() => {
  const root = document.documentElement;
  const remember = (value) => { try { localStorage.setItem("theme", value); } catch { /* file: pages may have none */ } };
  try { const kept = localStorage.getItem("theme"); if (kept) root.dataset.theme = kept; } catch { /* as above */ }

  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  // What a figure leaves open follows the page; black, which the dark page swallows, becomes its ink.
  const draw = (plot) => {
    const ink = dark() ? "#e6e6e2" : "#1d1f21", text = plot.querySelector("script").textContent;
    const figure = JSON.parse(dark() ? text.replace(/"(#000(000)?|black)"/gi, `"${ink}"`) : text);
    const axis = { gridcolor: "rgba(128,128,128,.25)", zerolinecolor: "rgba(128,128,128,.5)", automargin: true };
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 10, r: 20, t: 30, b: 40 }, ...figure.layout,
      modebar: { bgcolor: "rgba(0,0,0,0)", color: "rgba(128,128,128,.7)", activecolor: ink },
      font: { ...(figure.layout.font || {}), color: ink },
    };
    for (const name of new Set(["xaxis", "yaxis", ...Object.keys(layout).filter((k) => /^[xy]axis\d*$/.test(k))])) layout[name] = { ...axis, ...layout[name] };
    if (!plot.target) { plot.target = document.createElement("div"); plot.append(plot.target); }
    Plotly.react(plot.target, figure.data, layout, { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtonsToRemove: ["lasso2d", "select2d"] });
  };
  const plots = [...document.querySelectorAll(".plot")];
  plots.forEach(draw);
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark"; remember(root.dataset.theme); plots.forEach(draw);
  });

  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value !== undefined ? cell.dataset.value : cell.textContent.trim();
    const number = Number(text);
    return text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const order = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a < b ? -1 : a > b ? 1 : 0;
  };
  document.querySelectorAll("table.sortable").forEach((table) => {
    table.querySelectorAll("thead th").forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].sort((a, b) => {
          const x = key(a, column), y = key(b, column);
          if (x === null || y === null) return order(x, y);
          return down ? -order(x, y) : order(x, y);
        });
        body.append(...rows);
      });
    });
  });

  document.querySelectorAll("table.filterable").forEach((table) => {
    if (table.tBodies[0].rows.length < 4) return;
    const field = document.createElement("input");
    field.type = "search"; field.className = "filter"; field.placeholder = "Filter rows"; field.setAttribute("aria-label", "Filter rows");
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
    table.parentElement.before(field);
  });

  // A table that is wider than the page is scrolled by the arrow keys, once it can be focused.
  const reach = () => document.querySelectorAll(".scroll").forEach((box) => {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0; box.setAttribute("role", "region");
      box.setAttribute("aria-label", (box.querySelector("caption") || {}).textContent || "Table, wider than the page");
    } else { box.removeAttribute("tabindex"); box.removeAttribute("role"); box.removeAttribute("aria-label"); }
  });
  reach(); addEventListener("resize", reach);

  // On paper: light, plots as wide as the page, everything unfolded, and of a film four frames.
  let before = null;
  addEventListener("beforeprint", () => {
    before = { theme: root.dataset.theme, closed: [...document.querySelectorAll("details:not([open])")] };
    root.dataset.theme = "light"; before.closed.forEach((d) => { d.open = true; });
    plots.forEach((plot) => { draw(plot); Plotly.relayout(plot.target, { width: 660 }); });
    document.querySelectorAll(".playback").forEach((player) => player.dispatchEvent(new Event("strip")));
  });
  addEventListener("afterprint", () => {
    if (before.theme) root.dataset.theme = before.theme; else delete root.dataset.theme;
    before.closed.forEach((d) => { d.open = false; }); plots.forEach((plot) => { draw(plot); Plotly.relayout(plot.target, { width: null, autosize: true }); });
    document.querySelectorAll(".playback").forEach((player) => player.dispatchEvent(new Event("single")));
  });

  document.querySelectorAll(".playback").forEach((player) => {
    const frames = [...player.querySelectorAll(".frame")];
    const slider = player.querySelector("input"), button = player.querySelector(".play"), output = player.querySelector("output");
    let timer = null;
    const show = (k) => {
      frames.forEach((frame, j) => { frame.hidden = j !== k; });
      slider.value = k; output.textContent = frames[k].dataset.caption; slider.setAttribute("aria-valuetext", frames[k].dataset.caption);
    };
    const stop = () => { clearInterval(timer); timer = null; button.textContent = "Play"; };
    const play = () => {
      if (Number(slider.value) >= frames.length - 1) show(0);
      button.textContent = "Pause";
      timer = setInterval(() => { const k = Number(slider.value) + 1; if (k >= frames.length) stop(); else show(k); }, Number(player.dataset.seconds) * 1000);
    };
    button.addEventListener("click", () => (timer ? stop() : play()));
    slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
    player.addEventListener("keydown", (event) => {
      if (event.target !== player) return;
      if (event.key === " ") { event.preventDefault(); button.click(); }
      if (event.key === "ArrowRight") show(Math.min(Number(slider.value) + 1, frames.length - 1));
      if (event.key === "ArrowLeft") show(Math.max(Number(slider.value) - 1, 0));
    });
    player.addEventListener("strip", () => {
      stop();
      const last = frames.length - 1, kept = new Set([0, Math.round(last / 3), Math.round(2 * last / 3), last]);
      frames.forEach((frame, k) => { frame.hidden = !kept.has(k); });
    });
    player.addEventListener("single", () => show(Number(slider.value)));
    show(0);
  });
})();
