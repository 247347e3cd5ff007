// A curve over the depth of a model: points that are dragged up and down with mouse or finger, or
// moved with the arrow keys.  It sends its values when a drag ends; Python holds them and answers
// with the same number, so that an answer to an earlier move does not undo a later one.

const WIDE = 320;
const HIGH = 132;
const SIDE = 18;
const EDGE = 16;
const KEYS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5 };
const open = new WeakMap();

function node(tag, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return parent.appendChild(made);
}

class Curve {
  constructor(parent) {
    this.svg = parent.querySelector("svg");
    this.svg.setAttribute("viewBox", `0 0 ${WIDE} ${HIGH}`);
    this.points = [];
    this.serial = 0;
  }

  receive(data, send) {
    this.send = send;
    const same = data.name === this.data?.name && data.labels.length === this.points.length;
    if (same && data.serial < this.serial) return;
    Object.assign(this, { data, serial: data.serial, values: [...data.values] });
    if (!same) this.build();
    this.draw();
  }

  x(place) {
    const last = this.values.length - 1;
    return last ? SIDE + (place * (WIDE - 2 * SIDE)) / last : WIDE / 2;
  }

  y(value) {
    return EDGE + (1 - value / this.data.highest) * (HIGH - 2 * EDGE);
  }

  build() {
    this.svg.replaceChildren();
    node("line", { class: "one", x1: 0, x2: WIDE, y1: this.y(1), y2: this.y(1) }, this.svg);
    this.line = node("polyline", { class: "line" }, this.svg);
    this.points = this.data.labels.map((label, place) => {
      const point = node("g", {
        class: "point", role: "slider", tabindex: 0, "aria-label": label, "aria-valuemin": 0,
        "aria-valuemax": this.data.highest, "aria-orientation": "vertical",
      }, this.svg);
      for (const [name, r] of [["hit", 17], ["ring", 10], ["dot", 6]]) {
        node("circle", { class: name, r }, point);
      }
      node("text", { y: -12 }, point);
      point.addEventListener("pointerdown", (event) => point.setPointerCapture(event.pointerId));
      point.addEventListener("pointermove", (event) => this.drag(event, place));
      point.addEventListener("pointerup", () => this.tell());
      point.addEventListener("keydown", (event) => this.key(event, place));
      return point;
    });
  }

  draw() {
    const at = this.values.map((value, place) => [this.x(place), this.y(value)]);
    this.line.setAttribute("points", at.map((pair) => pair.join()).join(" "));
    this.points.forEach((point, place) => {
      const said = String(Number(this.values[place].toFixed(2)));
      point.setAttribute("transform", `translate(${at[place].join()})`);
      point.setAttribute("aria-label", this.data.labels[place]);
      point.setAttribute("aria-valuenow", said);
      point.setAttribute("aria-valuetext", `× ${said}`);
      point.querySelector("text").textContent = said;
      point.querySelector("text").setAttribute("y", at[place][1] < EDGE + 10 ? 22 : -12);
    });
  }

  put(place, value) {
    const { step, highest } = this.data;
    const rounded = Math.min(highest, Math.max(0, Math.round(value / step) * step));
    this.moved = this.moved || rounded !== this.values[place];
    this.values[place] = rounded;
    this.draw();
  }

  drag(event, place) {
    if (!this.points[place].hasPointerCapture(event.pointerId)) return;
    const box = this.svg.getBoundingClientRect();
    const height = ((event.clientY - box.top) / box.height) * HIGH;
    this.put(place, (1 - (height - EDGE) / (HIGH - 2 * EDGE)) * this.data.highest);
  }

  key(event, place) {
    const ends = { Home: 0, End: this.data.highest };
    if (!(event.key in KEYS) && !(event.key in ends)) return;
    event.preventDefault();
    const next = this.values[place] + (KEYS[event.key] ?? 0) * this.data.step;
    this.put(place, ends[event.key] ?? next);
    this.tell();
  }

  tell() {
    if (!this.moved) return;
    this.moved = false;
    this.serial += 1;
    this.send("state", { values: this.values, serial: this.serial });
  }
}

export default function ({ data, parentElement, setStateValue }) {
  if (!open.has(parentElement)) open.set(parentElement, new Curve(parentElement));
  open.get(parentElement).receive(data, setStateValue);
  return () => open.delete(parentElement);
}
