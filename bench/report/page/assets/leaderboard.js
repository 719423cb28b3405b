// One board at a time: the scores of two cannot be compared. Whoever chooses "all" sees all.
const model = byId("by-model"), score = byId("by-score"), filters = byId("filters"), boards = all(".board");
const refilter = () => filters.dispatchEvent(new Event("input"));
const choose = (board) => { model.value = board.dataset.model; score.value = board.dataset.score; refilter(); };
model.addEventListener("change", () => {
  const there = boards.filter((board) => !model.value || board.dataset.model === model.value);
  if (score.value && !there.some((board) => board.dataset.score === score.value)) score.value = there[0].dataset.score;
  refilter();
});
const follow = () => {
  const board = byId(location.hash.slice(1));
  if (board?.matches(".board")) { choose(board); board.scrollIntoView({ block: "start" }); }
};
window.addEventListener("hashchange", follow);

// The plot of a board: score against cost of the trials that the filters leave, with their Pareto front.
const SVG = "http://www.w3.org/2000/svg";
const make = (parent, tag, attributes, text) => {
  const element = document.createElementNS(SVG, tag);
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
};
const lossOf = (board) => (value) => board.dataset.right !== "" ? Math.abs(value - board.dataset.right) : board.dataset.higher ? -value : value;
const frontOf = (points, loss) => {
  const front = [];
  for (const point of [...points].sort((a, b) => a.x - b.x || loss(a.y) - loss(b.y))) {
    if (!front.length || loss(point.y) < loss(front.at(-1).y)) front.push(point);
  }
  return front;
};
const grouped = (points, name) => Map.groupBy ? [...Map.groupBy(points, name).values()]
  : Object.values(points.reduce((found, one) => { (found[` ${name(one)}`] ??= []).push(one); return found; }, {}));
const plain = (value) => Number(value.toPrecision(6)).toString();

// An axis from one place to another, with as many marks as there is room for: on a logarithmic one powers of ten and
// numbers between them, on a plain one multiples of 1, 2 or 5 times a power of ten.
const axisOf = (values, from, to, logarithmic, room) => {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (logarithmic) { low /= 1.12; high *= 1.12; } else { const margin = (high - low || 1) * .06; low -= margin; high += margin; }
  const scale = logarithmic ? Math.log : (value) => value, [a, b] = [scale(low), scale(high)];
  const place = (value) => from + (scale(logarithmic ? Math.max(value, low / 2) : value) - a) / (b - a) * (to - from);
  const most = Math.abs(to - from) / room, within = (marks) => marks.filter((mark) => mark >= low && mark <= high);
  if (!logarithmic) {
    const rough = (high - low) / Math.min(most, 6), power = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 5, 10].find((one) => one * power >= rough) * power;
    const first = Math.ceil(low / step);
    return { place, marks: within(Array.from({ length: Math.floor(high / step) - first + 1 }, (_, k) => (first + k) * step)) };
  }
  const powers = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) powers.push(power);
  const tried = [[1, 2, 3, 5, 7], [1, 2, 5], [1]].map((some) => within(powers.flatMap((power) => some.map((one) => one * 10 ** power))));
  return { place, marks: tried.find((marks) => marks.length <= most) ?? tried.at(-1) };
};

const draw = (board) => {
  const drawing = board.querySelector(".drawing"), legend = board.querySelector(".key"), against = board.querySelector(".against");
  const cost = against.value, loss = lossOf(board);
  const points = all("tbody.lines tr", board).filter((row) => !row.hidden && Number(row.dataset[cost]) > 0).map((row) => ({
    row, x: Number(row.dataset[cost]), y: Number(row.dataset.value), se: Number(row.dataset.se), steps: Number(row.dataset.steps),
    label: row.dataset.label, machine: row.dataset.machine, series: `${row.dataset.label}\n${row.dataset.machine}`,
  }));
  board.querySelector(".chart").hidden = !points.length;
  drawing.replaceChildren();
  legend.replaceChildren();
  if (!points.length) return;
  const width = drawing.clientWidth || 600, height = Math.max(280, Math.min(460, width * .56));
  const [left, right, top, bottom] = [58, width - 12, 10, height - 44];
  const positive = points.every((point) => point.y > 0);
  const x = axisOf(points.map((point) => point.x), left, right, true, 48), y = axisOf(points.map((point) => point.y), bottom, top, positive, 26);
  const svg = make(drawing, "svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${board.dataset.score} of ${board.dataset.model} against ${against.selectedOptions[0].text}` });
  for (const mark of x.marks) {
    make(svg, "line", { x1: x.place(mark), x2: x.place(mark), y1: top, y2: bottom, class: "grid" });
    make(svg, "text", { x: x.place(mark), y: bottom + 16, "text-anchor": "middle" }, plain(mark));
  }
  for (const mark of y.marks) {
    make(svg, "line", { x1: left, x2: right, y1: y.place(mark), y2: y.place(mark), class: "grid" });
    make(svg, "text", { x: left - 6, y: y.place(mark) + 4, "text-anchor": "end" }, plain(mark));
  }
  make(svg, "text", { x: (left + right) / 2, y: height - 8, "text-anchor": "middle", class: "title" }, `${against.selectedOptions[0].text} an image`);
  make(svg, "text", { x: 14, y: (top + bottom) / 2, "text-anchor": "middle", class: "title", transform: `rotate(-90 14 ${(top + bottom) / 2})` }, board.dataset.score);
  // Calls do not depend on the machine, times do.
  const fronts = grouped(points, (point) => cost === "milliseconds" || cost === "latency" ? point.machine : "").map((mine) => frontOf(mine, loss));
  const best = new Set(fronts.flat());
  const names = [...new Set([...best].map((point) => point.label))], colours = new Map(names.map((name, place) => [name, `var(--series-${place % 8})`]));
  const line = (some, attributes) => make(svg, "polyline", { points: some.map((point) => `${x.place(point.x)},${y.place(point.y)}`).join(" "), ...attributes });
  const series = grouped(points, (point) => point.series).sort((a, b) => colours.has(a[0].label) - colours.has(b[0].label));
  for (const mine of series) {
    mine.sort((a, b) => a.steps - b.steps);
    line(mine, { class: colours.has(mine[0].label) ? "series" : "series other", style: `stroke:${colours.get(mine[0].label) ?? "var(--muted)"}`, "data-series": mine[0].label });
  }
  for (const front of fronts) line(front, { class: "front" });
  for (const point of series.flat()) {
    const colour = colours.get(point.label), style = `stroke:${colour ?? "var(--muted)"};fill:${colour ?? "var(--muted)"}`;
    const spot = make(svg, "g", { class: colour ? "point" : "point other", style, "data-series": point.label, "data-told": `${point.label}, S=${point.steps}: ${point.row.cells[1].textContent.trim()} at ${plain(Number(point.x.toPrecision(3)))} ${against.selectedOptions[0].text}` });
    if (point.se > 0) make(spot, "line", { x1: x.place(point.x), x2: x.place(point.x), y1: y.place(point.y - point.se), y2: y.place(point.y + point.se) });
    make(spot, "circle", { cx: x.place(point.x), cy: y.place(point.y), r: best.has(point) ? 5 : 3, "data-front": best.has(point) ? "yes" : "" });
    spot.addEventListener("click", () => { all("tr.lit", board).forEach((row) => row.classList.remove("lit")); point.row.classList.add("lit"); point.row.scrollIntoView({ block: "center" }); });
  }
  for (const name of names) {
    const item = document.createElement("li"), swatch = document.createElement("span");
    swatch.style.background = colours.get(name);
    item.dataset.series = name;
    item.append(swatch, name);
    legend.append(item);
  }
};
const show = () => {
  for (const board of boards) {
    board.hidden = !board.querySelector("tbody.lines tr:not([hidden])");
    if (!board.hidden) draw(board);
  }
};
for (const against of all(".against")) against.addEventListener("change", () => draw(against.closest(".board")));
filters.addEventListener("filtered", show);
let wide = innerWidth;
window.addEventListener("resize", () => { if (innerWidth !== wide) { wide = innerWidth; show(); } });

// A sampler that is pointed at stands out in its plot.
document.addEventListener("pointerover", (event) => {
  const board = event.target.closest?.(".board"), name = event.target.closest?.("[data-series], tr[data-label]")?.dataset;
  all(".chart .lit").forEach((other) => other.classList.remove("lit"));
  if (board && name) all(".chart [data-series]", board).filter((one) => one.dataset.series === (name.series ?? name.label)).forEach((one) => one.classList.add("lit"));
});

for (const board of boards) board.querySelector(".chart").hidden = false;
if (boards.length) choose(boards[0]);
follow();
