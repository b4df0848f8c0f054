// Copies, sorts, filters, and shows the flows there is no room for as HTML. Text from the report goes into the page as text only
// (createTextNode, textContent, value): the page's policy forbids everything else.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  document.documentElement.classList.add("js");

  const element = (name, attributes, ...inside) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value !== undefined && value !== null) made.setAttribute(key, value);
    }
    made.append(...inside.filter((one) => one !== null && one !== undefined && one !== ""));
    return made;
  };

  // ---- copying

  // A page that was opened from a disk may have no clipboard of its own: then a selected text is copied, or left selected.
  const copied = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const before = document.activeElement;
      const helper = element("textarea", { class: "helper", "aria-hidden": "true", tabindex: "-1", readonly: "" });
      helper.value = text;
      document.body.append(helper);
      helper.select();
      let done = false;
      try { done = document.execCommand("copy"); } catch { done = false; }
      helper.remove();
      if (before) before.focus();
      return done;
    }
  };

  let quiet = 0;
  const say = (text) => {
    byId("said").textContent = text;
    clearTimeout(quiet);
    quiet = setTimeout(() => { byId("said").textContent = ""; }, 4000);
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const text = button.dataset.copy;
    if (await copied(text)) {
      say("Copied: " + text);
      button.classList.add("done");
      setTimeout(() => button.classList.remove("done"), 1500);
    } else {
      say("Copying is not allowed here: " + text);
    }
  });

  // ---- folded parts

  const reveal = (target) => {
    for (let at = target; at; at = at.parentElement) {
      if (at.tagName === "DETAILS") at.open = true;
    }
    target.scrollIntoView();
  };
  const follow = () => {
    const target = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
    if (target) reveal(target);
  };
  addEventListener("hashchange", follow);
  follow();

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const one of folded) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of folded) one.open = false;
    folded = [];
  });

  // ---- tables

  const natural = new Intl.Collator("en", { numeric: true });

  // Heads become buttons; `sorted(column, down)` puts the rows in order.
  const sortable = (table, sorted) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = element("button", { type: "button" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sorted(column, down);
      });
    });
  };

  for (const table of document.querySelectorAll("table[data-sort]")) {
    const body = table.tBodies[0];
    const value = (row, column) => row.cells[column].dataset.sort || row.cells[column].textContent;
    sortable(table, (column, down) => {
      const rows = [...body.rows];
      rows.sort((a, b) => natural.compare(value(a, column), value(b, column)) * (down ? -1 : 1));
      body.append(...rows);
    });
  }

  for (const form of document.querySelectorAll("form[data-filters]")) {
    const body = byId(form.dataset.filters).tBodies[0];
    const [input, status] = [form.querySelector("input"), form.querySelector("[role=status]")];
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      status.textContent = words.length ? shown + " of " + body.rows.length : "";
    });
  }

  // ---- flows

  const table = byId("flow-table");
  if (!table) return;
  const VERDICTS = ["failed", "degraded", "undecided", "healthy"];
  const PAGE = 50;
  const data = JSON.parse(byId("flow-data").textContent);
  const several = data.files.length > 1;

  const address = (end) => end.slice(0, end.lastIndexOf(":")).replace(/^\[|\]$/g, "");
  const port = (end) => end.slice(end.lastIndexOf(":") + 1);

  // The marks of src/render/html/flows.rs.
  const explained = (template, numbers, client, server) => {
    const given = numbers.split(" ");
    let n = 0;
    return template.replace(/[\u0001-\u0005]/g, (mark) => {
      switch (mark.charCodeAt(0)) {
        case 1: return client;
        case 2: return server;
        case 3: return address(client);
        case 4: return address(server);
        default: return given[n++];
      }
    });
  };

  const flows = data.rows.map((row) => {
    const [file, id, verdict, client, server, template, numbers, start, lasted, packets, up, down, transport, protocols,
      handshake, close, rtt, community, rules, faces, drawn] = row;
    const ends = data.words[server];
    return {
      file, id, verdict, client, server: ends, start, lasted, packets, up, down, rtt, community, drawn,
      name: several ? (file + 1) + "#" + id : "#" + id,
      transport: data.words[transport], protocols: data.words[protocols], handshake: data.words[handshake], close: data.words[close],
      rules: rules.map((rule) => data.words[rule]), faces: faces.map((face) => data.words[face]),
      get says() { return explained(data.templates[template], numbers, client, ends); },
      get text() {
        if (!this.found) {
          this.found = [this.name, VERDICTS[verdict], client, ends, this.says, this.protocols, this.transport, this.close, community,
            ...this.rules, ...this.faces].join(" ").toLowerCase();
        }
        return this.found;
      },
    };
  });

  const clock = (micros) => {
    const at = data.base + micros;
    const time = new Date(Math.floor(at / 1000));
    if (Number.isNaN(time.getTime())) return String(at);
    return time.toISOString().slice(11, 23) + String(((at % 1000) + 1000) % 1000).padStart(3, "0");
  };

  const span = (micros) => {
    if (micros < 1000) return micros + " µs";
    if (micros < 1e6) return (micros / 1000).toFixed(micros < 1e5 ? 1 : 0) + " ms";
    if (micros < 12e7) return (micros / 1e6).toFixed(1) + " s";
    return Math.floor(micros / 6e7) + " min " + Math.floor(micros / 1e6) % 60 + " s";
  };

  // Packets that a sentence names, as buttons that copy their display filter.
  const cited = (text) => {
    const parts = [];
    let from = 0;
    for (const hit of text.matchAll(/(^|[ (–])((?:\d{1,5})?#(\d{1,18}))(?![\p{L}\p{N}#\\])/gu)) {
      const at = hit.index + hit[1].length;
      const filter = "frame.number == " + hit[3];
      parts.push(text.slice(from, at));
      parts.push(element("button", { type: "button", class: "cite", "data-copy": filter, title: "copy the display filter: " + filter }, hit[2]));
      from = at + hit[2].length;
    }
    parts.push(text.slice(from));
    return parts.filter(Boolean);
  };

  const filterOf = (flow) => {
    const end = (text) => (address(text).includes(":") ? "ipv6" : "ip") + ".addr == " + address(text);
    const ports = [flow.client, flow.server].map((text) => flow.transport + ".port == " + port(text));
    return [end(flow.client), end(flow.server), ...ports].join(" && ");
  };

  const line = (text, what) => element("div", { class: "command" }, element("pre", {}, element("code", {}, text)),
    element("button", { type: "button", class: "copy", "data-copy": text, "aria-label": "Copy " + what }, "Copy"));

  const details = (flow) => {
    const facts = element("dl", { class: "facts small" });
    const fact = (name, value) => { if (value) facts.append(element("div", {}, element("dt", {}, name), element("dd", {}, value))); };
    fact("Began, UTC", clock(flow.start));
    fact("Lasted", span(flow.lasted));
    fact("Packets", String(flow.packets));
    fact("Octets of payload", flow.up + " from the client, " + flow.down + " from the server");
    fact("Speaks", [flow.transport, flow.protocols].filter(Boolean).join(", "));
    fact("Handshake seen", flow.handshake);
    fact("End", flow.close);
    fact("Round trip", flow.rtt === null ? "not measured" : span(flow.rtt));
    fact("Rules", flow.rules.join(", "));
    fact("Community ID", flow.community);
    fact("Input", several ? data.files[flow.file] : "");
    const inside = [element("p", {}, ...cited(flow.says)), facts];
    for (const face of flow.faces) inside.push(element("p", {}, "Also seen: " + face));
    inside.push(line(filterOf(flow), "the display filter of flow " + flow.name));
    if (data.inputs) {
      inside.push(line("tcpwhy flow " + flow.name.replace(/^#/, "") + " " + data.inputs, "the command that shows flow " + flow.name));
    }
    if (flow.drawn) {
      inside.push(element("p", {}, element("a", { href: "#flow-" + (flow.file + 1) + "-" + flow.id }, "Packet by packet")));
    }
    return inside;
  };

  const body = table.tBodies[0];
  const columns = table.tHead.rows[0].cells.length;
  const rowOf = (flow) => {
    const id = "opened-" + flow.file + "-" + flow.id;
    const opener = element("button", { type: "button", class: "opener", "aria-expanded": "false", "aria-label": "Flow " + flow.name + ", details" }, flow.name);
    const says = element("div", { class: "says short" }, flow.says);
    const row = element("tr", { role: "row" },
      element("th", { scope: "row", role: "rowheader", class: "num" }, opener),
      element("td", { role: "cell" }, element("span", { class: "verdict-word " + VERDICTS[flow.verdict] }, VERDICTS[flow.verdict])),
      element("td", { role: "cell", class: "end" }, flow.client),
      element("td", { role: "cell", class: "end" }, flow.server),
      element("td", { role: "cell", class: "says" }, says),
      element("td", { role: "cell", class: "num wide" }, clock(flow.start)),
      element("td", { role: "cell", class: "num wide" }, String(flow.packets)));
    opener.addEventListener("click", () => {
      const open = opener.getAttribute("aria-expanded") === "true";
      opener.setAttribute("aria-expanded", String(!open));
      if (open) {
        row.nextElementSibling.remove();
        opener.removeAttribute("aria-controls");
      } else {
        row.after(element("tr", { class: "opened", role: "row", id }, element("td", { role: "cell", colspan: columns }, ...details(flow))));
        opener.setAttribute("aria-controls", id);
      }
    });
    return row;
  };

  const keys = [(flow) => flow.file * 1e13 + flow.id, (flow) => flow.verdict, (flow) => flow.client, (flow) => flow.server,
    (flow) => flow.says, (flow) => flow.start, (flow) => flow.packets];
  const [form, text, verdict, count, pages] = ["flow-filters", "flow-text", "flow-verdict", "flow-count", "flow-pages"].map(byId);
  let shown = flows;
  let page = 0;

  const draw = () => {
    const last = Math.max(0, Math.ceil(shown.length / PAGE) - 1);
    page = Math.min(Math.max(page, 0), last);
    body.replaceChildren(...shown.slice(page * PAGE, page * PAGE + PAGE).map(rowOf));
    count.textContent = shown.length === flows.length ? flows.length + " flows" : shown.length + " of " + flows.length + " flows";
    const to = (name, where, off) => {
      const button = element("button", { type: "button", "data-page": name }, name);
      button.disabled = off;
      button.addEventListener("click", () => {
        page = where;
        draw();
        const again = pages.querySelector("[data-page='" + name + "']");
        (again.disabled ? pages.querySelector("button:not(:disabled)") : again).focus();
      });
      return button;
    };
    pages.hidden = last === 0;
    pages.replaceChildren(to("First", 0, page === 0), to("Previous", page - 1, page === 0),
      element("span", {}, "rows " + (page * PAGE + 1) + " to " + Math.min(shown.length, page * PAGE + PAGE) + " of " + shown.length),
      to("Next", page + 1, page === last), to("Last", last, page === last));
  };

  let order = null;
  const choose = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = verdict.value;
    shown = flows.filter((flow) => (wanted === "" || VERDICTS[flow.verdict] === wanted) && words.every((word) => flow.text.includes(word)));
    if (order) {
      const keyed = shown.map((flow) => [order.key(flow), flow]);
      keyed.sort(([a], [b]) => (typeof a === "number" ? a - b : natural.compare(a, b)) * order.sign);
      shown = keyed.map(([, flow]) => flow);
    }
    page = 0;
    draw();
  };

  sortable(table, (column, down) => {
    order = { key: keys[column], sign: down ? -1 : 1 };
    choose();
  });
  for (const [place, name] of VERDICTS.entries()) {
    const many = flows.filter((flow) => flow.verdict === place).length;
    if (many) verdict.append(element("option", { value: name }, name + " (" + many + ")"));
  }
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  text.addEventListener("input", choose);
  verdict.addEventListener("change", choose);
  draw();
})();
