"use strict";
// Everything here also works without it, by asking the server; this only makes it instant.
(() => {
  const main = document.querySelector("main");
  const two = (number) => String(number).padStart(2, "0");
  // The server knows no time zone but UTC.
  for (const time of document.querySelectorAll("td time")) {
    const at = new Date(time.dateTime);
    if (isNaN(at)) continue;
    time.title = at.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
    time.children[0].textContent = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
    time.children[1].textContent = `${two(at.getHours())}:${two(at.getMinutes())}`;
  }

  const field = document.getElementById("q");
  document.addEventListener("keydown", (event) => {
    const writes = event.target.closest("input, textarea");
    if (event.key === "/" && !writes && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      field.focus();
      field.select();
    }
  });

  // Of a folder in several pages only the server knows the rest.
  const body = document.querySelector("tbody");
  if (!body || !("whole" in main.dataset)) return;
  const rows = [...body.rows].map((row) => {
    const time = row.querySelector("time");
    return {
      row,
      up: "up" in row.dataset,
      folder: "folder" in row.dataset,
      name: row.querySelector("bdi").textContent,
      size: Number(row.dataset.size ?? -1),
      date: time ? Date.parse(time.dateTime) : -Infinity,
    };
  });
  const names = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const by = {
    name: (one, two) => names.compare(one.name, two.name),
    size: (one, two) => one.size - two.size,
    date: (one, two) => one.date - two.date,
  };
  const heads = [...document.querySelectorAll("th[data-sort]")];
  for (const head of heads) {
    head.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      const sort = head.dataset.sort;
      const order = head.querySelector("[name=order]");
      const sign = order.value === "desc" ? -1 : 1;
      rows.sort((one, two) =>
        two.up - one.up || two.folder - one.folder
          || sign * by[sort](one, two) || by.name(one, two));
      body.append(...rows.map((each) => each.row));
      for (const other of heads) {
        other.removeAttribute("aria-sort");
        other.querySelector("[name=order]").value = other.dataset.sort === "name" ? "asc" : "desc";
      }
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      order.value = sign > 0 ? "desc" : "asc";
      history.replaceState(null, "", `?sort=${sort}&order=${sign > 0 ? "asc" : "desc"}`);
    });
  }

  const said = document.getElementById("said");
  const filter = () => {
    const sought = field.value.toLowerCase();
    let shown = 0;
    for (const { row, name, up } of rows) {
      row.hidden = !up && !name.toLowerCase().includes(sought);
      shown += !up && !row.hidden;
    }
    said.textContent = sought ? `${shown} of ${rows.filter(({ up }) => !up).length} shown` : "";
  };
  field.addEventListener("input", filter);
  field.form.addEventListener("submit", (event) => {
    event.preventDefault();
    const first = rows.map(({ row }) => row).find((row) => !row.hidden && !("up" in row.dataset));
    document.querySelector("tbody tr:not([hidden]):not([data-up]) a")?.focus();
    if (!first) field.select();
  });
  if (field.value) filter();
})();
