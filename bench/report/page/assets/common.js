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

// Filtering: a form names its rows in data-rows. Each of its fields asks something of a row by an attribute: data-find,
// that every word is in the row ("S=10" stands for the number of steps); data-is, that what the row, or what it lies in,
// has under that name is equal; data-most, that it is at most as much; data-has, that it is one of several.
const known = (row, name) => row.closest(`[data-${name}]`)?.dataset[name] ?? "";
const asked = {
  find: (row, value) => {
    const text = ` ${(row.dataset.label ?? row.textContent).toLowerCase()} s=${row.dataset.steps} `;
    const words = value.toLowerCase().split(/\s+/).filter(Boolean);
    return words.every((word) => text.includes(word.startsWith("s=") ? ` ${word} ` : word));
  },
  is: (row, value, name) => known(row, name) === value,
  most: (row, value, name) => Number(known(row, name)) <= Number(value),
  has: (row, value, name) => known(row, name).split(" ").includes(value),
};
for (const form of all("form.filters")) {
  const rows = all(form.dataset.rows), shown = form.querySelector("output");
  const apply = () => {
    const questions = all("input, select", form).flatMap((field) => {
      const value = field.type === "checkbox" && !field.checked ? "" : field.value;
      return value === "" ? [] : Object.keys(asked).filter((kind) => kind in field.dataset)
        .map((kind) => (row) => asked[kind](row, value, field.dataset[kind]));
    });
    let count = 0;
    for (const row of rows) {
      row.hidden = !questions.every((fits) => fits(row));
      count += !row.hidden;
    }
    shown.textContent = `${count} of ${rows.length} shown`;
    form.dispatchEvent(new Event("filtered", { bubbles: true }));
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", apply);
  apply();
}

// The tip beside the pointer: whoever knows what an element is adds a function that says so.
const tip = byId("tip"), tellers = [(target) => target.closest?.("[data-told]")?.dataset.told];
for (const title of all("svg.plot use > title")) { // the browser's own comes late, and goes soon
  title.parentNode.dataset.told = title.textContent;
  title.remove();
}
document.addEventListener("pointerover", (event) => {
  const told = tellers.map((tell) => tell(event.target)).find(Boolean);
  tip.hidden = !told;
  tip.textContent = told ?? "";
});
document.addEventListener("pointermove", (event) => {
  if (tip.hidden) return;
  const wide = tip.offsetWidth + 18;
  tip.style.left = `${Math.max(4, event.clientX + wide > innerWidth ? event.clientX - wide : event.clientX + 14)}px`;
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
