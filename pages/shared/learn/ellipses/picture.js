// The picture of the Learn page: two ellipses, a start and an origin that can be dragged, by
// pointer, finger or keyboard.  It draws with algebra.js while something moves, and sends its state
// to Python when it rests.

const SVG = "http://www.w3.org/2000/svg";
const WORLD = { x: 4, y: 3 }; // half the width and half the height
const AXES = [0.2, 3];
const CONTOURS = [0.1, 0.5, 1.5, 4, 8, 14]; // of the summed loss, above its minimum
const COLOURS = {
  average: "#6B7178", Fisher: "#009E73", full: "#D55E00", walk: "#CC79A7", sum: "#6B7178",
  essential: "#D55E00",
};
const SHAPES = { average: "circle", Fisher: "square", full: "diamond", target: "cross",
  sum: "circle", essential: "diamond", walk: "dot" };
const WORDS = { average: "average", Fisher: "diagonal Fisher", full: "full curvature",
  sum: "task arithmetic", essential: "after this step", walk: "CG stands here",
  target: "CG goes here" };
const open = new WeakMap();

const clamp = (v, low, high) => Math.min(high, Math.max(low, v));
const rounded = (v, step) => Math.round(v / step) / Math.round(1 / step);
const place = (v, most) => clamp(rounded(v, 0.05), -most, most);
const axis = (v) => clamp(rounded(v, 0.05), ...AXES);
const angle = (v) => ((Math.round(v) % 180) + 180) % 180;

function node(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text) made.textContent = text;
  return made;
}

class Picture {
  constructor(root) {
    this.svg = root.querySelector("svg");
    this.table = root.querySelector("table");
    this.under = this.svg.appendChild(node("g", { "aria-hidden": "true" }));
    this.over = this.svg.appendChild(node("g"));
    this.handles = new Map();
    this.sent = -1;
    this.dragged = null;
    this.watch = new ResizeObserver(() => this.resize());
    this.watch.observe(this.svg.parentElement);
  }

  resize() {
    const width = this.svg.parentElement.clientWidth;
    if (!width || width === this.width) return;
    this.width = width;
    this.height = Math.round((width * WORLD.y) / WORLD.x);
    this.scale = width / (2 * WORLD.x);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.svg.setAttribute("height", this.height);
    if (this.state) this.draw();
  }

  // What Python says: taken over unless something newer is on its way there.
  receive(data, send) {
    this.data = data;
    this.send = send;
    const waiting = this.timer !== undefined;
    if (!this.dragged && !waiting && data.serial >= this.sent) {
      this.state = structuredClone(data.state);
      this.sent = data.serial;
    }
    this.resize();
    this.draw();
  }

  px(point) {
    return [this.width / 2 + point[0] * this.scale, this.height / 2 - point[1] * this.scale];
  }

  world(event) {
    const box = this.svg.getBoundingClientRect();
    const zoom = this.width / box.width;
    return [
      ((event.clientX - box.left) * zoom - this.width / 2) / this.scale,
      (this.height / 2 - (event.clientY - box.top) * zoom) / this.scale,
    ];
  }

  // At rest the library's numbers, on the way our own.
  found() {
    const same = JSON.stringify(this.state) === JSON.stringify(this.data.state);
    return same ? this.data.found : everything(this.state, this.data.settings);
  }

  draw() {
    if (!this.width || !this.state) return;
    const found = this.found();
    const show = this.data.show;
    this.under.replaceChildren();
    this.grid();
    if (show.contours) this.contours(found);
    this.state.tasks.forEach((task, i) => this.ellipse(task, this.data.looks[i], show));
    if (show.essential) this.arrows(found.essential);
    for (const one of found.solutions) {
      if (show.solutions.includes(one.name)) {
        this.mark(SHAPES[one.name], one.point, COLOURS[one.name], show.walk ? 13 : 8);
      }
    }
    if (show.walk) this.path(found.walk, show.target);
    this.placeHandles(show);
    this.rows(found, show);
  }

  add(name, attributes, text) {
    return this.under.appendChild(node(name, attributes, text));
  }

  grid() {
    for (let x = -WORLD.x + 1; x < WORLD.x; x++) {
      const [at] = this.px([x, 0]);
      this.add("line", { x1: at, x2: at, y1: 0, y2: this.height, class: "grid" });
    }
    for (let y = -WORLD.y + 1; y < WORLD.y; y++) {
      const [, at] = this.px([0, y]);
      this.add("line", { x1: 0, x2: this.width, y1: at, y2: at, class: "grid" });
    }
    this.add("text", { x: this.width - 8, y: this.height - 8, class: "small", "text-anchor": "end" },
      "parameter 1 →");
    this.add("text", { x: 8, y: 18, class: "small" }, "↑ parameter 2");
  }

  oval(centre, turn, a, b, attributes) {
    const [x, y] = this.px(centre);
    this.add("ellipse", { rx: a * this.scale, ry: b * this.scale,
      transform: `translate(${x} ${y}) rotate(${-turn})`, ...attributes });
  }

  ellipse(task, look, show) {
    const opacity = show.essential ? 0.35 : 1;
    for (const [size, strength] of [[3, 0.2], [2, 0.4], [1, 1]]) {
      this.oval([task.x, task.y], task.angle, size * task.a, size * task.b, {
        fill: look.colour, "fill-opacity": size === 1 ? 0.18 * opacity : 0.03 * opacity,
        stroke: look.colour, "stroke-opacity": strength * opacity,
        "stroke-width": size === 1 ? 2.5 : 1, "stroke-dasharray": look.dash,
      });
    }
  }

  contours(found) {
    const { xx, xy, yy } = found.curvature;
    const turn = 0.5 * Math.atan2(2 * xy, xx - yy);
    const middle = (xx + yy) / 2;
    const half = Math.hypot((xx - yy) / 2, xy);
    const centre = found.solutions[2].point;
    for (const level of CONTOURS) {
      const [a, b] = [middle + half, middle - half].map((v) => Math.sqrt((2 * level) / v));
      this.oval(centre, (turn * 180) / Math.PI, a, b, { class: "contour" });
    }
  }

  path(walk, target) {
    const points = walk.points.map((p) => this.px(p));
    const line = { fill: "none", stroke: COLOURS.walk, "stroke-width": 3 };
    this.add("polyline", { points: points.map((p) => p.join(",")).join(" "), ...line });
    if (target) this.mark("cross", walk.target, COLOURS.walk);
    points.forEach(([x, y], i) => {
      if (i === 0) return;
      this.add("circle", { cx: x, cy: y, r: 9, fill: COLOURS.walk, class: "mark" });
      this.add("text", { x, y, class: "mid on dark" }, String(i));
    });
  }

  arrow(from, to, colour, width, dash = "") {
    const [[x1, y1], [x2, y2]] = [this.px(from), this.px(to)];
    const length = Math.hypot(x2 - x1, y2 - y1);
    if (length < 2) return;
    const [ux, uy] = [(x2 - x1) / length, (y2 - y1) / length];
    const head = Math.min(5 + 2 * width, length);
    const [bx, by] = [x2 - head * ux, y2 - head * uy];
    this.add("line", { x1, y1, x2: bx, y2: by, stroke: colour, "stroke-width": width,
      "stroke-dasharray": dash });
    const side = head * 0.5;
    this.add("polygon", { fill: colour, points:
      `${x2},${y2} ${bx - side * uy},${by + side * ux} ${bx + side * uy},${by - side * ux}` });
  }

  arrows(essential) {
    const { origin } = this.state;
    essential.updates.forEach((update, i) => {
      const { colour } = this.data.looks[i];
      this.arrow(origin, plus(origin, update), colour, 1.5, "5 4");
      this.arrow(origin, plus(origin, essential.moves[i]), colour, 4);
    });
    this.mark("circle", essential.plain, COLOURS.sum);
    this.mark("diamond", essential.point, COLOURS.essential);
  }

  mark(shape, point, colour, size = 8) {
    const [x, y] = this.px(point);
    const [inX, inY] = [clamp(x, 10, this.width - 10), clamp(y, 10, this.height - 10)];
    const made = this.under.appendChild(glyph(shape, inX, inY, size, colour));
    if (inX !== x || inY !== y) made.setAttribute("opacity", 0.45); // it lies further out
  }

  // Handles are kept between drawings, so that focus and capture survive.
  placeHandles(show) {
    const wanted = [];
    this.state.tasks.forEach((task, i) => {
      const { colour } = this.data.looks[i];
      if (show.axes) {
        wanted.push([`b${i}`, this.end(task, 90, task.b), colour, "end",
          `Width of task ${task.name}'s ellipse`, task.b.toFixed(2), task.b]);
        wanted.push([`a${i}`, this.end(task, 0, task.a), colour, "end",
          `End of task ${task.name}'s ellipse: left and right turn it, up and down change its length`,
          `turned by ${task.angle} degrees, length ${task.a.toFixed(2)}`, task.angle]);
      }
      wanted.push([`c${i}`, [task.x, task.y], colour, "centre",
        `Centre of task ${task.name}`, said([task.x, task.y]), task.x]);
    });
    for (const [name, key, words] of [["start", "walk", "Start of conjugate gradients"],
      ["origin", "essential", "Pre-trained model"]]) {
      if (show[key]) {
        wanted.push([name, this.state[name], COLOURS.walk, name,
          words, said(this.state[name]), this.state[name][0]]);
      }
    }
    const names = new Set(wanted.map(([name]) => name));
    for (const [name, handle] of this.handles) {
      if (!names.has(name)) (handle.remove(), this.handles.delete(name));
    }
    for (const [name, point, colour, kind, label, text, now] of wanted) {
      const handle = this.handles.get(name) ?? this.makeHandle(name, kind, colour);
      const [x, y] = this.px(point);
      handle.setAttribute("transform",
        `translate(${clamp(x, 10, this.width - 10)} ${clamp(y, 10, this.height - 10)})`);
      handle.setAttribute("aria-label", label);
      handle.setAttribute("aria-valuetext", text);
      handle.setAttribute("aria-valuenow", now);
      handle.querySelector("text.small")?.setAttribute("y", y > this.height - 40 ? -22 : 24);
    }
  }

  end(task, more, length) {
    const turn = ((task.angle + more) * Math.PI) / 180;
    return [task.x + length * Math.cos(turn), task.y + length * Math.sin(turn)];
  }

  makeHandle(name, kind, colour) {
    const handle = node("g", { class: "handle", tabindex: 0, role: "slider",
      "aria-roledescription": "handle to drag or to move with the arrow keys",
      "data-handle": name });
    handle.append(node("circle", { class: "hit", r: 22 }), node("circle", { class: "ring", r: 14 }));
    if (kind === "centre") {
      const task = this.state.tasks[Number(name.slice(1))].name;
      handle.append(node("circle", { r: 10, fill: colour, class: "mark" }));
      const dark = this.data.looks[Number(name.slice(1))].dark ? " dark" : "";
      handle.append(node("text", { class: `mid on${dark}` }, task));
    } else if (kind === "end") {
      handle.append(node("circle", { r: 6, stroke: colour, "stroke-width": 2.5,
        style: "fill: var(--st-background-color)" }));
    } else {
      const words = kind === "start" ? "start" : "pre-trained";
      const shape = kind === "start" ? { fill: colour } : { style: "fill: var(--st-text-color)" };
      handle.append(node("rect", { x: -8, y: -8, width: 16, height: 16, rx: 3, class: "mark",
        ...shape }), node("text", { x: 0, y: 24, class: "small mid" }, words));
    }
    handle.addEventListener("pointerdown", (event) => this.grab(event, name));
    handle.addEventListener("pointermove", (event) => this.drag(event, name));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      handle.addEventListener(end, () => this.drop(name));
    }
    handle.addEventListener("keydown", (event) => this.key(event, name));
    this.handles.set(name, handle);
    // Centres lie above the ends of their ellipses; the tab order is the drawing's.
    return this.over.appendChild(handle);
  }

  grab(event, name) {
    event.preventDefault();
    const handle = this.handles.get(name);
    handle.setPointerCapture(event.pointerId);
    handle.focus({ preventScroll: true });
    this.dragged = name;
  }

  drag(event, name) {
    if (this.dragged !== name) return;
    this.put(name, this.world(event));
    this.draw();
  }

  drop(name) {
    if (this.dragged !== name) return;
    this.dragged = null;
    this.tell();
  }

  put(name, [x, y]) {
    if (name === "start" || name === "origin") {
      this.state[name] = [place(x, WORLD.x), place(y, WORLD.y)];
      return;
    }
    const task = this.state.tasks[Number(name.slice(1))];
    if (name[0] === "c") {
      [task.x, task.y] = [place(x, WORLD.x), place(y, WORLD.y)];
      return;
    }
    const [dx, dy] = [x - task.x, y - task.y];
    if (name[0] === "a") {
      task.a = axis(Math.hypot(dx, dy));
      task.angle = angle((Math.atan2(dy, dx) * 180) / Math.PI);
    } else {
      task.b = axis(Math.hypot(dx, dy));
    }
  }

  key(event, name) {
    const far = event.shiftKey ? 5 : 1;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const task = this.state.tasks[Number(name.slice(1))];
    if (name[0] === "a" && task) {
      task.angle = angle(task.angle - 2 * far * move[0]);
      task.a = axis(task.a + 0.05 * far * move[1]);
    } else if (name[0] === "b" && task) {
      task.b = axis(task.b + 0.05 * far * (move[0] + move[1]));
    } else {
      const from = task ? [task.x, task.y] : this.state[name];
      this.put(name, plus(from, move, 0.1 * far));
    }
    this.draw();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.tell(), 250);
  }

  tell() {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.sent = Math.max(this.sent, this.data.serial) + 1;
    this.send("state", { ...structuredClone(this.state), serial: this.sent });
  }

  // The numbers of now: a row for each marker, which makes it the legend as well.
  rows(found, show) {
    const { tasks } = this.state;
    if (show.essential) {
      const { point, kept, plain, plain_kept } = found.essential;
      const percent = (v) => `${Math.round(100 * v)} %`;
      this.fill(tasks.map((task) => `${task.name}'s own move`), [
        { name: "sum", point: plain, texts: plain_kept.map(percent) },
        { name: "essential", point, texts: kept.map(percent) },
      ]);
      return;
    }
    const rows = found.solutions.filter((one) => show.solutions.includes(one.name));
    if (show.walk) rows.push(merged("walk", tasks, found.walk.points.at(-1)));
    if (show.walk && show.target) rows.push(merged("target", tasks, found.walk.target));
    const totals = rows.map((one) => one.losses.reduce((s, l) => s + l, 0));
    const least = Math.min(...totals) + 1e-9;
    this.fill([...tasks.map((task) => `loss ${task.name}`), "sum"], rows.map((one, i) => ({
      ...one, texts: [...one.losses, totals[i]].map(number),
      best: rows.length > 1 && totals[i] <= least,
    })));
  }

  fill(titles, rows) {
    this.table.tHead.replaceChildren(cells("th", ["point", ...titles]));
    this.table.tBodies[0].replaceChildren(...rows.map((one) => {
      const row = cells("td", ["", ...one.texts]);
      const icon = node("svg", { viewBox: "-9 -9 18 18", class: "glyph", "aria-hidden": "true" });
      icon.append(glyph(SHAPES[one.name], 0, 0, 8, COLOURS[one.name] ?? COLOURS.walk));
      row.firstChild.append(icon, WORDS[one.name]);
      row.dataset.name = one.name;
      row.dataset.point = one.point.join(" ");
      row.className = one.best ? "best" : "";
      return row;
    }));
  }

  close() {
    clearTimeout(this.timer);
    this.watch.disconnect();
  }
}

const said = (point) => point.map((v) => v.toFixed(2)).join(", ");
const number = (v) => (v >= 1000 ? v.toExponential(1) : v.toFixed(2));

function cells(kind, texts) {
  const row = document.createElement("tr");
  for (const text of texts) {
    const cell = row.appendChild(document.createElement(kind));
    cell.textContent = text;
    if (kind === "th") cell.scope = "col";
  }
  return row;
}

function glyph(shape, x, y, r, colour) {
  const attributes = { fill: colour, class: "mark" };
  if (shape === "circle" || shape === "dot") return node("circle", { cx: x, cy: y, r, ...attributes });
  if (shape === "cross") {
    return node("path", { d: `M${x - r} ${y - r}L${x + r} ${y + r}M${x + r} ${y - r}L${x - r} ${y + r}`,
      stroke: colour, "stroke-width": 3.5, fill: "none", "stroke-linecap": "round" });
  }
  const turn = shape === "diamond" ? 45 : 0;
  return node("rect", { x: x - 0.85 * r, y: y - 0.85 * r, width: 1.7 * r, height: 1.7 * r,
    transform: `rotate(${turn} ${x} ${y})`, ...attributes });
}

export default function (component) {
  const { data, parentElement, setStateValue } = component;
  let picture = open.get(parentElement);
  if (!picture) {
    picture = new Picture(parentElement);
    open.set(parentElement, picture);
  }
  picture.receive(data, setStateValue);
  return () => (picture.close(), open.delete(parentElement));
}
