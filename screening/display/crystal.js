"use strict";
/* Draws a crystal on a canvas and turns it by mouse, touch and keys.

   showCrystal(holder) puts a canvas into an element whose attribute data-crystal holds the JSON that
   assay.screening.display.cells makes; offerCrystal(holder) puts a button there that does so. Atoms
   are discs, sorted by depth; a site that several species share shows one sector for each, and none
   for its vacancies. Lengths are in Å. It knows no libraries and loads nothing. */

const BALL = 0.42, VACANT = "#ffffff", PIECES = 24, STRETCH = 1.1, FARTHER = 1.2, NEAR = 0.02;

const times = (m, v) => m.map(row => row[0] * v[0] + row[1] * v[1] + row[2] * v[2]);
const along = (v, w, t) => v.map((x, k) => x + t * (w[k] - x));
const dot = (v, w) => v[0] * w[0] + v[1] * w[1] + v[2] * w[2];
const unit = v => v.map(x => x / Math.hypot(...v));
const cross = (v, w) => [v[1] * w[2] - v[2] * w[1], v[2] * w[0] - v[0] * w[2], v[0] * w[1] - v[1] * w[0]];
const product = (m, n) => m.map(row => [0, 1, 2].map(k => row[0] * n[0][k] + row[1] * n[1][k] + row[2] * n[2][k]));
function turnOf(x, y) {
  const [a, b, c, d] = [Math.cos(x), Math.sin(x), Math.cos(y), Math.sin(y)];
  return product([[1, 0, 0], [0, a, -b], [0, b, a]], [[c, 0, d], [0, 1, 0], [-d, 0, c]]);
}

/* All atoms of a cell; an atom on a face, an edge or a corner stands on each of them. */
function atomsOf({ lattice, elements, sites }) {
  const atoms = [];
  for (const [a, b, c, shares] of sites) {
    const parts = shares.map(([which, share]) => [elements[which][1], share, elements[which][2]]);
    const held = parts.reduce((sum, part) => sum + part[1], 0);
    const radius = parts.reduce((sum, part) => sum + part[1] * part[2], 0) / held;
    const shifts = [a, b, c].map(x => x < NEAR ? [0, 1] : x > 1 - NEAR ? [-1, 0] : [0]);
    for (const i of shifts[0]) for (const j of shifts[1]) for (const k of shifts[2]) {
      const place = [0, 1, 2].map(n => (a + i) * lattice[0][n] + (b + j) * lattice[1][n] + (c + k) * lattice[2][n]);
      atoms.push({ place, parts, radius, size: BALL * radius });
    }
  }
  return atoms;
}

const distance = (v, w) => Math.hypot(v[0] - w[0], v[1] - w[1], v[2] - w[2]);

/* Half sticks, from the surface of each atom to the middle of each bond: two atoms that touch by their covalent radii, neither
   of which has a much nearer neighbour. */
function sticksOf(atoms) {
  const pairs = [], nearest = new Map(atoms.map(atom => [atom, Infinity]));
  atoms.forEach((one, i) => atoms.slice(i + 1).forEach(other => {
    const length = distance(one.place, other.place);
    if (length < 0.5) return;
    for (const atom of [one, other]) nearest.set(atom, Math.min(nearest.get(atom), length));
    if (length < STRETCH * (one.radius + other.radius)) pairs.push([one, other, length]);
  }));
  const bonds = pairs.filter(([one, other, length]) => length <= FARTHER * Math.min(nearest.get(one), nearest.get(other)));
  return bonds.flatMap(([one, other, length]) => [[one, other], [other, one]].map(([from, to]) => ({
    from: along(from.place, to.place, 0.9 * from.size / length),
    to: along(from.place, to.place, 0.5),
    colour: from.parts[0][0],
  })));
}

/* The twelve edges of the cell, in pieces, so that atoms can hide a part of one; none inside of an atom. */
function edgesOf(lattice, atoms) {
  const corner = (i, j, k) => [0, 1, 2].map(n => i * lattice[0][n] + j * lattice[1][n] + k * lattice[2][n]);
  const edges = [];
  for (const p of [0, 1]) for (const q of [0, 1]) {
    const ends = [[corner(0, p, q), corner(1, p, q)], [corner(p, 0, q), corner(p, 1, q)], [corner(p, q, 0), corner(p, q, 1)]];
    for (const [from, to] of ends) for (let n = 0; n < PIECES; n++) {
      edges.push({ from: along(from, to, n / PIECES), to: along(from, to, (n + 1) / PIECES) });
    }
  }
  return edges.filter(edge => atoms.every(atom => distance(along(edge.from, edge.to, 0.5), atom.place) > atom.size));
}

/* c upwards and a to the right, then a little to the side and from above. */
function firstTurn(lattice) {
  const up = unit(lattice[2]);
  const right = unit(lattice[0].map((x, k) => x - dot(lattice[0], up) * up[k]));
  return product(turnOf(0.25, -0.45), [right, up, cross(right, up)]);
}

class CrystalView {
  constructor(canvas, crystal) {
    this.canvas = canvas;
    this.crystal = crystal;
    this.atoms = atomsOf(crystal);
    this.sticks = sticksOf(this.atoms);
    this.edges = edgesOf(crystal.lattice, this.atoms);
    this.middle = [0, 1, 2].map(k => (crystal.lattice[0][k] + crystal.lattice[1][k] + crystal.lattice[2][k]) / 2);
    const ends = [...this.edges.map(edge => [edge.from, 0]), ...this.atoms.map(atom => [atom.place, atom.size])];
    this.reach = ends.reduce((most, [place, size]) => Math.max(most, distance(place, this.middle) + size), 0);
    this.reset();
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.listen();
  }

  reset() {
    this.turn = firstTurn(this.crystal.lattice);
    this.zoom = 1;
  }

  listen() {
    const canvas = this.canvas;
    let last = null;
    canvas.addEventListener("pointerdown", event => {
      last = [event.clientX, event.clientY];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", event => {
      if (last === null) return;
      this.rotate((event.clientY - last[1]) / 100, (event.clientX - last[0]) / 100);
      last = [event.clientX, event.clientY];
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });
    canvas.addEventListener("keydown", event => {
      const step = { ArrowLeft: [0, -0.15], ArrowRight: [0, 0.15], ArrowUp: [-0.15, 0], ArrowDown: [0.15, 0] }[event.key];
      if (step) this.rotate(...step);
      else if (event.key === "+" || event.key === "-") this.scale(event.key === "+" ? 1.15 : 1 / 1.15);
      else if (event.key === "Home") { this.reset(); this.draw(); }
      else return;
      event.preventDefault();
    });
  }

  rotate(x, y) {
    this.turn = product(turnOf(x, y), this.turn);
    this.draw();
  }

  scale(factor) {
    this.zoom = Math.min(Math.max(this.zoom * factor, 0.4), 6);
    this.draw();
  }

  draw() {
    const canvas = this.canvas, ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const ink = getComputedStyle(canvas).color;
    const pixels = this.zoom * Math.min(width, height) / 2 / (this.reach * 1.12);
    const seen = point => {
      const [x, y, z] = times(this.turn, point.map((v, k) => v - this.middle[k]));
      return [width / 2 + pixels * x, height / 2 - pixels * y, z];
    };
    const things = [];
    const line = (piece, colour, wide, nearer) => {
      const [from, to] = [seen(piece.from), seen(piece.to)];
      things.push([(from[2] + to[2]) / 2 + nearer, () => stroke(pen, from, to, colour, wide)]);
    };
    for (const edge of this.edges) line(edge, ink, 1, 0);
    for (const stick of this.sticks) line(stick, stick.colour, Math.max(2, 0.16 * pixels), 0.05);
    for (const atom of this.atoms) {
      const place = seen(atom.place);
      things.push([place[2], () => ball(pen, place, pixels * atom.size, atom.parts)]);
    }
    things.sort((one, other) => one[0] - other[0]).forEach(([, paint]) => paint());
    this.name(pen, seen, ink);
  }

  name(pen, seen, ink) {
    pen.fillStyle = ink;
    pen.font = "italic 14px serif";
    pen.textAlign = "center";
    const lattice = this.crystal.lattice;
    lattice.forEach((vector, k) => {
      const [x, y] = seen(vector.map(v => v * (1 + 0.16 * this.reach / Math.hypot(...vector))));
      pen.fillText("abc"[k], x, y + 5);
    });
  }
}

function stroke(pen, from, to, colour, wide) {
  pen.strokeStyle = colour;
  pen.lineWidth = wide;
  pen.lineCap = "round";
  pen.beginPath();
  pen.moveTo(from[0], from[1]);
  pen.lineTo(to[0], to[1]);
  pen.stroke();
}

/* A ball with one sector per species, as wide as its share; what is left is vacant. */
function ball(pen, [x, y], radius, parts) {
  const disc = (from, to, whole) => {
    pen.beginPath();
    if (!whole) pen.moveTo(x, y);
    pen.arc(x, y, radius, from, to);
    pen.closePath();
  };
  const full = 2 * Math.PI;
  disc(0, full, true);
  pen.fillStyle = VACANT;
  pen.fill();
  let angle = -Math.PI / 2;
  for (const [colour, share] of parts) {
    disc(angle, angle + full * share, share > 0.9999);
    pen.fillStyle = colour;
    pen.fill();
    angle += full * share;
  }
  const light = pen.createRadialGradient(x - 0.4 * radius, y - 0.4 * radius, 0, x - 0.2 * radius, y - 0.2 * radius, 1.3 * radius);
  light.addColorStop(0, "rgba(255, 255, 255, 0.6)");
  light.addColorStop(0.35, "rgba(255, 255, 255, 0)");
  light.addColorStop(1, "rgba(0, 0, 0, 0.55)");
  disc(0, full, true);
  pen.fillStyle = light;
  pen.fill();
  pen.strokeStyle = "rgba(0, 0, 0, 0.6)";
  pen.lineWidth = 0.8;
  pen.stroke();
}

function legendOf(elements) {
  const list = document.createElement("ul");
  list.className = "legend";
  for (const [symbol, colour] of elements) {
    const item = document.createElement("li"), swatch = document.createElement("i");
    swatch.style.background = colour;
    item.append(swatch, symbol);
    list.append(item);
  }
  return list;
}

function showCrystal(holder) {
  const crystal = JSON.parse(holder.dataset.crystal), canvas = document.createElement("canvas");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `The cell of ${holder.dataset.name}. Arrow keys turn it, + and - zoom, Home resets.`);
  holder.replaceChildren(canvas, legendOf(crystal.elements));
  const view = new CrystalView(canvas, crystal);
  view.draw();
  return view;
}

function offerCrystal(holder) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Show the cell in 3D";
  button.addEventListener("click", () => showCrystal(holder).canvas.focus());
  holder.replaceChildren(button);
}

document.querySelectorAll("[data-crystal]").forEach(offerCrystal);
