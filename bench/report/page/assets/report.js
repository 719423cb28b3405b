"use strict";
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const byId = (id) => document.getElementById(id);

  // Sorting: every head with data-sort gets a button; empty cells stay last either way.
  const key = (row, column, kind) => {
    const cell = row.cells[column];
    if (kind === "text") return cell.textContent.trim().toLowerCase();
    const value = cell.dataset.value;
    return value === undefined || value === "" ? NaN : Number(value);
  };
  const collator = new Intl.Collator("en", { numeric: true });
  const order = (a, b, direction) => {
    if (typeof a === "string") return direction * collator.compare(a, b);
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return direction * (a - b);
  };
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      if (!head.dataset.sort) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
        const body = table.tBodies[0];
        const rows = Array.from(body.rows, (row) => [key(row, column, head.dataset.sort), row]);
        rows.sort((a, b) => order(a[0], b[0], direction));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  // Filtering: every word must be in the row; "S=10" stands for the column of steps.
  const filters = byId("filters");
  if (filters) {
    const find = byId("find"), steps = byId("by-steps"), status = byId("by-status"), shown = byId("shown");
    const rows = all("#all tbody tr");
    const texts = rows.map((row) => ` ${row.textContent.toLowerCase()} s=${row.dataset.steps} `);
    const apply = () => {
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      rows.forEach((row, place) => {
        const fits = words.every((word) => word.startsWith("s=") ? texts[place].includes(` ${word} `) : texts[place].includes(word))
          && (!steps.value || row.dataset.steps === steps.value)
          && (!status.value || row.dataset.status === status.value);
        row.hidden = !fits;
        count += fits;
      });
      shown.textContent = `${count} of ${rows.length} shown`;
    };
    filters.hidden = false;
    filters.addEventListener("submit", (event) => event.preventDefault());
    filters.addEventListener("input", apply);
    apply();
  }

  // A link to a trial opens it.
  const open = () => {
    const target = location.hash.startsWith("#t-") && byId(location.hash.slice(1));
    if (target) { target.open = true; target.scrollIntoView({ block: "start" }); target.querySelector("summary").focus({ preventScroll: true }); }
  };
  window.addEventListener("hashchange", open);
  open();

  // Pictures: one slider for the index, the seed and index beside the pointer, the same index marked everywhere.
  const tip = byId("tip");
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
  document.addEventListener("pointerover", (event) => {
    const tile = event.target.closest?.(".tile[data-label]");
    all(".tile.same").forEach((other) => other.classList.remove("same"));
    tip.hidden = !tile;
    if (!tile) return;
    const seed = seedOf(tile);
    tip.textContent = `${tile.dataset.label}, S=${tile.dataset.steps}` + (seed === undefined ? "" : `, seed ${seed}`) + `, sample ${tile.dataset.k}`;
    const strips = tile.closest(".strips");
    if (strips) all(`.tile[data-k="${tile.dataset.k}"]`, strips).forEach((other) => other.classList.add("same"));
  });
  document.addEventListener("pointermove", (event) => {
    if (tip.hidden) return;
    const wide = tip.offsetWidth + 18;
    tip.style.left = `${event.clientX + wide > innerWidth ? event.clientX - wide : event.clientX + 14}px`;
    tip.style.top = `${Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 4)}px`;
  });

  // Light or dark: the system's choice until the button is pressed.
  const button = byId("theme"), root = document.documentElement;
  const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Show on ${dark() ? "light" : "dark"} paper`); };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
})();
