"use strict";
// The table of connections: it sorts and filters columns of numbers, and makes the rows of one page only.
// Text goes into the page through textContent; nothing here makes HTML of strings, and the page's policy
// would not let it.
(() => {
  const PAGE = 50;
  const of = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(of(id).textContent);
  const table = of("table");
  if (!table) return;  // a capture without connections

  const data = read("data");
  const {hosts, endings, columns} = data.table;
  const total = columns.id.length;
  for (const name of ["id", "start"]) {  // differences
    const column = columns[name];
    for (let row = 1; row < total; row++) column[row] += column[row - 1];
  }
  const words = data.words;  // code -> {kind, meaning, advice}
  let records = null;  // parsed when first needed: id -> record
  const recordOf = (id) => {
    if (!records) records = new Map(read("record").connections.map((one) => [one.id, one]));
    return records.get(id);
  };

  // --- columns, as numbers that sort and texts that show

  const address = (host, port) => hosts[host].includes(":") ? `[${hosts[host]}]:${port}` : `${hosts[host]}:${port}`;
  const client = (row) => address(columns.client[row], columns.client_port[row]);
  const server = (row) => address(columns.server[row], columns.server_port[row]);
  const ending = (row) => endings[columns.ending[row]];
  const [VERDICT, INITIATOR, STATES, SHAPE, PROBLEMS, NOTICES] = [0, 1, 2, 3, 4, 5];

  const span = (us) => {
    const three = (number) => Number(number.toPrecision(3)).toString();
    if (us === 0) return "0 s";
    if (us < 1000) return `${us} us`;
    if (us < 1e6) return `${three(us / 1e3)} ms`;
    if (us < 180e6) return `${three(us / 1e6)} s`;
    const seconds = Math.round(us / 1e6), minutes = Math.floor(seconds / 60);
    if (minutes < 180) return seconds % 60 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
    const hours = Math.floor(minutes / 60).toLocaleString("en");
    return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  };

  // Addresses sort as numbers: the place of each host in the order of its address.
  const expanded = (host) => {
    if (!host.includes(":")) return "4" + host.split(".").map((part) => part.padStart(3, "0")).join(".");
    const [head, tail] = host.split("::");
    const parts = (text) => text ? text.split(":") : [];
    const zeros = tail === undefined ? [] : Array(8 - parts(head).length - parts(tail).length).fill("0");
    return "6" + [...parts(head), ...zeros, ...parts(tail)].map((part) => part.padStart(4, "0")).join(":");
  };
  const ranked = (texts) => {
    const order = texts.map((text, place) => [text, place]).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    const rank = new Float64Array(texts.length);
    order.forEach(([text, place], at) => {
      rank[place] = at && order[at - 1][0] === text ? rank[order[at - 1][1]] : at;
    });
    return rank;
  };
  const byEnding = (text) => {
    const rank = ranked(endings.map(text));
    return (row) => rank[columns.ending[row]];
  };
  const hostRank = ranked(hosts.map(expanded));
  const gravest = ranked(endings.map((one) => {
    const [problem] = one[PROBLEMS], [notice] = one[NOTICES];
    return problem ? `0${one[PROBLEMS].map(([code]) => code)}` : notice ? `1${one[NOTICES].map(([code]) => code)}` : "2";
  }));
  const KEYS = {
    id: (row) => columns.id[row],
    start: (row) => columns.start[row],
    lasted: (row) => columns.lasted[row],
    packets: (row) => columns.packets[row],
    bytes: (row) => columns.bytes[row],
    client: (row) => hostRank[columns.client[row]] * 65536 + columns.client_port[row],
    server: (row) => hostRank[columns.server[row]] * 65536 + columns.server_port[row],
    verdict: byEnding((one) => one[VERDICT]),
    initiator: byEnding((one) => one[INITIATOR]),
    client_state: byEnding((one) => one[STATES][0]),
    server_state: byEnding((one) => one[STATES][1]),
    findings: (row) => gravest[columns.ending[row]],
  };

  // --- what is shown: filters, order, page

  const FIELDS = {
    verdict: (one) => [one[VERDICT]],
    shape: (one) => [one[SHAPE]],
    state: (one) => one[STATES],
    finding: (one) => [...one[PROBLEMS], ...one[NOTICES]].map(([code]) => code),
  };
  const wanted = {};  // field -> value
  const selects = new Map([...document.querySelectorAll("#filters select")].map((one) => [one.dataset.field, one]));
  const search = of("search");
  let sorted = {key: "id", down: false};
  let shown = new Uint32Array(0), page = 0;
  const open = new Set();  // ids

  const matches = () => {
    const fits = endings.map((one) => Object.entries(wanted).every(([field, value]) => FIELDS[field](one).includes(value)));
    const asked = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const hostFits = asked.map((word) => hosts.map((host) => host.includes(word)));
    const inEnding = asked.map((word) => endings.map((one) => one.flat(3).some((text) => text !== null && text.toLowerCase().includes(word))));
    const found = [];
    for (let row = 0; row < total; row++) {
      if (!fits[columns.ending[row]]) continue;
      const all = asked.every((word, at) =>
        hostFits[at][columns.client[row]] || hostFits[at][columns.server[row]] || inEnding[at][columns.ending[row]]
        || (word[0] === "#" ? `#${columns.id[row]}` === word
          : /[:.\]]/.test(word) && (client(row).includes(word) || server(row).includes(word))));
      if (all) found.push(row);
    }
    return Uint32Array.from(found);
  };

  const order = () => {
    const key = KEYS[sorted.key], sign = sorted.down ? -1 : 1;
    const values = new Float64Array(total);
    for (const row of shown) values[row] = key(row);
    shown.sort((a, b) => sign * (values[a] - values[b]) || a - b);
  };

  const make = (name, kind, ...inside) => {
    const element = document.createElement(name);
    if (kind) element.className = kind;
    element.append(...inside);
    return element;
  };

  const codes = (places, kind) => places.map(([code, end]) => {
    const element = make("span", `finding-code ${kind}`, end ? `${code} (${end})` : code);
    if (words[code]) element.title = words[code].meaning;
    return element;
  });

  const where = (text) => (text[0] === "[" ? "address long" : "address");

  const cells = (row) => {
    const one = ending(row);
    const findings = [...codes(one[PROBLEMS], "problem"), ...codes(one[NOTICES], "notice")];
    return [
      ["number", `#${columns.id[row]}`], ["number", span(columns.start[row])], [where(client(row)), client(row)],
      [where(server(row)), server(row)], ["", one[VERDICT]], ["", one[INITIATOR]], ["state", one[STATES][0]],
      ["state", one[STATES][1]], ["number", span(columns.lasted[row])],
      ["number", columns.packets[row].toLocaleString("en")],
      ["number", columns.bytes[row].toLocaleString("en")],
      ["", ...findings.flatMap((code, at) => (at ? [" ", code] : [code]))],
    ];
  };

  const draw = () => {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const rows = [];
    for (const row of shown.subarray(page * PAGE, (page + 1) * PAGE)) {
      const id = columns.id[row];
      const line = make("tr", "row", ...cells(row).map(([kind, ...inside]) => make("td", kind, ...inside)));
      line.id = `c${id}`;
      line.dataset.id = id;
      line.tabIndex = 0;
      line.setAttribute("aria-expanded", String(open.has(id)));
      rows.push(line);
      if (open.has(id)) {
        line.classList.add("open");
        rows.push(detail(row));
      }
    }
    table.tBodies[0].replaceChildren(...rows);
    const nav = of("pages"), [back, on] = nav.querySelectorAll("button");
    nav.hidden = pages < 2;
    back.disabled = page === 0;
    on.disabled = page === pages - 1;
    nav.querySelector("span").textContent = `page ${page + 1} of ${pages.toLocaleString("en")}`;
    const filtered = Object.values(wanted).join(" · ");
    of("found").textContent = `${shown.length.toLocaleString("en")} of ${total.toLocaleString("en")} connections${filtered && `: ${filtered}`}`;
    for (const head of table.tHead.querySelectorAll("th")) {
      const key = head.firstChild.dataset.sort;
      if (key === sorted.key) head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  };

  const update = () => {
    shown = matches();
    order();
    page = 0;
    draw();
  };

  const choose = (field, value) => {
    if (value) wanted[field] = value; else delete wanted[field];
    if (selects.has(field)) selects.get(field).value = value;
    update();
  };

  // --- one connection

  const plain = (value) => JSON.stringify(value, null, 2).replace(/[^\x20-\x7e\n]/g, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);

  const whole = (id, template) => {
    const text = make("details", "", make("summary", "", "Record"));
    text.addEventListener("toggle", () => {
      if (text.open && text.childElementCount === 1) text.append(make("pre", "", plain(recordOf(id))));
    });
    return [template.content.cloneNode(true), text];
  };

  const point = (packet, cell) => {
    const rungs = [...cell.querySelectorAll(".rung")];
    for (const rung of rungs) rung.classList.toggle("chosen", rung.dataset.packet === packet);
    rungs.find((rung) => rung.classList.contains("chosen"))?.scrollIntoView({block: "center", behavior: "smooth"});
  };

  const brief = (row) => {
    const one = ending(row);
    const about = (code) => {
      const known = words[code] || {meaning: "", advice: ""};
      return make("li", "", make("b", "", code), ` ${known.meaning} `, make("span", "dim", known.advice));
    };
    const listed = [one[VERDICT], ...one[PROBLEMS].map(([code]) => code), ...one[NOTICES].map(([code]) => code)];
    return [
      make("p", "shape", one[SHAPE]),
      make("ul", "evidence", ...[...new Set(listed)].map(about)),
      make("p", "", "Its ladder and record are not in this file. ", make("code", "", `${data.command} --connection ${columns.id[row]}`), " shows it."),
    ];
  };

  const detail = (row) => {
    const id = columns.id[row], template = of(`ladder-${id}`);
    const cell = make("td", "", make("div", "inside", ...(template ? whole(id, template) : brief(row))));
    cell.colSpan = table.tHead.rows[0].cells.length;
    return make("tr", "detail", cell);
  };

  const toggle = (id) => {
    if (open.has(id)) open.delete(id); else open.add(id);
    draw();
    const line = of(`c${id}`);
    if (line) line.focus({preventScroll: true});
  };

  const follow = () => {
    const asked = /^#c(\d+)$/.exec(location.hash);
    const row = asked ? columns.id.indexOf(Number(asked[1])) : -1;
    if (row < 0) return;
    for (const field of Object.keys(wanted)) delete wanted[field];
    for (const one of selects.values()) one.value = "";
    search.value = "";
    shown = matches();
    order();
    page = Math.floor(shown.indexOf(row) / PAGE);
    open.add(columns.id[row]);
    draw();
    of(`c${columns.id[row]}`).scrollIntoView({block: "start"});
  };

  // --- what people do

  table.tHead.addEventListener("click", (event) => {
    const key = event.target.closest("button")?.dataset.sort;
    if (!key) return;
    sorted = {key, down: sorted.key === key && !sorted.down};
    order();
    page = 0;
    draw();
  });
  table.tBodies[0].addEventListener("click", (event) => {
    const packet = event.target.closest(".packet");
    if (packet) point(packet.dataset.packet, packet.closest("td"));
    const line = event.target.closest("tr.row");
    if (line && !String(getSelection())) toggle(Number(line.dataset.id));
  });
  table.tBodies[0].addEventListener("keydown", (event) => {
    if (event.target.matches("tr.row") && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      toggle(Number(event.target.dataset.id));
    }
  });
  of("pages").addEventListener("click", (event) => {
    const step = event.target.dataset.step;
    if (!step) return;
    page += Number(step);
    draw();
  });
  for (const [field, select] of selects) select.addEventListener("change", () => choose(field, select.value));
  let typing = 0;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(update, total > 20000 ? 150 : 0);
  });
  of("filters").addEventListener("submit", (event) => event.preventDefault());
  of("filters").addEventListener("reset", () => {
    for (const field of Object.keys(wanted)) delete wanted[field];
    setTimeout(update);
  });
  document.addEventListener("click", (event) => {
    const pick = event.target.closest(".pick");
    if (!pick) return;
    choose(pick.dataset.field, pick.dataset.value);
    of("connections").scrollIntoView({behavior: "smooth"});
  });
  addEventListener("hashchange", follow);

  of("filters").hidden = false;
  table.hidden = false;
  update();
  follow();
})();
