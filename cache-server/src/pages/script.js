// Sorting and filtering of tables. Pages are whole without it.
"use strict";

// What a cell is sorted by: the number or text that it names, else what it shows.
function valueOf(row, column) {
  const cell = row.cells[column];
  return cell.dataset.v ?? cell.textContent;
}

function sort(table, head, column) {
  const descending = head.getAttribute("aria-sort") !== "descending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows];
  const numbers = rows.every((row) => !Number.isNaN(Number(valueOf(row, column))));
  const compare = numbers
    ? (a, b) => Number(a) - Number(b)
    : (a, b) => a.localeCompare(b, "en", { numeric: true });
  const sign = descending ? -1 : 1;
  rows.sort((a, b) => sign * compare(valueOf(a, column), valueOf(b, column)));
  table.tBodies[0].append(...rows);
}

function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head, column));
    head.append(button);
  });
}

function filterable(table) {
  const rows = [...table.tBodies[0].rows];
  if (rows.length < 6) return;
  const box = document.createElement("div");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const shown = document.createElement("output");
  box.className = "filter";
  input.type = "search";
  input.id = `filter-${table.id}`;
  label.htmlFor = shown.htmlFor = input.id;
  label.textContent = `Filter ${table.dataset.filter}`;
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      row.hidden = !words.every((word) => texts.get(row).includes(word));
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = words.length ? `${count} of ${rows.length}` : "";
  });
  box.append(label, input, shown);
  table.parentElement.before(box);
}

for (const table of document.querySelectorAll("table[data-sort]")) {
  sortable(table);
  filterable(table);
}
