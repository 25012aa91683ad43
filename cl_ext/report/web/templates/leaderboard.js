"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = text;
    if (name) element.className = name;
    return element;
  };

  // ---- sorting: by the value behind a cell, the undefined last in both directions, a row's details behind it
  const valueOf = (row, index) => {
    const text = row.cells[index].dataset.value;
    return text === "" || text === undefined ? null : row.cells[index].matches(".number") ? Number(text) : text;
  };
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

  function sortBy(head) {
    const body = head.closest("table").tBodies[0];
    const first = head.dataset.better === "higher" ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const each of head.parentElement.cells) each.setAttribute("aria-sort", each === head ? order : "none");
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.querySelectorAll(":scope > tr.row")].map((row) => [row, valueOf(row, head.cellIndex)]);
    rows.sort(([, a], [, b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
    for (const [row] of rows) {
      const details = detailsOf(row);
      body.append(row);
      if (details) body.append(details);
    }
  }

  // ---- filters: every word must stand in the method's name; boards of other studies and scenarios are put away
  function filter() {
    const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const study = $("study")?.value ?? "";
    const scenario = $("scenario")?.value ?? "";
    let shown = 0;
    let all = 0;
    for (const board of document.querySelectorAll(".board")) {
      board.hidden = Boolean((study && board.dataset.study !== study) || (scenario && board.dataset.scenario !== scenario));
      for (const row of board.querySelectorAll("tr.row")) {
        const name = row.cells[0].dataset.value;
        row.hidden = !words.every((word) => name.includes(word)) || ($("hide-references").checked && row.matches(".reference"));
        const details = detailsOf(row);
        if (details) details.hidden = row.hidden;
        all += 1;
        if (!row.hidden && !board.hidden) shown += 1;
      }
    }
    $("count").textContent = `${shown} of ${all} rows`;
  }

  function chooseColumns() {
    const away = [...$("chooser").querySelectorAll("input:not(:checked)")].map((box) => `.board .c-${box.value}{display:none}`);
    $("hidden-columns").textContent = away.join("");
  }

  // ---- provenance: read from the page's JSON when a row is first opened
  let provenance;
  const detailsOf = (row) => (row.nextElementSibling?.matches(".provenance") ? row.nextElementSibling : null);
  const flat = (value, prefix = "") =>
    Object.entries(value).filter(([, item]) => item !== null).flatMap(([key, item]) =>
      typeof item === "object" && !Array.isArray(item)
        ? flat(item, `${prefix}${key}.`)
        : [`${prefix}${key} = ${Array.isArray(item) ? item.join(" ") : item}`],
    );

  function openRow(row, button) {
    const details = detailsOf(row);
    if (details) {
      details.remove();
      button.setAttribute("aria-expanded", "false");
      return;
    }
    provenance ??= JSON.parse($("provenance").textContent);
    const line = make("tr", null, "provenance");
    const cell = line.appendChild(make("td"));
    cell.colSpan = row.cells.length;
    cell.append(describe(provenance.rows[Number(row.dataset.provenance)]));
    row.after(line);
    button.setAttribute("aria-expanded", "true");
  }

  function describe(entry) {
    const inside = make("div", null, "inside");
    const list = inside.appendChild(make("dl"));
    const say = (name, text) => text && list.append(make("dt", name), make("dd", text));
    for (const [name, text] of entry.about) say(name, text);
    say("Hyper-parameters", flat(entry.hyperparameters).join(", ") || "none");
    say("Where they come from", flat(entry.tuning).join(", ") || "the study file says nothing of tuning");
    for (const each of entry.settings) {
      const { stream, network, budget, ...rest } = provenance.settings[each];
      for (const [name, part] of Object.entries({ Stream: stream, Network: network, Budget: budget, Evaluation: rest })) {
        say(name, flat(part ?? {}).join(", "));
      }
    }
    const used = [...new Set(entry.cells.map((each) => each[provenance.fields.indexOf("environment")]))].filter((n) => n !== null);
    for (const each of used) {
      const { packages, ...machine } = provenance.environments[each];
      say(`Environment ${each + 1}`, [...flat(packages ?? {}), ...flat(machine)].join(", "));
    }
    const table = inside.appendChild(make("table"));
    const heads = table.createTHead().insertRow();
    for (const field of provenance.fields) heads.append(make("th", field.replace("_", " ")));
    const body = table.createTBody();
    for (const values of entry.cells) {
      const row = body.insertRow();
      values.forEach((value, index) => {
        const field = provenance.fields[index];
        const text = value === null ? "\u2014" : field === "environment" ? value + 1 : value;
        row.append(make("td", text, value !== null && (field === "error" || (field === "status" && value !== "done")) ? "failure" : ""));
      });
    }
    return inside;
  }

  async function copy() {
    const range = document.createRange();
    range.selectNodeContents($("bibtex"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    try {
      await navigator.clipboard.writeText($("bibtex").textContent);
    } catch {
      document.execCommand("copy"); // where the clipboard's own interface is not allowed: the selection is
    }
    $("copy").textContent = "Copied";
  }

  for (const head of document.querySelectorAll("table.sortable > thead th")) {
    head.firstElementChild.disabled = false;
    head.firstElementChild.addEventListener("click", () => sortBy(head));
  }
  for (const row of document.querySelectorAll("tr[data-provenance]")) {
    const button = make("button", null, "open");
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-label", `where ${row.querySelector(".name").textContent} comes from`);
    button.addEventListener("click", () => openRow(row, button));
    row.cells[0].prepend(button);
  }
  document.body.classList.add("scripted");
  $("toolbar").hidden = false;
  $("toolbar").addEventListener("submit", (event) => event.preventDefault());
  $("toolbar").addEventListener("input", (event) => (event.target.closest("#chooser") ? chooseColumns() : filter()));
  if ($("copy")) {
    $("copy").hidden = false;
    $("copy").addEventListener("click", copy);
  }
  filter();
})();
