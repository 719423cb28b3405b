// A link to a trial opens it.
const open = () => {
  const target = location.hash.startsWith("#t-") && byId(location.hash.slice(1));
  if (target) { target.open = true; target.scrollIntoView({ block: "start" }); target.querySelector("summary").focus({ preventScroll: true }); }
};
window.addEventListener("hashchange", open);
open();

// Pictures: one slider for the index, the seed and index beside the pointer, the same index marked everywhere.
for (const pictures of all(".pictures")) {
  const slider = pictures.querySelector("input[type=range]"), told = pictures.querySelector("output");
  const matrix = pictures.querySelector(".matrix");
  slider.hidden = false;
  const show = () => {
    told.textContent = slider.value;
    matrix.style.setProperty("--k", slider.value);
    all(".tile", matrix).forEach((tile) => {
      tile.dataset.k = slider.value;
      tile.setAttribute("aria-label", `${tile.dataset.label}, S=${tile.dataset.steps}, sample ${slider.value}`);
    });
  };
  slider.addEventListener("input", show);
  show();
}
const seedOf = (tile) => tile.closest(".pictures")?.dataset.seed;
tellers.push((target) => {
  const tile = target.closest?.(".tile[data-label]");
  all(".tile.same").forEach((other) => other.classList.remove("same"));
  if (!tile) return "";
  const seed = seedOf(tile);
  const strips = tile.closest(".strips");
  if (strips) all(`.tile[data-k="${tile.dataset.k}"]`, strips).forEach((other) => other.classList.add("same"));
  return `${tile.dataset.label}, S=${tile.dataset.steps}` + (seed === undefined ? "" : `, seed ${seed}`) + `, sample ${tile.dataset.k}`;
});

// A sampler that is pointed at, in the table or in a plot, stands out in both.
const rowOf = (target) => target.closest?.("tr[data-row]")?.dataset.row ?? /-row-(\d+)$/.exec(target.closest?.("g[id*='-row-']")?.id)?.[1];
document.addEventListener("pointerover", (event) => {
  const row = rowOf(event.target), section = event.target.closest?.("section");
  all(".lit").forEach((other) => other.classList.remove("lit"));
  if (row !== undefined && section) all(`tr[data-row="${row}"], g[id$="-row-${row}"]`, section).forEach((one) => one.classList.add("lit"));
});
