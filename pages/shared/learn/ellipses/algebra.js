// The algebra of mats_core.toy for two parameters, so that a drag is followed without waiting for
// Python.  A test compares the two; whatever is shown at rest comes from the library.

function curvature(task) {
  const turn = (task.angle * Math.PI) / 180;
  const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
  const [along, across] = [1 / task.a ** 2, 1 / task.b ** 2];
  return {
    xx: along * cos * cos + across * sin * sin,
    xy: (along - across) * cos * sin,
    yy: along * sin * sin + across * cos * cos,
  };
}

const times = (c, v) => [c.xx * v[0] + c.xy * v[1], c.xy * v[0] + c.yy * v[1]];
const plus = (v, w, factor = 1) => [v[0] + factor * w[0], v[1] + factor * w[1]];
const dot = (v, w) => v[0] * w[0] + v[1] * w[1];

function lossAt(task, point) {
  const step = plus(point, [task.x, task.y], -1);
  return 0.5 * dot(step, times(curvature(task), step));
}

function solve(c, right) {
  const det = c.xx * c.yy - c.xy * c.xy;
  return [(c.yy * right[0] - c.xy * right[1]) / det, (c.xx * right[1] - c.xy * right[0]) / det];
}

function summed(curvatures) {
  const total = { xx: 0, xy: 0, yy: 0 };
  for (const c of curvatures) for (const key in total) total[key] += c[key];
  return total;
}

function matched(tasks, curvatures) {
  let right = [0, 0];
  tasks.forEach((task, i) => (right = plus(right, times(curvatures[i], [task.x, task.y]))));
  return solve(summed(curvatures), right);
}

function merged(name, tasks, point) {
  return { name, point, losses: tasks.map((task) => lossAt(task, point)) };
}

function solutions(tasks) {
  const full = tasks.map(curvature);
  return [
    merged("average", tasks, matched(tasks, full.map(() => ({ xx: 1, xy: 0, yy: 1 })))),
    merged("Fisher", tasks, matched(tasks, full.map((c) => ({ ...c, xy: 0 })))),
    merged("full", tasks, matched(tasks, full)),
  ];
}

function walk(tasks, start, { iterations, preconditioner, damping, anchor }) {
  const share = 1 / tasks.length;
  const damped = tasks.map(curvature).map((c) => {
    const shift = (damping * (c.xx + c.yy)) / 2;
    return { xx: share * (c.xx + shift), xy: share * c.xy, yy: share * (c.yy + shift) };
  });
  const k = summed(damped);
  const pull = (anchor * (k.xx + k.yy)) / 2;
  let right = [pull * start[0], pull * start[1]];
  tasks.forEach((task, i) => (right = plus(right, times(damped[i], [task.x, task.y]))));
  const system = { xx: k.xx + pull, xy: k.xy, yy: k.yy + pull };
  const divide = (r) =>
    preconditioner === "jacobi" ? [r[0] / system.xx, r[1] / system.yy] : r;
  let x = start;
  let r = plus(right, times(system, x), -1);
  let z = divide(r);
  let p = z;
  let rz = dot(r, z);
  const points = [x];
  const enough = 1e-15 * dot(right, right);
  for (let i = 0; i < iterations && dot(r, r) > enough * 1e-15; i++) {
    const q = times(system, p);
    const alpha = rz / dot(p, q);
    x = plus(x, p, alpha);
    r = plus(r, q, -alpha);
    z = divide(r);
    const next = dot(r, z);
    p = plus(z, p, next / rz);
    rz = next;
    points.push(x);
  }
  return { points, target: solve(system, right) };
}

// Polar factor of two unit (or zero) columns: E (EᵀE)^(-1/2), over its non-zero directions.
function freedDirections(first, second) {
  const [one, two] = [dot(first, first) > 0, dot(second, second) > 0];
  if (!one || !two) {
    return { spread: [one || two ? 1 : 0, 0], columns: [first, second] };
  }
  const cosine = dot(first, second);
  const cross = first[0] * second[1] - first[1] * second[0];
  const large = Math.sqrt(1 + Math.abs(cosine));
  const small = Math.abs(cross) / large; // 1 − |cos| would lose its digits
  const inverse = small > 1e-10 * large ? 1 / small : 0;
  const [same, opposite] = cosine >= 0 ? [1 / large, inverse] : [inverse, 1 / large];
  const [keep, mix] = [(same + opposite) / 2, (same - opposite) / 2];
  const combine = (v, w) => plus([keep * v[0], keep * v[1]], w, mix);
  return { spread: [large, small], columns: [combine(first, second), combine(second, first)] };
}

// How far along each task's own move a point lies; 1: as far as the expert.
function kept(updates, way) {
  return updates.map((u) => (dot(u, u) > 0 ? dot(way, u) / dot(u, u) : 0));
}

function essential(tasks, origin, power) {
  const updates = tasks.map((task) => plus([task.x, task.y], origin, -1));
  const lengths = updates.map((u) => Math.hypot(...u));
  const mean = lengths.reduce((s, l) => s + l, 0) / lengths.length;
  const directions = updates.map((u, i) =>
    lengths[i] > 0 ? [u[0] / lengths[i], u[1] / lengths[i]] : [0, 0]
  );
  const { spread, columns } = freedDirections(directions[0], directions[1]);
  const size = (spread[0] + spread[1]) / 2;
  const weights = lengths.map((l) => (mean > 0 && power ? (l / mean) ** power : 1));
  const moves = columns.map((column, i) => {
    const length = size * lengths[i] * weights[i];
    return [column[0] * length, column[1] * length];
  });
  const [total, sum] = [plus(moves[0], moves[1]), plus(updates[0], updates[1])];
  return {
    updates, spread, weights, moves,
    point: plus(origin, total), kept: kept(updates, total),
    plain: plus(origin, sum), plain_kept: kept(updates, sum),
  };
}

function everything(state, settings) {
  const { tasks, start, origin } = state;
  return {
    solutions: solutions(tasks),
    curvature: summed(tasks.map(curvature)),
    walk: walk(tasks, start, settings),
    essential: essential(tasks, origin, settings.power),
  };
}
