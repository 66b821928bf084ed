"use strict";
/* Makes the table with the class "live" sort, filter and download.

   A heading has data-columns: the names of the columns that its cells hold, for the download; one without is left out. A cell
   with numbers has data-values, one number per column, and other cells are text. A heading with data-range gets a smallest and
   a largest value to filter by. A row has data-elements, as in "Nb-Sn". */

function liveTable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], rows = [...body.rows];
  const numbersOf = cell => cell.dataset.values === undefined ? null
    : cell.dataset.values.split(" ").map(text => text === "nan" ? NaN : Number(text));
  const textOf = cell => cell.textContent.replace(/\s+/g, " ").trim();
  const columnsOf = head => (head.dataset.columns || "").split(" ").filter(Boolean);

  const collator = new Intl.Collator("en", { numeric: true });
  const compare = (one, other, falling) => {
    const [a, b] = [numbersOf(one), numbersOf(other)];
    if (a === null || b === null) return (falling ? -1 : 1) * collator.compare(textOf(one), textOf(other));
    if (Number.isNaN(a[0]) || Number.isNaN(b[0])) return Number.isNaN(a[0]) - Number.isNaN(b[0]);
    return (falling ? -1 : 1) * (a[0] - b[0]);
  };
  heads.forEach((head, place) => {
    if (!columnsOf(head).length) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      rows.sort((one, other) => compare(one.cells[place], other.cells[place], falling));
      body.append(...rows);
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    });
  });

  const form = document.createElement("form"), shown = document.createElement("output"), tests = [];
  form.className = "filters";
  form.setAttribute("aria-label", "Filter the table");
  const field = (place, label, kind, test) => {
    const box = document.createElement("label"), input = document.createElement("input");
    input.type = kind;
    if (kind === "number") input.step = "any";
    box.append(label, input);
    place.append(box);
    tests.push(row => input.value.trim() === "" || test(row, input.value.trim()));
  };
  const symbols = text => text.split(/[^A-Za-z]+/).filter(Boolean);
  const holds = (row, symbol) => row.dataset.elements.toLowerCase().split("-").includes(symbol.toLowerCase());
  field(form, "Text in the row", "search", (row, text) => textOf(row).toLowerCase().includes(text.toLowerCase()));
  field(form, "With all of these elements", "search", (row, text) => symbols(text).every(symbol => holds(row, symbol)));
  field(form, "Without these elements", "search", (row, text) => !symbols(text).some(symbol => holds(row, symbol)));
  const ranges = document.createElement("details"), title = document.createElement("summary");
  title.textContent = "Smallest and largest values";
  ranges.append(title);
  heads.forEach((head, place) => {
    if (head.dataset.range === undefined) return;
    const name = textOf(head), value = row => numbersOf(row.cells[place])[0];
    field(ranges, `${name} at least`, "number", (row, text) => value(row) >= Number(text));
    field(ranges, `${name} at most`, "number", (row, text) => value(row) <= Number(text));
  });
  form.append(ranges);

  const filter = () => {
    for (const row of rows) row.hidden = !tests.every(test => test(row));
    shown.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} rows`;
  };
  const quoted = text => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const harmless = text => /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;  // a spreadsheet would compute it
  const csv = () => {
    const kept = heads.map((head, place) => [place, columnsOf(head)]).filter(([, names]) => names.length);
    const lines = rows.filter(row => !row.hidden).map(row => kept.flatMap(([place]) => {
      const cell = row.cells[place];
      return cell.dataset.values === undefined ? [quoted(harmless(textOf(cell)))] : cell.dataset.values.split(" ");
    }));
    return [kept.flatMap(([, names]) => names), ...lines].map(line => line.join(",") + "\n").join("");
  };
  const download = document.createElement("button");
  download.type = "button";
  download.textContent = "Download these rows as CSV";
  download.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = "candidates.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  shown.setAttribute("role", "status");
  form.append(shown, download);
  form.addEventListener("input", filter);
  form.addEventListener("submit", event => event.preventDefault());
  table.parentElement.before(form);
  filter();
}

/* A link to a part of the page that is folded unfolds it. */
document.addEventListener("click", event => {
  const link = event.target.closest("a[href^='#']"), target = link && document.getElementById(link.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
});

document.querySelectorAll("table.live").forEach(liveTable);
