// The report: data of the page become elements, always as text, never as markup.
"use strict";
(() => {
  const D = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);

  // el makes an element: attributes, then children, which are elements or text.
  function el(tag, attrs, ...kids) {
    const e = document.createElement(tag);
    for (const [k, v] of Object.entries(attrs || {})) {
      if (k === "class") e.className = v;
      else if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
      else if (v === true) e.setAttribute(k, "");
      else if (v !== false && v != null) e.setAttribute(k, v);
    }
    e.append(...kids.flat(2).filter((k) => k != null && k !== ""));
    return e;
  }
  // plain shows what could turn text around or hide in it.
  const plain = (s) => String(s).replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
  const short = (s) => plain(s.replace(/^org\.osbuild(-star)?\./, ""));
  function bytes(n) {
    const a = Math.abs(n);
    if (a >= 1023.95 * 2 ** 20) return (n / 2 ** 30).toFixed(2) + " GiB";
    if (a >= 1023.95 * 2 ** 10) return (n / 2 ** 20).toFixed(1) + " MiB";
    if (a >= 1024) return (n / 1024).toFixed(1) + " KiB";
    return n + " B";
  }
  const signed = (n) => (n > 0 ? "+" : n < 0 ? "−" : "") + bytes(Math.abs(n));
  function time(s) {
    if (s < 0.0995) return (s * 1000).toFixed(s < 0.00995 ? 1 : 0) + " ms";
    if (s < 60) return s.toFixed(2) + " s";
    return Math.floor(s / 60) + " min " + (s % 60).toFixed(0).padStart(2, "0") + " s";
  }
  const percent = (x) => (100 * x).toFixed(x < 0.1 ? 1 : 0) + " %";
  const count = (n, what) => n + " " + what + (n === 1 ? "" : "s");
  const when = (t) => new Date(t).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  const clear = (e) => { e.replaceChildren(); return e; };
  const sum = (list, f) => list.reduce((a, x) => a + f(x), 0);

  // table fills a table. A column has a name, a value to sort by, and perhaps its own
  // cell, and a class. Clicking a head sorts.
  function table(t, caption, cols, rows, state) {
    state = state || {};
    const sorted = rows.slice();
    if (state.by != null) {
      const v = cols[state.by].value;
      sorted.sort((a, b) => {
        const x = v(a), y = v(b);
        return (typeof x === "number" ? x - y : String(x).localeCompare(String(y))) * (state.down ? -1 : 1);
      });
    }
    const head = cols.map((c, i) => {
      const is = state.by === i;
      const b = el("button", { type: "button", onclick: () => {
        state.down = is ? !state.down : c.class === "num";
        state.by = i;
        table(t, caption, cols, rows, state);
        t.querySelectorAll("thead button")[i].focus();
      } }, c.name);
      return el("th", { scope: "col", class: c.class || "", "aria-sort": is ? (state.down ? "descending" : "ascending") : "none" }, state.fixed ? c.name : b);
    });
    const body = sorted.map((r) => el("tr", {}, cols.map((c, i) => {
      const v = c.cell ? c.cell(r) : plain(c.value(r));
      return i === 0 ? el("th", { scope: "row", class: c.class || "" }, v) : el("td", { class: c.class || "" }, v);
    })));
    clear(t).append(el("caption", {}, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, body));
  }

  // Colours: the types of stages that took longest have one each.
  const spent = new Map();
  for (const s of D.spans) if (s.cat === "stage") spent.set(s.name, (spent.get(s.name) || 0) + s.end - s.begin);
  const types = [...spent].sort((a, b) => b[1] - a[1]).map((x) => x[0]);
  const colorOf = (type) => { const i = types.indexOf(type); return i >= 0 && i < 10 ? `var(--c${i})` : "var(--cx)"; };
  const categoryColor = { source: "var(--c7)", resolve: "var(--c3)", export: "var(--c5)", buildroot: "var(--c2)", test: "var(--c4)" };

  function summary() {
    const f = D.failure, title = D.targets.length ? D.targets.map(plain).join(", ") : "Build";
    document.title = `${f ? (f.interrupted ? "Interrupted: " : "Failed: ") : ""}${title} – build report`;
    $("title").textContent = title.length > 160 ? count(D.targets.length, "target") : title;
    const b = $("badge");
    if (!f) b.textContent = D.counts.run ? "built" : "nothing to do";
    else { b.textContent = f.interrupted ? "interrupted" : "failed"; b.classList.add(f.interrupted ? "warn" : "bad"); }
    $("started").append(when(D.started) + " · ", el("code", {}, plain(D.command)));
    const disk = sum(D.images, (i) => sum(i.files, (x) => x.size));
    const c = D.counts, bad = c.failed ? `${c.failed} failed, ${c.blocked} blocked` : "";
    const cards = [
      ["Total time", time(D.seconds), D.critical.length ? "critical path: " + count(D.critical.filter((l) => l.span >= 0).length, "step") : ""],
      ["Stages run", String(c.run), bad || `${c.store} from the store`],
      ["Downloads", String(c.downloads), c.downloads ? bytes(c.bytes) : "nothing was fetched"],
      ["Peak memory", c.peak ? bytes(c.peak) : "–", c.peak ? "sum of its processes" : "too short to tell"],
      ["Processors", D.samples.length ? c.cpu.toFixed(0) + " %" : "–", `of ${D.machine.cpus}, on average`],
      [D.images.length > 1 ? count(D.images.length, "image") : "Image", disk ? bytes(disk) : "–", count(sum(D.images, (i) => i.files.length), "file")],
    ];
    for (const [k, v, s] of cards) $("cards").append(el("div", { class: "card" }, el("dt", {}, k), el("dd", {}, v, el("small", {}, s))));
    for (const w of D.warnings || []) $("warnings").append(el("p", { class: "notice" }, "Warning: " + plain(w)));
  }

  function failure() {
    const f = D.failure;
    if (!f) return;
    $("failure").hidden = false;
    const box = $("failure-body");
    if (f.stages.length !== 1) box.append(el("p", { class: "notice bad" }, plain(f.message)));
    if (f.lines.length) box.append(el("ul", {}, f.lines.map((l) => el("li", {}, plain(l)))));
    if (f.hint && !f.stages.length) box.append(el("p", {}, "Hint: " + plain(f.hint)));
    for (const s of f.stages) {
      const facts = [["Stage", short(s.type)], ["Pipeline", s.pipeline], ["Target", s.target], ["Rule", s.rule], ["ID", s.id.slice(0, 16)]];
      box.append(el("p", { class: "notice bad" }, plain(s.message)));
      if (s.hint) box.append(el("p", {}, "Hint: " + plain(s.hint)));
      box.append(el("dl", { class: "facts" }, facts.filter((x) => x[1]).flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, plain(v))])));
      if (s.output.length) box.append(el("h3", {}, "The end of its output"), el("pre", { tabindex: "0" }, s.output.map(plain).join("\n")));
    }
    const blocked = D.stages.filter((s) => s.state === "blocked");
    if (blocked.length) {
      box.append(el("h3", {}, `It blocked ${count(blocked.length, "stage")}`),
        el("ul", { id: "blocked" }, blocked.map((s) => el("li", {}, `${plain(s.pipeline)}: ${short(s.type)}${s.target ? " (" + plain(s.target) + ")" : ""}`))));
    }
  }

  // The timeline. Positions are parts of the whole, so that zooming changes one width.
  const bars = []; // of spans that have one, by index of the span
  let zoom = 1;
  function timeline() {
    const inner = $("tl-inner"), total = Math.max(D.seconds, 1e-6), H = 24;
    if (!D.spans.length) { clear($("timeline")).append(el("h2", { id: "timeline-h" }, "Timeline"), el("p", { class: "muted" }, "Nothing ran.")); return; }
    inner.append(el("div", { class: "tl-axis", id: "tl-axis", "aria-hidden": "true" }));
    $("tl-labels").append(el("div", { style: "height:22px" }));
    const heights = [];
    const rows = D.rows.map((name, i) => {
      const own = D.spans.filter((s) => s.row === i && s.cat !== "phase" && !s.local);
      if (!own.length) return null;
      const levels = 1 + Math.max(0, ...own.map((s) => s.depth)), low = name.startsWith("download");
      heights[i] = low ? 9 : H;
      const height = `height:${levels * heights[i] + 3}px`;
      const row = el("div", { class: "tl-row" + (low ? " low" : ""), style: height });
      $("tl-labels").append(el("div", { style: `${height};line-height:${Math.max(heights[i], 12) + 3}px` }, name === "downloads" || !low ? name : ""));
      inner.append(row);
      return row;
    });
    D.spans.forEach((s, i) => {
      if (s.local || !rows[s.row]) return;
      const left = (100 * s.begin) / total, width = (100 * (s.end - s.begin)) / total;
      if (s.cat === "phase") {
        rows[s.row].append(el("div", { class: "phase " + (["prepare", "run", "commit"].includes(s.name) ? s.name : ""), style: `left:${left}%;width:${width}%;top:${(Math.max(s.depth, 1) - 1) * H + 18}px` }));
        return;
      }
      const bad = s.err && !s.open;
      const b = el("button", {
        type: "button", tabindex: "-1", "data-span": i,
        class: "tlb" + (s.critical ? " critical" : "") + (bad ? " bad" : s.cat === "wait" ? " wait" : ""),
        style: `left:${left}%;width:${width}%;top:${s.depth * heights[s.row] + 3}px;height:${heights[s.row] - 4}px` + (bad || s.cat === "wait" ? "" : `;background:${s.cat === "stage" ? colorOf(s.name) : categoryColor[s.cat] || "var(--cx)"}`),
        "aria-label": `${short(s.name)}${s.pipeline ? ", pipeline " + plain(s.pipeline) : ""}, ${time(s.end - s.begin)}${s.critical ? ", on the critical path" : ""}${bad ? ", failed" : ""}`,
        onmouseenter: () => select(i), onfocus: () => select(i), onclick: () => select(i),
      }, short(s.name));
      bars[i] = b;
      rows[s.row].append(b);
    });
    const graphs = [["CPU", [[2, "var(--c0)", .75], [1, "var(--cx)", .25]], 100, "%"], ["memory", [[3, "var(--c3)", .6]], 0, "B"], ["disk", [[6, "var(--c2)", .6], [5, "var(--c7)", .5]], 0, "B/s"]];
    if (D.samples.length > 1) for (const [name, lines, top] of graphs) {
      const m = top || Math.max(1, ...D.samples.flatMap((s) => lines.map((l) => s[l[0]])));
      const svg = $("graph").content.firstElementChild.cloneNode(true), shape = svg.firstElementChild;
      svg.setAttribute("viewBox", `0 0 ${total} 1`);
      shape.remove();
      for (const [k, fill, opacity] of lines.slice().reverse()) {
        const p = shape.cloneNode();
        const pts = D.samples.map((s) => `${s[0]},${1 - s[k] / m}`);
        p.setAttribute("points", `${D.samples[0][0]},1 ${pts.join(" ")} ${D.samples[D.samples.length - 1][0]},1`);
        p.setAttribute("fill", fill);
        p.setAttribute("fill-opacity", opacity);
        svg.append(p);
      }
      inner.append(el("div", { class: "graph" }, svg));
      $("tl-labels").append(el("div", { style: "height:46px;padding-top:4px" }, name, el("br"), name === "CPU" ? "100 %" : bytes(Math.round(m)) + (name === "disk" ? "/s" : "")));
    }
    for (const t of types.slice(0, 10)) $("legend").append(el("li", {}, el("i", { style: `background:${colorOf(t)}` }), `${short(t)} ${time(spent.get(t))}`));
    const rest = types.slice(10);
    if (rest.length) $("legend").append(el("li", {}, el("i", { style: "background:var(--cx)" }), `${count(rest.length, "other type")} ${time(sum(rest, (t) => spent.get(t)))}`));
    if (types.length) $("legend").append(el("li", {}, el("i", { class: "", style: "background:#9fb3c8" }), "prepare"), el("li", {}, el("i", { style: "background:#ffd27a" }), "commit"));

    const first = D.spans.findIndex((s, i) => s.critical && bars[i]);
    const start = first >= 0 ? first : bars.findIndex((b) => b);
    const longest = D.critical.filter((l) => l.span >= 0 && bars[l.span]).sort((a, b) => b.end - b.begin - (a.end - a.begin))[0];
    if (start >= 0) select(longest ? longest.span : start);
    $("zoom-in").onclick = () => setZoom(zoom * 1.6);
    $("zoom-out").onclick = () => setZoom(zoom / 1.6);
    $("zoom-fit").onclick = () => setZoom(1);
    inner.addEventListener("keydown", keys);
    $("tl-scroll").addEventListener("wheel", (e) => {
      if (!e.ctrlKey) return;
      e.preventDefault();
      setZoom(zoom * (e.deltaY < 0 ? 1.25 : 0.8), e.clientX);
    }, { passive: false });
    window.addEventListener("resize", () => { axis(); tiny(); });
    setZoom(1);
    table($("spans-table"), "Everything on the timeline", [
      { name: "What", value: (s) => short(s.name), class: "break" }, { name: "Kind", value: (s) => s.cat }, { name: "Row", value: (s) => D.rows[s.row] },
      { name: "Begin", class: "num", value: (s) => s.begin, cell: (s) => time(s.begin) },
      { name: "Took", class: "num", value: (s) => s.end - s.begin, cell: (s) => time(s.end - s.begin) },
      { name: "Critical", value: (s) => (s.critical ? "yes" : "") },
    ], D.spans);
  }

  function setZoom(z, x) {
    const scroll = $("tl-scroll"), old = zoom;
    zoom = Math.min(400, Math.max(1, z));
    const at = document.activeElement && document.activeElement.dataset.span != null ? document.activeElement.getBoundingClientRect().left : null;
    const px = (x != null ? x : at != null ? at : scroll.getBoundingClientRect().left + scroll.clientWidth / 2) - scroll.getBoundingClientRect().left;
    const middle = scroll.scrollLeft + px;
    $("tl-inner").style.width = zoom * 100 + "%";
    scroll.scrollLeft = (middle * zoom) / old - px;
    $("zoom-level").textContent = Math.round(zoom * 100) + " %";
    axis();
    tiny();
  }
  // tiny takes the padding from bars that have no room for it.
  function tiny() { for (const b of bars) if (b) b.classList.toggle("tiny", b.offsetWidth < 14); }

  function axis() {
    const a = $("tl-axis");
    if (!a) return;
    const inner = $("tl-inner"), width = inner.clientWidth || 1, want = (D.seconds * 110) / width;
    const unit = 10 ** Math.floor(Math.log10(Math.max(want, 1e-6)));
    const step = [1, 2, 5, 10].map((k) => k * unit).find((k) => k >= want) || want || 1;
    clear(a);
    inner.querySelectorAll(".tl-grid").forEach((g) => g.remove());
    for (let i = 0; i * step <= D.seconds && i < 5000; i++) {
      const left = (100 * i * step) / D.seconds;
      inner.prepend(el("div", { class: "tl-grid", style: `left:${left}%`, "aria-hidden": "true" }));
      if (left < 98) a.append(el("span", { style: `left:${left}%` }, step >= 1 ? i * step + " s" : step >= .001 ? Math.round(i * step * 1000) + " ms" : (i * step * 1000).toFixed(2) + " ms"));
    }
  }

  let chosen = -1;
  function select(i) {
    if (chosen === i) return;
    if (bars[chosen]) bars[chosen].classList.remove("on");
    bars.forEach((b) => { b.tabIndex = -1; });
    chosen = i;
    bars[i].classList.add("on");
    bars[i].tabIndex = 0;
    const s = D.spans[i];
    const st = s.cat === "stage" ? D.stages.find((x) => x.id === s.id && x.pipeline === s.pipeline) : null;
    const phases = D.spans.filter((p) => p.cat === "phase" && p.row === s.row && p.depth === s.depth + 1 && p.begin >= s.begin - 1e-6 && p.end <= s.end + 1e-3);
    const facts = [
      ["took", time(s.end - s.begin)], ["from", time(s.begin)], ["to", time(s.end)], ["pipeline", s.pipeline], ["target", s.target],
      ["phases", s.cat === "stage" ? phases.map((p) => `${p.name} ${time(p.end - p.begin)}`).join(", ") : ""], ["CPU", s.cpu ? time(s.cpu) : ""], ["memory", s.rss ? bytes(s.rss) : ""],
      ["layer", s.layer ? bytes(s.layer) : ""], ["size", s.bytes ? bytes(s.bytes) : ""], ["rule", s.rule], ["ID", s.id ? s.id.slice(0, 20) : ""],
      ["why", st ? st.why : ""], ["error", s.err],
    ];
    const names = { wait: "waiting for a slot: ", source: "download: " };
    $("detail").className = "detail";
    clear($("detail")).append(el("strong", {}, (names[s.cat] || "") + short(s.name)), s.critical ? " · on the critical path" : "",
      el("dl", {}, facts.filter((x) => x[1]).map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, plain(v))))));
  }

  function keys(e) {
    const at = Number(e.target.dataset.span);
    if (Number.isNaN(at)) return;
    const list = D.spans.map((s, i) => i).filter((i) => bars[i]);
    const s = D.spans[at];
    let to = -1;
    const nearest = (of) => of.sort((a, b) => Math.abs(D.spans[a].begin - s.begin) - Math.abs(D.spans[b].begin - s.begin))[0];
    switch (e.key) {
      case "ArrowRight": to = list[list.indexOf(at) + 1]; break;
      case "ArrowLeft": to = list[list.indexOf(at) - 1]; break;
      case "ArrowDown": case "ArrowUp": {
        const d = e.key === "ArrowDown" ? 1 : -1;
        for (let r = s.row + d; r >= 0 && r < D.rows.length && to < 0; r += d) {
          const of = list.filter((i) => D.spans[i].row === r);
          if (of.length) to = nearest(of);
        }
        break;
      }
      case "Home": to = list[0]; break;
      case "End": to = list[list.length - 1]; break;
      case "+": case "=": setZoom(zoom * 1.6); break;
      case "-": setZoom(zoom / 1.6); break;
      case "0": setZoom(1); break;
      default: return;
    }
    e.preventDefault();
    if (to != null && to >= 0) { bars[to].focus(); bars[to].scrollIntoView({ block: "nearest", inline: "nearest" }); }
  }

  function critical() {
    const links = D.critical;
    if (!links.length) { $("critical-note").textContent = "Nothing had to be waited for: all was in the store."; $("critical-table").parentElement.hidden = true; return; }
    const busy = sum(links.filter((l) => l.span >= 0), (l) => l.end - l.begin);
    $("critical-note").textContent = `What the end of the build waited for, step by step: ${time(busy)} of ${time(D.seconds)}. Making anything else faster would not have ended it sooner.`;
    const what = (l) => (l.span >= 0 ? D.spans[l.span] : null);
    table($("critical-table"), "Steps in their order", [
      { name: "Begin", class: "num", value: (l) => l.begin, cell: (l) => time(l.begin) },
      { name: "What", class: "break", value: (l) => (what(l) ? short(what(l).name) : ""), cell: (l) => {
        const s = what(l);
        if (!s) return el("span", { class: "muted" }, "between steps");
        const many = l.of > 1 ? el("span", { class: "muted" }, ` the last of ${l.of} that were fetched at once`) : null;
        return bars[l.span] ? [el("button", { type: "button", onclick: () => { bars[l.span].focus(); bars[l.span].scrollIntoView({ block: "center", inline: "center" }); } }, short(s.name)), many] : short(s.name);
      } },
      { name: "Pipeline", value: (l) => (what(l) && what(l).pipeline) || "" },
      { name: "Why then", value: (l) => l.why },
      { name: "Took", class: "num", value: (l) => l.end - l.begin, cell: (l) => time(l.end - l.begin) },
      { name: "Share", class: "track", value: (l) => l.end - l.begin, cell: (l) => el("span", { class: "meter", title: percent((l.end - l.begin) / D.seconds), style: `width:${(100 * (l.end - l.begin)) / D.seconds}%;background:${what(l) ? (what(l).cat === "stage" ? colorOf(what(l).name) : categoryColor[what(l).cat] || "var(--cx)") : "var(--line)"}` }) },
    ], links, { fixed: true });
  }

  const badge = { run: "", failed: "bad", stopped: "warn", blocked: "warn", store: "idle", skipped: "idle", "not run": "idle", shared: "idle" };
  const stateName = { run: "run", store: "from the store", skipped: "not needed", failed: "failed", stopped: "stopped", blocked: "blocked", "not run": "not run", shared: "shared" };
  function stages() {
    const states = [...new Set(D.stages.map((s) => s.state))], pipelines = [...new Set(D.stages.map((s) => s.pipeline))];
    const option = (v, t) => el("option", { value: v }, t);
    $("stage-state").append(option("", `all (${D.stages.length})`), ...states.map((s) => option(s, `${stateName[s]} (${D.stages.filter((x) => x.state === s).length})`)));
    $("stage-pipeline").append(option("", "all"), ...pipelines.map((p) => option(p, plain(p))));
    const many = new Set(D.stages.map((s) => s.target)).size > 1;
    const cols = [
      { name: "Stage", class: "break", value: (s) => short(s.type) }, { name: "Pipeline", value: (s) => s.pipeline },
      ...(many ? [{ name: "Target", class: "break", value: (s) => s.target || "" }] : []),
      { name: "State", class: "nowrap", value: (s) => stateName[s.state], cell: (s) => el("span", { class: "badge " + badge[s.state] }, stateName[s.state]) },
      { name: "Time", class: "num", value: (s) => s.wall, cell: (s) => (s.wall ? time(s.wall) : "") },
      { name: "CPU", class: "num", value: (s) => s.cpu, cell: (s) => (s.cpu ? time(s.cpu) : "") },
      { name: "Memory", class: "num", value: (s) => s.rss, cell: (s) => (s.rss ? bytes(s.rss) : "") },
      { name: "Layer", class: "num", value: (s) => s.layer, cell: (s) => (s.layer ? bytes(s.layer) : "") },
      { name: "Key", value: (s) => s.key, cell: (s) => el("code", { title: s.key }, s.key.slice(0, 10)) },
      { name: "Rule", class: "break", value: (s) => s.rule || "" },
      { name: "Why it ran", class: "break", value: (s) => s.why || "" },
    ];
    const state = {};
    const show = () => {
      const q = $("stage-search").value.toLowerCase(), st = $("stage-state").value, p = $("stage-pipeline").value;
      const rows = D.stages.filter((s) => (!st || s.state === st) && (!p || s.pipeline === p) && [s.type, s.pipeline, s.id, s.key, s.rule || "", s.target || ""].some((t) => t.toLowerCase().includes(q)));
      table($("stages-table"), "Stages in the order of the plan", cols, rows, state);
      $("stage-count").textContent = `${rows.length} of ${D.stages.length}`;
    };
    for (const id of ["stage-search", "stage-state", "stage-pipeline"]) $(id).addEventListener("input", show);
    show();
  }

  // The image: files, sizes, packages, differences.
  let image, tree, byPackage = false, path = [];
  function images() {
    if (!D.images.length) { $("image").hidden = true; return; }
    D.images.forEach((im, i) => $("image-select").append(el("option", { value: i }, plain(im.label))));
    $("image-tools").hidden = D.images.length < 2;
    $("image-select").addEventListener("input", () => showImage(Number($("image-select").value)));
    $("by-folder").onclick = () => { byPackage = false; path = []; treemap(); };
    $("by-package").onclick = () => { byPackage = true; path = []; treemap(); };
    $("package-search").addEventListener("input", packages);
    $("treemap").addEventListener("keydown", (e) => { if (e.key === "Backspace" || e.key === "Escape") { e.preventDefault(); up(path.length - 1); } });
    window.addEventListener("resize", treemap);
    showImage(0);
  }
  function showImage(i) {
    image = D.images[i];
    tree = image.trees[0];
    path = [];
    byPackage = false;
    $("image-h").textContent = "Image " + plain(image.label);
    const t = el("table");
    table(t, `Files in ${plain(image.dir)}`, [{ name: "File", class: "break", value: (f) => f.name }, { name: "Size", class: "num", value: (f) => f.size, cell: (f) => bytes(f.size) }], image.files);
    clear($("files")).append(t);
    const note = [];
    if (tree) note.push(`${plain(tree.os || "A tree")} (pipeline ${plain(tree.pipeline)}): ${bytes(tree.size)} in ${tree.files} files.`);
    if (image.note) note.push(plain(image.note));
    $("image-note").textContent = note.join(" ");
    for (const id of ["sizes-h", "sizes-tools", "sizes-panel"]) $(id).hidden = !tree;
    treemap();
    packages();
    differences();
  }

  const up = (n) => { if (n >= 0 && n < path.length) { const from = path[n]; path = path.slice(0, n); treemap(from.n); } };

  // squarify lays parts into a rectangle, so that none is longer than needed.
  function squarify(kids, x, y, w, h) {
    const out = [], total = sum(kids, (k) => k.s);
    if (!total || w <= 0 || h <= 0) return out;
    const scale = (w * h) / total;
    let row = [], i = 0;
    const worst = (r, side) => {
      const s = sum(r, (k) => k.s) * scale, big = r[0].s * scale, small = r[r.length - 1].s * scale;
      return Math.max((side * side * big) / (s * s), (s * s) / (side * side * small));
    };
    const lay = () => {
      const s = sum(row, (k) => k.s) * scale, across = w >= h;
      const thick = s / (across ? h : w);
      let at = across ? y : x;
      for (const k of row) {
        const long = (k.s * scale) / thick;
        out.push(across ? { k, x, y: at, w: thick, h: long } : { k, x: at, y, w: long, h: thick });
        at += long;
      }
      if (across) { x += thick; w -= thick; } else { y += thick; h -= thick; }
      row = [];
    };
    const list = kids.filter((k) => k.s > 0);
    while (i < list.length) {
      const side = Math.min(w, h);
      if (!row.length || worst(row.concat(list[i]), side) <= worst(row, side)) row.push(list[i++]);
      else lay();
    }
    if (row.length) lay();
    return out;
  }

  // nested shows the parts of a part, as far as there is room for them.
  function nested(box, kids, w, h, depth) {
    if (!depth || w < 50 || h < 40) return;
    for (const q of squarify(kids, 2, 20, w - 6, h - 24)) {
      if (q.w < 3 || q.h < 3) continue;
      const e = el("span", { class: "inner", "aria-hidden": "true", style: `left:${q.x}px;top:${q.y}px;width:${q.w}px;height:${q.h}px` }, q.w > 36 && q.h > 14 ? plain(q.k.n) : "");
      if (q.k.c) nested(e, q.k.c, q.w, q.h, depth - 1);
      box.append(e);
    }
  }

  function treemap(focusOn) {
    if (!tree) return;
    const box = clear($("treemap")), root = byPackage ? tree.sections : tree.folders;
    $("by-folder").setAttribute("aria-pressed", !byPackage);
    $("by-package").setAttribute("aria-pressed", byPackage);
    $("by-package").hidden = !tree.sections;
    if (!root) return;
    const here = path.length ? path[path.length - 1] : root, W = box.clientWidth, H = box.clientHeight, kids = here.c || [];
    squarify(kids, 0, 0, W, H).forEach((r, i) => {
      const into = !!(r.k.c && r.k.c.length), hue = `var(--c${i % 10})`;
      const cell = el("button", {
        type: "button", class: "cell" + (into ? " into" : ""), style: `left:${r.x}px;top:${r.y}px;width:${r.w}px;height:${r.h}px;background:${hue};--hue:${hue}`,
        title: `${plain(r.k.n)}: ${bytes(r.k.s)}, ${percent(r.k.s / (here.s || 1))}`, "aria-label": `${plain(r.k.n)}, ${bytes(r.k.s)}, ${percent(r.k.s / (here.s || 1))}${into ? ", go into it" : ""}`,
        onclick: () => { if (into) { path.push(r.k); treemap(true); } },
      });
      if (r.w > 34 && r.h > 18) cell.append(el("b", { "aria-hidden": "true" }, plain(r.k.n), r.w > 110 ? el("small", {}, bytes(r.k.s)) : ""));
      if (into) nested(cell, r.k.c, r.w, r.h, 3);
      box.append(cell);
      if (focusOn === r.k.n) cell.focus();
    });
    if (focusOn === true && box.firstChild) box.firstChild.focus();
    const crumbs = clear($("crumbs"));
    [root, ...path].forEach((n, i, all) => {
      const name = i === 0 ? (byPackage ? "all packages" : "/") : plain(n.n);
      if (i > 0) crumbs.append(el("span", { class: "muted", "aria-hidden": "true" }, "›"));
      crumbs.append(i < all.length - 1 ? el("button", { type: "button", onclick: () => up(i) }, name) : el("span", { "aria-current": "location" }, `${name} · ${bytes(n.s)}`));
    });
    table($("sizes-table"), `Parts of ${path.length ? plain(here.n) : "the tree"}`, [
      { name: "Name", class: "break", value: (k) => k.n, cell: (k) => (k.c && k.c.length ? el("button", { type: "button", onclick: () => { path.push(k); treemap(); } }, plain(k.n)) : plain(k.n)) },
      { name: "Size", class: "num", value: (k) => k.s, cell: (k) => bytes(k.s) }, { name: "Share", class: "num", value: (k) => k.s, cell: (k) => percent(k.s / (here.s || 1)) },
    ], kids);
  }

  const packageState = {};
  function packages() {
    const panel = $("packages-panel"), list = tree ? tree.packages : [];
    panel.hidden = $("packages-tools").hidden = !list.length;
    if (!list.length) {
      $("packages-h").textContent = tree && tree.database === "rpm" ? "Packages: those of rpm trees are not listed" : "Packages: none";
      return;
    }
    $("packages-h").textContent = `${count(list.length, "package")}`;
    const q = $("package-search").value.toLowerCase(), rows = list.filter((p) => (p.name + " " + (p.section || "")).toLowerCase().includes(q));
    table($("packages-table"), "Installed is what the package says, in the tree what its files take there", [
      { name: "Package", class: "break", value: (p) => p.name }, { name: "Version", class: "break", value: (p) => p.version }, { name: "Architecture", value: (p) => p.arch },
      { name: "Section", value: (p) => p.section || "" },
      { name: "Installed", class: "num", value: (p) => p.installed, cell: (p) => bytes(p.installed) }, { name: "In the tree", class: "num", value: (p) => p.size, cell: (p) => bytes(p.size) },
    ], rows, packageState);
    $("package-count").textContent = `${rows.length} of ${list.length}`;
  }

  function differences() {
    const box = clear($("diff")), d = image.diff;
    if (!d) { box.append(el("p", { class: "muted" }, "This is the first build of this target in this workspace: there is nothing to compare it with.")); return; }
    const change = (pair, f) => el("span", { class: pair[1] > pair[0] ? "plus" : pair[1] < pair[0] ? "minus" : "muted" }, f(pair[1] - pair[0]));
    box.append(el("p", {}, d.same
      ? `The previous build made the same image. The last one that made another was on ${when(d.since)}; since then:`
      : `Since the build of ${when(d.since)}:`));
    const facts = [["Files of the image", bytes(d.files[1]), change(d.files, signed)]];
    if (!d.unknown) facts.push(["The tree", bytes(d.size[1]), change(d.size, signed)]);
    if (d.seconds[0] && d.seconds[1]) facts.push(["Time of the build", time(d.seconds[1]), el("span", { class: "muted" }, `it was ${time(d.seconds[0])}`)]);
    box.append(el("dl", { class: "facts" }, facts.flatMap(([k, v, c]) => [el("dt", {}, k), el("dd", {}, v + " (", c, ")")])));
    if (d.unknown) box.append(el("p", { class: "notice" }, `Packages and folders cannot be compared: ${d.unknown}.`));
    const cols = el("div", { class: "columns" });
    const part = (name, t) => cols.append(el("div", { class: name.startsWith("Packages") ? "whole" : "" }, el("h4", {}, name), t ? el("div", { class: "panel scroll tall", tabindex: "0", role: "region", "aria-label": name }, t) : el("p", { class: "muted" }, "None.")));
    if (!d.unknown) {
      let t = null;
      if (d.packages.length) table(t = el("table"), count(d.packages.length, "package"), [
        { name: "Package", class: "break", value: (p) => p.name }, { name: "What", value: (p) => p.what },
        { name: "Version", class: "break", value: (p) => (p.old && p.new && p.old !== p.new ? `${p.old} → ${p.new}` : p.new || p.old || "") },
        { name: "Size", class: "num", value: (p) => p.size[1] - p.size[0], cell: (p) => change(p.size, signed) },
      ], d.packages);
      part("Packages that changed", t);
      t = null;
      if (d.folders.length) table(t = el("table"), "The largest changes first", [
        { name: "Folder", class: "break", value: (f) => f.name }, { name: "Now", class: "num", value: (f) => f.size[1], cell: (f) => bytes(f.size[1]) },
        { name: "Change", class: "num", value: (f) => f.size[1] - f.size[0], cell: (f) => change(f.size, signed) },
      ], d.folders);
      part("Folders that grew or shrank", t);
    }
    let t = null;
    if (d.stages.length) table(t = el("table"), count(d.stages.length, "stage"), [
      { name: "Stage", class: "break", value: (s) => s.split(" (")[0].replace(/: org\.osbuild(-star)?\./, ": ") }, { name: "Why", class: "break", value: (s) => s.slice(s.indexOf(" (") + 2, -1) },
    ], d.stages);
    part("Stages that are not as they were", t);
    box.append(cols);
  }

  function machine() {
    const m = D.machine;
    const facts = [["Processors", `${m.cpus} × ${plain(m.model || m.arch)}`], ["Memory", m.memory ? bytes(m.memory) : ""], ["Kernel", m.kernel], ["Stages at once", m.jobs], ["Store", m.store],
      ["Free in the store", D.samples.length ? bytes(D.samples[D.samples.length - 1][7]) : ""]];
    $("machine-facts").append(...facts.filter((f) => f[1]).flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, plain(v))]));
    $("footer").textContent = `Made by osbuild-star ${plain(D.version)}. This page is one file and loads nothing.`;
    for (const s of document.querySelectorAll("main > section")) {
      const h = s.querySelector("h2");
      if (h && !s.hidden) $("nav").append(el("a", { href: "#" + s.id }, s.id === "image" ? "Image" : h.textContent));
    }
  }

  summary(); failure(); timeline(); critical(); stages(); images(); machine();
})();
