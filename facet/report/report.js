// The report's switches. Everything drawn comes from the JSON in the page; nothing is fetched.
const content = JSON.parse(document.getElementById("content").textContent);
const options = { mode: "vega-lite", renderer: "svg", actions: false };
const views = new Map(); // element of a plot -> Vega's view

function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text ?? "";
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

async function draw(element, spec) {
  const size = element.getBoundingClientRect().height;
  element.style.minHeight = `${size}px`; // no jump of what is below while it is drawn anew
  views.get(element)?.finalize();
  const { view } = await vegaEmbed(element, spec, options);
  views.set(element, view);
  element.style.minHeight = "";
}

function words(value) {
  if (typeof value !== "number" || Number.isInteger(value)) return value ?? "–";
  return String(Number(value.toPrecision(4)));
}

function table(details, chart, rows) {
  details.querySelector(".scroll")?.remove();
  const box = make("div", "", { class: "scroll", tabindex: 0, role: "region", "aria-label": chart.spec.description });
  const whole = box.appendChild(make("table"));
  whole.append(make("caption", chart.spec.description));
  const head = whole.appendChild(make("thead")).appendChild(make("tr"));
  for (const [, title] of chart.columns) head.append(make("th", title, { scope: "col" }));
  const body = whole.appendChild(make("tbody"));
  for (const row of rows) {
    const line = body.appendChild(make("tr"));
    chart.columns.forEach(([field], i) =>
      line.append(make(i ? "td" : "th", words(row[field]), i ? {} : { scope: "row" })));
  }
  details.append(box);
}

async function setSignal(section, name, value) {
  for (const element of section.querySelectorAll(".plot[data-plot]")) {
    const view = views.get(element);
    const spec = content.charts[element.dataset.plot].spec;
    if (view && spec.params?.some((p) => p.name === name)) await view.signal(name, value).runAsync();
  }
}

// --- one data set: what is shown, and at what one looks ---------------------------------------

function fill(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) => make("option", text, { value })));
  if (values.some(([value]) => value === chosen)) select.value = chosen;
}

function confusionRows(classes, matrices) {
  const rows = [];
  classes.forEach((truth, i) => {
    const counts = classes.map((_, j) => matrices.reduce((sum, m) => sum + m[i][j], 0));
    const total = counts.reduce((a, b) => a + b, 0);
    counts.forEach((n, j) =>
      rows.push({ true: truth, predicted: classes[j], n, share: total ? n / total : 0 }));
  });
  return rows;
}

function confusion(section, found, title, matrices) {
  const chart = structuredClone(content.confusion);
  const { classes } = found;
  const rows = confusionRows(classes, matrices);
  const step = classes.length > 12 ? 17 : 34;
  chart.title = chart.spec.description = title;
  chart.spec.data.values = rows;
  chart.spec.height = step * classes.length;
  chart.spec.encoding.x.sort = chart.spec.encoding.y.sort = classes;
  chart.spec.layer[1].mark.fontSize = classes.length > 12 ? 9 : 13;
  table(section.querySelector("details.confusion"), chart, rows);
  return draw(section.querySelector(".plot.confusion"), chart.spec);
}

function picture(tile, item) {
  if (typeof tile === "string") return make("img", "", { src: tile, alt: `test item ${item}`, title: item });
  // A table's row: its standardised readings as bars, -4 to 4.
  const kind = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(kind, "svg");
  const label = `test item ${item}, readings ${tile.join(", ")}`;
  for (const [k, v] of [["viewBox", `-4 0 8 ${tile.length}`], ["role", "img"], ["aria-label", label], ["preserveAspectRatio", "none"]]) {
    svg.setAttribute(k, v);
  }
  tile.forEach((value, i) => {
    const bar = svg.appendChild(document.createElementNS(kind, "rect"));
    const size = Math.min(4, Math.abs(value));
    for (const [k, v] of [["x", value < 0 ? -size : 0], ["y", i + 0.1], ["width", size], ["height", 0.8]]) bar.setAttribute(k, v);
  });
  return svg;
}

function gallery(section, data, experiment, head) {
  const box = section.querySelector(".gallery");
  const found = data.gallery?.answers[experiment];
  box.replaceChildren();
  if (!found?.heads[head]) {
    box.append(make("p", "The answers of this experiment are not here; dvc pull fetches them."));
    return;
  }
  for (const side of ["right", "wrong"]) {
    const answers = found.heads[head][side];
    box.append(make("h4", `${side === "right" ? "Right" : "Wrong"}, the surest first: ${found.run}, ${head}`));
    if (!answers.length) box.append(make("p", "none"));
    const list = box.appendChild(make("ul", "", { class: "answers" }));
    for (const [item, truth, predicted, percent] of answers) {
      const entry = list.appendChild(make("li"));
      entry.append(picture(data.gallery.tiles[item], item));
      entry.append(make("span", side === "right" ? `✓ ${predicted}` : `✗ predicted ${predicted}`, { class: side }));
      entry.append(document.createElement("br"));
      entry.append(make("span", `${side === "right" ? "" : `is ${truth}, `}${percent} % sure`));
    }
  }
  if (data.gallery.table) {
    box.append(make("p", "Bars: standardised readings, from -4 to 4.", { class: "soft" }));
  }
}

async function look(section) {
  const data = content.datasets[section.dataset.dataset];
  const [experiment, head, seed] = ["experiment", "head", "seed"].map((c) => section.querySelector(`select.${c}`));
  const heads = data.confusion[experiment.value];
  fill(head, Object.keys(heads).map((h) => [h, h]), head.value);
  const found = heads[head.value];
  const seeds = Object.keys(found.seeds);
  const all = seeds.length > 1 ? [["", `all ${seeds.length}, summed`]] : [];
  fill(seed, [...all, ...seeds.map((s) => [s, s])], seed.value);
  const chosen = seed.value === "" ? seeds : [seed.value];
  const title = `Confusion of ${experiment.value}, ${head.value}, ` +
    (chosen.length > 1 ? `summed over seeds ${chosen.join(", ")}` : `seed ${chosen[0]}`);
  const runs = chosen.map((s) => `${experiment.value}-${s}`);
  section.querySelector(".from").replaceChildren(
    `${title}. Runs: `, ...runs.flatMap((run) => [make("a", run, { href: `#run-${run}` }), " "]));
  gallery(section, data, experiment.value, head.value);
  await confusion(section, found, title, chosen.map((s) => found.seeds[s]));
}

function prepare(section) {
  const boxes = [...section.querySelectorAll("input.variant")];
  for (const box of boxes) {
    box.addEventListener("change", () => {
      const shown = boxes.filter((b) => b.checked).map((b) => b.value);
      for (const row of section.querySelectorAll("tr[data-experiment]")) {
        row.hidden = !shown.includes(row.dataset.experiment);
      }
      setSignal(section, "shown", shown);
    });
  }
  const metric = section.querySelector("select.metric");
  metric.addEventListener("change", () => setSignal(section, "metric", metric.value));
  for (const select of section.querySelectorAll(".looking select")) {
    select.addEventListener("change", () => look(section));
  }
}

// --- the whole page ---------------------------------------------------------------------------

for (const details of document.querySelectorAll("details.table[data-plot]")) {
  details.addEventListener("toggle", () => {
    const chart = content.charts[details.dataset.plot];
    if (details.open && !details.querySelector("table")) {
      table(details, chart, chart.rows ?? chart.spec.data.values);
    }
  });
}

const find = document.getElementById("find");
find.addEventListener("input", () => {
  const rows = [...document.querySelectorAll("#identities tbody tr")];
  const wanted = find.value.trim().toLowerCase();
  for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  document.getElementById("found").textContent =
    wanted ? `${rows.filter((r) => !r.hidden).length} of ${rows.length} runs` : "";
});
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#run-']");
  if (link && document.getElementById(link.hash.slice(1))?.hidden) {
    find.value = ""; // a row that the search has hidden could not be gone to
    find.dispatchEvent(new Event("input"));
  }
});

const sections = [...document.querySelectorAll("section.dataset")];
sections.forEach(prepare);
for (const element of document.querySelectorAll(".plot[data-plot]")) {
  await draw(element, content.charts[element.dataset.plot].spec);
}
for (const section of sections) if (section.querySelector(".looking")) await look(section);
document.documentElement.dataset.drawn = "yes"; // for tests, and for who prints by a program
