// Charts as SVG: lines over time, and bars.

const NAMESPACE = "http://www.w3.org/2000/svg";
const WIDTH = 1000;
// The limit is drawn if the lines have reached this part of it.
const LIMIT_SHOWN = 4;

/** Return a new SVG element with these attributes. */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Return a bound of an axis that is a round number and at least `value`. */
export function niceBound(value) {
  if (value <= 5) return 5;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((bound) => bound >= value);
}

/** A chart of several series over the last `seconds`. `add` takes values, and `draw` moves them to the left. */
export class TimeChart {
  constructor(parent, { series, seconds, title }) {
    this.series = series;
    this.seconds = seconds;
    this.points = [];
    this.limit = null;
    this.bound = 5;
    this.drawn = svg("g");
    this.axis = svg("g");
    this.root = svg("svg", { role: "img", "aria-label": title, preserveAspectRatio: "none" }, this.axis, this.drawn);
    this.paths = Object.fromEntries(series.map((name) => [name, svg("path", { class: name })]));
    this.line = svg("path", { class: "limit" });
    this.drawn.append(this.line, ...Object.values(this.paths));
    parent.replaceChildren(this.root);
  }

  /** Add the values of all series at `at` (milliseconds of performance.now). */
  add(at, values) {
    this.points.push([at, values]);
    const oldest = performance.now() - (this.seconds + 5) * 1000;
    while (this.points.length && this.points[0][0] < oldest) this.points.shift();
  }

  /** Draw the chart as it is at `now`. */
  draw(now) {
    const width = this.root.clientWidth || WIDTH;
    const height = this.root.clientHeight || 240;
    const left = 56, right = 8, top = 10, bottom = 24;
    this.root.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const reached = Math.max(0, ...this.points.flatMap(([, values]) => this.series.map((name) => values[name] ?? 0)));
    // A limit that is far away would press the lines to the ground.
    const limit = this.limit != null && this.limit <= LIMIT_SHOWN * Math.max(reached, 1) ? this.limit : null;
    const highest = Math.max(reached, limit ?? 0);
    const wanted = niceBound(highest * 1.05);
    this.bound += (wanted - this.bound) * (Math.abs(wanted - this.bound) < wanted * 0.005 ? 1 : 0.2);
    const x = (at) => left + (width - left - right) * (1 - (now - at) / (this.seconds * 1000));
    const y = (value) => height - bottom - (height - top - bottom) * (value / this.bound);
    for (const name of this.series) {
      let path = "", before = -Infinity;
      for (const [at, values] of this.points) {
        const value = values[name];
        if (value == null || x(at) < left) { before = -Infinity; continue; }
        // A gap in what is known is a gap in the line.
        path += `${at - before > 3500 ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
        before = at;
      }
      this.paths[name].setAttribute("d", path);
    }
    this.line.setAttribute("d", limit == null ? "" : `M${left} ${y(limit)}H${width - right}`);
    this.drawAxis(width, height, left, right, bottom, wanted, y);
  }

  drawAxis(width, height, left, right, bottom, wanted, y) {
    const key = `${width} ${height} ${this.bound.toFixed(2)}`;
    if (key === this.axisKey) return;
    this.axisKey = key;
    const lines = [];
    for (const share of [0, 0.5, 1]) {
      const value = wanted * share;
      if (y(value) < 0) continue;
      lines.push(svg("path", { class: "grid", d: `M${left} ${y(value)}H${width - right}` }));
      lines.push(text(left - 8, y(value) + 4, "end", compact(value)));
    }
    for (const ago of [this.seconds, this.seconds / 2, 0]) {
      const at = left + (width - left - right) * (1 - ago / this.seconds);
      const anchor = ago === 0 ? "end" : ago === this.seconds ? "start" : "middle";
      lines.push(text(at, height - 6, anchor, ago ? `${ago} s ago` : "now"));
    }
    this.axis.replaceChildren(...lines);
  }
}

function text(x, y, anchor, content) {
  return svg("text", { x, y, "text-anchor": anchor }, content);
}

/** Return a bar: `share` (0 to 1) of its width is filled. */
export function bar(filled) {
  const taken = svg("rect", { class: filled, x: 0, y: 0, width: "0%", height: "100%", rx: 4 });
  const root = svg("svg", { "aria-hidden": "true" }, svg("rect", { class: "room", width: "100%", height: "100%", rx: 4 }), taken);
  return { root, set: (share) => { taken.style.width = `${Math.round(Math.min(1, share) * 1000) / 10}%`; } };
}

/** Return a number as people read it: 12,345 or 1.2 million. */
export function compact(value) {
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (value >= 100 || Number.isInteger(value)) return Math.round(value).toLocaleString("en");
  return value.toFixed(1);
}

/** Return a rate, always with as many digits, so that it does not jump. */
export function rate(value) {
  return value < 100 ? value.toFixed(1) : compact(value);
}

/** Return seconds in the unit that fits them. */
export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 0.001) return "<1 ms";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 100) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}
