"use strict";
(() => {
  const data = JSON.parse(document.getElementById("player-data").textContent);
  const get = (id) => document.getElementById(id);
  const player = get("player");
  const colours = Uint8Array.from(atob(data.colours), (c) => c.charCodeAt(0));  // 256 x (r, g, b)
  const BEATS = 2, WIDE = 6;  // of a profile: heartbeats, and pixels a frame is drawn wide
  const state = { frame: 0, heart: true, low: 0, high: 1, error: 0, row: 0, column: 0 };
  let view, panels = [], timer = null, serial = 0;

  // -- reading: the frames of a series lie side by side in one 8-bit picture

  const region = () => (state.heart ? view.heart : view.whole);

  async function unpacked(source, part) {
    const picture = new Image();
    picture.src = "data:image/png;base64," + source;
    await picture.decode();
    const canvas = document.createElement("canvas");
    canvas.width = picture.width;
    canvas.height = picture.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    const values = context.getImageData(0, 0, picture.width, picture.height).data;
    const [height, width] = part.size;
    const levels = new Uint8Array(view.frames * height * width);
    for (let t = 0; t < view.frames; t++) {
      const top = Math.floor(t / part.across) * height, left = (t % part.across) * width;
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++)
          levels[(t * height + y) * width + x] = values[4 * ((top + y) * picture.width + left + x)];
    }
    return levels;
  }

  const scale = (part) => part.peak / 255;  // of a level
  const digits = (value) => (value >= 100 ? value.toFixed(0) : Number(value.toPrecision(2)).toString());

  // -- drawing

  function paint(canvas, width, height, levelAt, table) {
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const pixels = image.data;
    let at = 0;
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++, at += 4) {
        const colour = 3 * levelAt(y, x);
        pixels[at] = table[colour];
        pixels[at + 1] = table[colour + 1];
        pixels[at + 2] = table[colour + 2];
        pixels[at + 3] = 255;
      }
    context.putImageData(image, 0, 0);
  }

  function grays(part) {
    const table = new Uint8ClampedArray(768);
    for (let level = 0; level < 256; level++) {
      const shown = (255 * (level * scale(part) - state.low)) / (state.high - state.low);
      table.fill(Math.round(shown), 3 * level, 3 * level + 3);
    }
    return table;
  }

  function errors(part) {
    const table = new Uint8ClampedArray(768);
    for (let level = 0; level < 256; level++) {
      const shown = Math.min(255, Math.round((255 * level * scale(part)) / state.error));
      table.set(colours.subarray(3 * shown, 3 * shown + 3), 3 * level);
    }
    return table;
  }

  function position(part) {  // of the two lines, in pixels of what is shown
    const inside = (value, size) => Math.min(size - 1, Math.max(0, value));
    return [
      inside(Math.floor((state.row - part.top) * part.zoom), part.size[0]),
      inside(Math.floor((state.column - part.left) * part.zoom), part.size[1]),
    ];
  }

  const levelsOf = (panel) => (state.heart ? panel.heart : panel.whole);

  function drawFrame() {
    const part = region(), [height, width] = part.size, start = state.frame * height * width;
    const truth = view.truth === null ? null : levelsOf(panels[view.truth]);
    if (!panels.every(levelsOf)) return;
    const gray = grays(part), hot = errors(part);
    const proportions = `${width} / ${height * view.aspect}`;  // pixels need not be square
    for (const panel of panels) {
      const own = levelsOf(panel);
      panel.canvas.style.aspectRatio = proportions;
      paint(panel.canvas, width, height, (y, x) => own[start + y * width + x], panel.layer ? colours : gray);
      const title = `${panel.name}, frame ${state.frame + 1} of ${view.frames}`;
      panel.canvas.setAttribute("aria-label", title);
      if (panel.error) {
        const difference = (y, x) => Math.abs(own[start + y * width + x] - truth[start + y * width + x]);
        panel.error.style.aspectRatio = proportions;
        paint(panel.error, width, height, difference, hot);
        panel.error.setAttribute("aria-label", `error of ${title}`);
      }
      const value = panel.psnr ? panel.psnr[state.frame] : null;
      panel.score.textContent = value === null ? "" : `${value.toFixed(2)} dB in this frame`;
    }
    const now = (state.frame + 0.5) / view.frames / BEATS;
    for (const line of get("profiles").querySelectorAll(".now")) line.style.left = `${100 * now}%`;
    get("frame").value = state.frame;
    get("frame-text").textContent = `${state.frame + 1} of ${view.frames}${named(state.frame)}`;
    for (const cursor of document.querySelectorAll(`.view[data-view="${serial}"] .cursor`)) {
      const left = +cursor.dataset.left, right = +cursor.dataset.right;
      const x = view.frames > 1 ? left + ((right - left) * state.frame) / (view.frames - 1) : left;
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
    }
  }

  function drawProfiles() {
    if (view.frames < 2 || !panels.every(levelsOf)) return;
    const part = region(), [height, width] = part.size, [row, column] = position(part);
    const gray = grays(part), across = BEATS * view.frames * WIDE;
    const frameAt = (x) => Math.floor(x / WIDE) % view.frames;
    for (const panel of panels) {
      const own = levelsOf(panel);
      const alongY = (y, x) => own[(frameAt(x) * height + y) * width + column];
      const alongX = (y, x) => own[(frameAt(x) * height + row) * width + y];
      const table = panel.layer ? colours : gray;
      paint(panel.alongY, across, height, alongY, table);
      paint(panel.alongX, across, width, alongX, table);
    }
    for (const line of get("panels").querySelectorAll(".row"))
      line.style.top = `${(100 * (row + 0.5)) / height}%`;
    for (const line of get("panels").querySelectorAll(".column"))
      line.style.left = `${(100 * (column + 0.5)) / width}%`;
  }

  function named(frame) {
    return frame > 0 && frame === view.farthest ? ", farthest from 1" : "";
  }

  function draw() {
    get("heart").setAttribute("aria-pressed", state.heart);
    get("whole").setAttribute("aria-pressed", !state.heart);
    get("low").value = (1000 * state.low) / view.limit;
    get("high").value = (1000 * state.high) / view.limit;
    get("low-text").textContent = digits(state.low);
    get("high-text").textContent = digits(state.high);
    let text = `Gray window ${digits(state.low)} to ${digits(state.high)}, the same in all panels; frames are stored in steps of ${digits(scale(region()))}.`;
    if (view.truth !== null) {
      get("error").value = (1000 * state.error) / view.errorLimit;
      get("error-text").textContent = digits(state.error);
      get("panels").querySelector(".bar output").textContent = `${digits(state.error)} and more`;
    }
    if (!state.heart && view.whole.zoom < 1)
      text += ` Whole images are shown at ${Math.round(100 * view.whole.zoom)} % of their resolution, for the size of this file; the heart at its full one.`;
    get("statement").textContent = text;
    drawFrame();
    drawProfiles();
  }

  // -- the panels of a series

  function element(tag, parent, properties = {}) {
    return parent.appendChild(Object.assign(document.createElement(tag), properties));
  }

  function picture(figure, ...lines) {
    const box = element("div", figure, { className: "picture" });
    const canvas = element("canvas", box);
    canvas.setAttribute("role", "img");
    for (const name of lines) element("i", box, { className: name });
    return canvas;
  }

  function legend(figure) {
    const bar = element("div", figure, { className: "bar" });
    element("span", bar, { textContent: "Below each method, its error: |method \u2212 ground truth|" });
    const canvas = element("canvas", bar);
    canvas.setAttribute("aria-hidden", "true");
    paint(canvas, 256, 1, (y, x) => x, colours);
    const ends = element("p", bar);
    element("span", ends, { textContent: "0" });
    element("output", ends);
  }

  async function show(number) {
    serial = number;
    view = data.views[number];
    const moves = view.frames > 1;
    for (const section of document.querySelectorAll(".view"))
      section.hidden = +section.dataset.view !== number;
    for (const id of ["panels", "profiles"]) {
      get(id).replaceChildren();
      get(id).style.setProperty("--columns", view.panels.length + view.layers.length);
    }
    for (const id of ["previous", "next", "play", "first", "farthest", "frame"])
      get(id).disabled = !moves;
    get("frame").max = view.frames - 1;
    get("error-control").hidden = view.truth === null;
    const layers = view.layers.map(({ name, role }) => ({ name, role, layer: true }));
    panels = [...view.panels, ...layers].map((given, index) => {
      const figure = element("figure", get("panels"));
      const caption = element("figcaption", figure);
      element("b", caption, { textContent: given.name });
      element("span", caption, { textContent: given.role });
      if (given.psnr) element("br", caption);
      const score = element("span", caption);
      const canvas = picture(figure, "row", "column");
      const hasError = view.truth !== null && index !== view.truth && !given.layer;
      if (index === view.truth) legend(figure);
      const error = hasError ? picture(figure, "row", "column") : null;
      const panel = { ...given, canvas, error, score, heart: null, whole: null };
      if (moves) {
        const motion = element("figure", get("profiles"));
        element("b", element("figcaption", motion), { textContent: given.name });
        panel.alongY = picture(motion, "now");
        panel.alongX = picture(motion, "now");
        panel.alongY.setAttribute("aria-label", `${given.name}: y over time`);
        panel.alongX.setAttribute("aria-label", `${given.name}: x over time`);
      }
      return panel;
    });
    reset();
    await read();
  }

  async function read() {  // the part that is shown, when it is first shown
    const kind = state.heart ? "heart" : "whole", part = region(), asked = panels;
    const stored = [...part.sources, ...view.layers.map((layer) => layer[kind])];
    const sources = panels.map((panel, index) => (panel[kind] ? null : unpacked(stored[index], part)));
    const found = await Promise.all(sources);
    asked.forEach((panel, index) => { if (found[index]) panel[kind] = found[index]; });
    if (asked === panels) draw();
    player.dataset.ready = "yes";
  }

  function reset() {
    Object.assign(state, {
      frame: 0, low: view.window[0], high: view.window[1],
      error: view.error, row: view.row, column: view.column,
    });
    draw();
  }

  // -- what a reader does

  function go(frame) {
    state.frame = ((frame % view.frames) + view.frames) % view.frames;
    drawFrame();
  }

  function play(on) {
    clearInterval(timer);
    timer = null;
    if (on && view.frames > 1)
      timer = setInterval(() => go(state.frame + 1), 1000 / view.frames / +get("speed").value);
    get("play").textContent = timer === null ? "Play" : "Pause";
  }

  function stop(frame) {
    play(false);
    go(frame);
  }

  function choose(heart) {
    state.heart = heart;
    read();
  }

  get("play").onclick = () => play(timer === null);
  get("previous").onclick = () => stop(state.frame - 1);
  get("next").onclick = () => stop(state.frame + 1);
  get("first").onclick = () => stop(0);
  get("farthest").onclick = () => stop(view.farthest);
  get("frame").oninput = (event) => stop(+event.target.value);
  get("speed").onchange = () => play(timer !== null);
  get("heart").onclick = () => choose(true);
  get("whole").onclick = () => choose(false);
  get("reset").onclick = reset;
  get("low").oninput = (event) => {
    state.low = Math.min((event.target.value / 1000) * view.limit, state.high - 0.005 * view.limit);
    draw();
  };
  get("high").oninput = (event) => {
    state.high = Math.max((event.target.value / 1000) * view.limit, state.low + 0.005 * view.limit);
    draw();
  };
  get("error").oninput = (event) => {
    state.error = (event.target.value / 1000) * view.errorLimit;
    draw();
  };
  get("series").onchange = (event) => show(+event.target.value);

  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, summary") || event.ctrlKey || event.metaKey || event.altKey) return;
    const space = event.key === " " && !event.target.closest("button");
    if (space) play(timer === null);
    else if (event.key === "ArrowLeft") stop(state.frame - 1);
    else if (event.key === "ArrowRight") stop(state.frame + 1);
    else if (event.key === "Home" && player.contains(event.target)) stop(0);
    else if (event.key === "End" && player.contains(event.target)) stop(view.farthest);
    else return;
    event.preventDefault();
  });

  // a tap moves the lines, a drag to the side steps through the frames
  let start = null;
  get("panels").addEventListener("pointerdown", (event) => {
    if (!event.target.closest(".picture")) return;
    start = { x: event.clientX, y: event.clientY, frame: state.frame, moved: false };
    event.target.setPointerCapture(event.pointerId);
  });
  get("panels").addEventListener("pointermove", (event) => {
    if (!start) return;
    const step = Math.round((event.clientX - start.x) / 10);
    if (step) start.moved = true;
    if (start.moved) stop(start.frame + step);
  });
  get("panels").addEventListener("pointerup", (event) => {
    if (start && !start.moved && Math.abs(event.clientY - start.y) < 10) {
      const box = event.target.getBoundingClientRect(), part = region();
      state.row = part.top + ((event.clientY - box.top) / box.height) * (part.size[0] / part.zoom);
      state.column = part.left + ((event.clientX - box.left) / box.width) * (part.size[1] / part.zoom);
      drawProfiles();
    }
    start = null;
  });
  get("panels").addEventListener("pointercancel", () => { start = null; });

  window.addEventListener("beforeprint", () => {
    play(false);
    for (const detail of document.querySelectorAll("details")) detail.open = true;
  });

  player.querySelector(".controls").hidden = false;
  get("choice").hidden = data.views.length < 2;
  show(0).then(() => {
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches && !matchMedia("print").matches) play(true);
  });
})();
