"use strict";
// Run, edit and reset the cells of a page, and write its exercises in place. Nothing is fetched before the first click.
(() => {
const script = document.currentScript, here = new URL(".", script.src).href;
const KEY = `cells ${location.pathname} `;
const KEYWORDS = /^(and|as|assert|async|await|break|class|continue|def|del|elif|else|except|finally|for|from|global|if|import|in|is|lambda|nonlocal|not|or|pass|raise|return|try|while|with|yield|None|True|False)$/;
const TOKEN = /(#.*)|((?:\b[rbfu]{1,2})?(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?))|(\b\d[\d_]*\.?\d*(?:e[+-]?\d+)?j?\b)|([^\W\d]\w*)|[^]/gi;
let page, worker, ready, busy, clock, queue = [], cells = [], done = new Set(), work;

const make = (tag, properties = {}, ...children) => { const e = Object.assign(document.createElement(tag), properties); e.append(...children); return e; };
const escape = text => text.replace(/[&<>]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;"})[c]);
const megabytes = bytes => `${(bytes / 1e6).toFixed(1)} MB`;
const colour = code => code.replace(TOKEN, (all, comment, string, number, word) => {
  const kind = comment ? "co" : string ? "st" : number ? "dv" : word && KEYWORDS.test(word) ? "kw" : "";
  return kind ? `<span class="${kind}">${escape(all)}</span>` : escape(all);
});
const store = { // works in windows that keep nothing, too
  get: (id, key = KEY) => { try { return localStorage.getItem(key + id); } catch { return null; } },
  set: (id, text, key = KEY) => { try { text === null ? localStorage.removeItem(key + id) : localStorage.setItem(key + id, text); } catch {} },
};

const live = make("div", {className: "run-live", ariaLive: "polite"});
live.setAttribute("role", "status");
function say(cell, text, aloud = true) {
  cell.state.textContent = text;
  if (aloud) live.textContent = text && `${cell.title}: ${text}`;
}

// ------------------------------------------------------------ a cell: its code

function setCode(cell, text) {
  const changed = text !== cell.original;
  cell.text = text;
  if (changed) cell.code.innerHTML = colour(text) + "\n"; else cell.code.innerHTML = cell.html;
  if (cell.editor && cell.editor.value !== text) cell.editor.value = text;
  cell.box.classList.toggle("run-changed", changed);
  cell.mark.textContent = changed ? "changed" : "";
  cell.reset.hidden = !changed && !cell.committed;
  done.delete(cell.id);
  unmark(cell);
}
function typed(cell) {
  setCode(cell, cell.editor.value);
  store.set(cell.id, cell.text === cell.original ? null : cell.text);
  say(cell, "", false);
  if (cell.exercise) progress();
}

function insert(cell, text, from, to) { // as typed, so that the browser can undo it
  cell.editor.setSelectionRange(from, to);
  if (!document.execCommand(text ? "insertText" : "delete", false, text)) { cell.editor.setRangeText(text, from, to, "end"); typed(cell); }
}
function keys(cell, event) {
  const {editor} = cell, {selectionStart: a, selectionEnd: b, value} = editor, start = value.lastIndexOf("\n", a - 1) + 1;
  if (event.key === "Escape") { event.preventDefault(); leave(cell); }
  else if (event.key === "Enter" && !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey)) {
    event.preventDefault();
    const line = value.slice(start, a);
    insert(cell, "\n" + line.match(/^ */)[0] + (/[:([{]\s*(#.*)?$/.test(line) ? "    " : ""), a, b);
  } else if (event.key === "Tab" && !event.ctrlKey) {
    event.preventDefault();
    const lines = value.slice(start, b);
    if (!event.shiftKey && !lines.includes("\n")) return insert(cell, " ".repeat(4 - (a - start) % 4), a, b);
    const moved = event.shiftKey ? lines.replace(/^ {1,4}/gm, "") : lines.replace(/^(?=.)/gm, "    ");
    if (moved === lines) return;
    insert(cell, moved, start, b);
    if (lines.includes("\n")) editor.setSelectionRange(start, start + moved.length);
    else { const caret = Math.max(start, a + moved.length - lines.length); editor.setSelectionRange(caret, caret); }
  }
}
function edit(cell) {
  if (!cell.editor) {
    cell.editor = make("textarea", {className: "run-editor", spellcheck: false, autocapitalize: "off", autocomplete: "off", value: cell.text,
      ariaLabel: `Code of ${cell.name}. Control and Enter ${cell.exercise ? "checks" : "runs"} it, Escape leaves it.`});
    cell.editor.setAttribute("wrap", "soft");
    cell.editor.addEventListener("input", () => typed(cell));
    cell.editor.addEventListener("keydown", event => keys(cell, event));
    cell.pre.append(cell.editor);
  }
  cell.box.classList.add("run-editing");
  cell.pre.removeAttribute("tabindex");
  cell.editor.hidden = false;
  cell.editor.focus();
}
function leave(cell) { cell.editor.hidden = true; cell.box.classList.remove("run-editing"); cell.edit.focus(); }

function unmark(cell) { if (cell.range) { CSS.highlights.get("run-error").delete(cell.range); cell.range = null; } }
function markLine(cell, line) {
  if (!line || !CSS.highlights) return;
  const walk = document.createTreeWalker(cell.code, NodeFilter.SHOW_TEXT), range = new Range();
  let n = 1, open = false;
  for (let node; (node = walk.nextNode());) for (let k = 0; k < node.length; k++) {
    if (n === line && !open && node.data[k] !== " ") { range.setStart(node, k); open = true; }
    if (n === line && open) range.setEnd(node, k + 1);
    n += node.data[k] === "\n";
  }
  if (!open) return;
  if (!CSS.highlights.has("run-error")) CSS.highlights.set("run-error", new Highlight());
  CSS.highlights.get("run-error").add(cell.range = range);
}

// ------------------------------------------------------------ a cell: its output

function clear(cell) {
  if (!cell.committed) { cell.committed = cell.outputs(); cell.committed.forEach(node => node.remove()); }
  cell.out.replaceChildren();
  cell.figures = cell.committed.flatMap(node => node.nodeType === 1 ? [...(node.matches("img") ? [node] : node.querySelectorAll("img"))] : [])
    .map(img => img.closest("figure") ?? img);
  cell.box.append(cell.out);
  cell.reset.hidden = false;
  cell.fresh = false;
}
const block = (kind, content) => make("div", {className: `cell-output cell-output-${kind}`}, content);
const pre = text => { const e = make("pre", {tabIndex: 0}, make("code", {textContent: text})); return e; };

function picture(cell, source, alt) {
  const frame = cell.figures.shift()?.cloneNode(true), img = frame?.matches("img") ? frame : frame?.querySelector("img") ?? make("img");
  img.src = source;
  img.removeAttribute("height");
  if (alt || cell.text !== cell.original) img.alt = alt || "Drawn by this cell as it was changed";
  else if (!img.alt) img.alt = "Drawn by this cell";
  return frame ?? img;
}
function show(cell, output) {
  if (cell.fresh) clear(cell);
  const {data, text, name} = output, last = cell.out.lastElementChild;
  if (output.output_type === "verdict") {
    busy.verdict = output.right ? "right" : "not right yet";
    if (output.right) solve(cell.exercise, output.text);
  } else if (output.output_type === "error") {
    cell.out.append(block("error", pre(output.traceback)));
    markLine(cell, output.line);
  } else if (text !== undefined) {
    const node = last?.dataset.stream === name ? last.querySelector("code") : null;
    if (node) node.textContent = (node.textContent + text).replace(/^.*\r(?!\n)/gm, "");
    else { const e = block(name, pre(text.replace(/^.*\r(?!\n)/gm, ""))); e.dataset.stream = name; cell.out.append(e); }
  } else {
    const image = Object.keys(data).find(kind => kind.startsWith("image/")), html = data["text/html"];
    const box = block("display", "");
    if (image) box.append(picture(cell, `data:${image}${image === "image/svg+xml" ? "," + encodeURIComponent(data[image]) : ";base64," + data[image]}`));
    else if (html) {
      box.innerHTML = page.exercises ? html.replaceAll(page.exercises.site, new URL("..", here).href.replace(/.$/, "")) : html;
      box.querySelectorAll("img").forEach(img => img.replaceWith(picture(cell, img.src, img.alt)));
    } else box.append(pre(data["text/plain"]));
    if (data["text/markdown"]) box.classList.add("cell-output-markdown");
    cell.out.append(box);
  }
}
function reset(cell) {
  store.set(cell.id, null);
  setCode(cell, cell.original);
  if (cell.committed) { cell.out.replaceChildren(); cell.out.remove(); cell.box.append(...cell.committed); cell.committed = null; }
  cell.reset.hidden = true;
  cell.go.focus();
  say(cell, "as on the page");
}

// ------------------------------------------------------------ running

async function fetched(name) {
  if (location.protocol === "file:") throw new Error("no server");
  const answer = await fetch(new URL(name, here));
  if (!answer.ok) throw new Error(`${name} answered ${answer.status}`);
  return answer.json();
}
const about = async () => page ??= await fetched(script.dataset.cells); // the page's cells and exercises
function start() { // the engine, once
  ready ??= (async () => {
    const [engine] = await Promise.all([fetched("engine.json"), about()]);
    worker = new Worker(new URL("worker.js", here), {type: "module"});
    await new Promise((resolve, reject) => {
      worker.onerror = event => reject(new Error(event.message || "the worker did not start"));
      worker.onmessage = ({data}) => data.kind === "ready" ? resolve() : data.kind === "failed" ? reject(new Error(data.why)) : hear(data);
      worker.postMessage({engine: {...engine, here, base: new URL(engine.base, here).href}});
    });
    worker.onmessage = ({data}) => hear(data);
  })();
  return ready;
}
let size = 0;
function hear({kind, id, ...data}) {
  const cell = cells.find(c => c.id === (id ?? busy?.now));
  if (kind === "size") size = data.bytes;
  else if (kind === "progress") { if (busy && size) say(busy.cell, data.bytes < size ? `fetching Python: ${megabytes(data.bytes)} of ${megabytes(size)}` : busy.cell.state.textContent, false); }
  else if (kind === "fetched") { size = 0; say(busy.cell, "starting Python", false); }
  else if (kind === "fetch") say(busy.cell, `fetching ${data.name.split("-")[0]}`, false);
  else if (kind === "begin") {
    busy.now = id;
    if (cell) { cell.fresh = true; cell.failed = false; unmark(cell); cell.box.classList.add("run-busy"); }
    busy.since = performance.now();
    busy.doing = busy.cell === cell ? "running" : `running the cells above: ${busy.left--} to go`;
    say(busy.cell, busy.doing, false);
  } else if (kind === "output") {
    if (cell) show(cell, data.output);
    if (data.output.output_type === "error") busy.error = data.output;
  } else if (kind === "end") {
    done.add(id);
    if (!data.ok && busy.cell !== cell) busy.failed = `${cell ? `${cell.name} above it` : "the page's set-up"} raised ${busy.error.ename}`;
    if (cell) {
      if (cell.fresh) clear(cell);
      cell.box.classList.remove("run-busy");
      if (cell !== busy.cell) say(cell, data.ok ? "ran" : busy.error.ename, false);
    }
    busy.ended = data;
  } else if (kind === "died") stop(busy.cell, `Python came to its end (${data.why}); the next click starts another`);
  else if (kind === "idle") finished();
}
const tick = () => { // how long it has been running
  const seconds = busy?.since && Math.round((performance.now() - busy.since) / 1e3);
  if (seconds > 1) say(busy.cell, `${busy.doing}, ${seconds} s`, false);
};
function finished() {
  const {cell, ended, error, failed, verdict} = busy, own = page.cells.find(c => c.id === cell.id)?.own;
  busy = null;
  idle(cell);
  const result = verdict ?? (ended.ok ? `ran in ${ended.seconds < 0.1 ? "less than 0.1" : ended.seconds.toFixed(1)} s${own ? `, ${own}` : ""}` : `${error.ename}: ${error.evalue}`.slice(0, 200));
  say(cell, failed ? `${result} (${failed})` : result);
  if (queue.length) run(queue.shift());
}
function idle(cell) { cell.go.textContent = cell.verb; cell.go.ariaLabel = `${cell.verb} ${cell.name}`; cell.box.classList.remove("run-busy"); }

async function run(cell) {
  if (cell.why) return;
  if (busy) { if (busy.cell !== cell && !queue.includes(cell)) { queue.push(cell); say(cell, "waits for the cell that runs"); } return; }
  busy = {cell};
  clock ??= setInterval(tick, 1000);
  cell.go.textContent = "Stop";
  cell.go.ariaLabel = `Stop ${cell.name}`;
  say(cell, ready && worker ? "running" : "fetching Python");
  const mine = busy;
  try { await start(); } catch (error) { if (busy === mine) out_of_reach(cell, error); return; }
  if (busy !== mine) return;
  if (cell.exercise) { worker.postMessage({cells: [{id: cell.id, code: cell.text, exercise: cell.exercise, module: page.exercises.module}]}); return; }
  const at = page.cells.findIndex(c => c.id === cell.id), own = page.cells[at];
  const above = page.cells.slice(0, at).filter(c => !c.why && !done.has(c.id) && (!c.optional || own.also.includes(c.id)));
  busy.left = above.length;
  worker.postMessage({cells: [...above, own].map(c => {
    const shown = cells.find(other => other.id === c.id);
    return {id: c.id, name: shown?.name ?? "a cell that sets the page up", code: shown?.text ?? c.code};
  })});
}
function end() { worker?.terminate(); worker = ready = busy = null; queue.forEach(c => say(c, "", false)); queue = []; done.clear(); size = 0; }
function stop(cell, why = "stopped; what had run runs again with the next click") {
  const {now} = busy;
  cells.filter(c => c.id === now).forEach(idle);
  end();
  idle(cell);
  say(cell, why);
}
function out_of_reach(cell, error) {
  end();
  idle(cell);
  say(cell, location.protocol === "file:" ? "Python runs where the page comes from a server; from a folder it cannot be loaded" : `Python is out of reach (${error.message}); the page's own results stand`);
}

// ------------------------------------------------------------ the page

function neighbour(cell) { return cell.exercise ? null : cells.slice(cells.indexOf(cell) + 1).find(c => !c.why && !c.exercise); }
function shortcut(cell, event) {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey || event.shiftKey) || cell.why) return;
  event.preventDefault();
  run(cell);
  const next = event.shiftKey && neighbour(cell);
  if (next) { if (cell.editor === document.activeElement) edit(next); else next.go.focus(); }
}
function button(text, label, act) { const b = make("button", {type: "button", textContent: text, ariaLabel: label}); b.addEventListener("click", act); return b; }
function adopt(box, title, exercise) {
  const code = box.querySelector("pre.sourceCode code, pre code"), top = [...box.children].find(child => child.contains(code)), name = title[0].toLowerCase() + title.slice(1);
  const original = code.textContent.replace(/\n$/, "");
  const cell = {box, code, original, text: original, html: code.innerHTML, pre: code.closest("pre"), id: box.dataset.run ?? box.id, why: box.dataset.runNot, title, name, exercise,
    verb: exercise ? "Check" : "Run", outputs: () => [...box.childNodes].slice([...box.childNodes].indexOf(cell.bar) + 1), out: make("div", {className: "run-out"}),
    state: make("span", {className: "run-state"}), mark: make("span", {className: "run-mark"})};
  box.classList.add("run-cell");
  cell.bar = make("div", {className: "run-bar"});
  top.after(cell.bar);
  if (cell.why) { cell.bar.append(make("span", {className: "run-state", textContent: `Not in the browser: needs ${cell.why}`})); return cell; }
  cell.go = button(cell.verb, `${cell.verb} ${name}`, () => busy?.cell === cell ? stop(cell) : run(cell));
  cell.edit = button("Edit", `Edit ${name}`, () => cell.box.classList.contains("run-editing") ? leave(cell) : edit(cell));
  cell.reset = button("Reset", `Reset ${name}`, () => reset(cell));
  cell.reset.hidden = true;
  cell.bar.append(cell.go, cell.edit, cell.reset, cell.mark, cell.state);
  cell.bar.setAttribute("role", "group");
  cell.bar.setAttribute("aria-label", title);
  cell.state.textContent = box.dataset.runNote ?? "";
  box.addEventListener("keydown", event => shortcut(cell, event));
  const kept = store.get(cell.id);
  if (kept !== null && kept !== original) setCode(cell, kept);
  return cell;
}

// ------------------------------------------------------------ exercises, in place

const SOLVED = `solved ${new URL("..", here).pathname} `; // of the whole site
const exercises = new Map(); // name: how it is opened, and where

function solve(name, text) { store.set(name, text, SOLVED); progress(); }
function progress() { // marks, and how many are solved
  const solved = name => store.get(name, SOLVED) !== null;
  for (const [name, {link}] of exercises) link?.classList.toggle("run-solved", solved(name));
  for (const [name, {mark}] of exercises) mark.textContent = solved(name) ? "✓ solved" : store.get(`exercise-${name}`) !== null ? "begun" : "";
  const all = [...exercises.keys()];
  if (work) work.textContent = `${all.filter(solved).length} of ${all.length} solved`;
  for (const link of document.querySelectorAll('main a[href*="#write-"]')) link.classList.toggle("run-solved", solved(link.hash.slice(7)));
}
const folded = title => [...document.querySelectorAll(".callout")].find(c => new RegExp(`(^|\\s|Tip|Note)${title}$`).test(c.querySelector(".callout-title-container")?.textContent.trim()))?.querySelector(".callout-body");
function hints(name) { // as they stand on the page, folded away; the last one is the solution, without the mistakes below its lines
  const steps = [...folded(`${name}: hints`)?.querySelectorAll("li") ?? []].map(li => [...li.cloneNode(true).childNodes]);
  const code = folded(`${name}: a solution, .*`)?.querySelector("pre code")?.textContent.replace(/^ *#[:!].*\n/gm, "").trim();
  return code ? [...steps, ["A solution:", codeBox(code)]] : steps;
}
const codeBox = text => make("div", {className: "sourceCode"}, make("pre", {className: "sourceCode python"}, make("code", {className: "sourceCode python", innerHTML: colour(text)})));

function open(exercise, shown) { // our function is put away meanwhile
  exercise.box.hidden = !shown;
  exercise.opener.ariaExpanded = String(shown);
  exercise.place.classList.toggle("run-away", shown && exercise.place.matches(".cell"));
}
async function write(name) { // open an exercise below its function, or go back to it
  const exercise = exercises.get(name);
  exercise.opener.disabled = true;
  try { await about(); } catch { exercise.state.textContent = "Exercises open where the page comes from a server"; return; } finally { exercise.opener.disabled = false; }
  if (!exercise.box) {
    const box = exercise.box = make("section", {className: "cell run-exercise", id: `exercise-${name}`}, make("p", {}, "Exercise: write ", make("code", {textContent: name})), codeBox(page.exercises.stubs[name].code));
    box.setAttribute("aria-label", `Exercise ${name}`);
    exercise.place.after(box);
    const cell = adopt(box, `Exercise ${name}`, name), steps = hints(name), list = make("ol", {className: "run-hints"});
    const more = button("Hint", `Hint for ${name}`, () => {
      list.append(make("li", {}, ...steps[list.children.length]));
      say(cell, `hint ${list.children.length} of ${steps.length} is shown below`);
      more.disabled = list.children.length === steps.length;
    });
    more.disabled = !steps.length;
    cell.reset.before(more);
    cell.bar.append(button("Close", `Close exercise ${name}`, () => { open(exercise, false); exercise.opener.focus(); }));
    cell.bar.after(list);
    cell.outputs = () => [];
    cells.push(exercise.cell = cell);
  }
  open(exercise, true);
  edit(exercise.cell);
  exercise.box.scrollIntoView({block: "nearest"});
}
async function take() { // the page as an exercise notebook, with what was written here
  await about();
  const {notebook, stubs, file} = structuredClone(page.exercises);
  for (const [name, {at, report}] of Object.entries(stubs)) {
    const text = store.get(`exercise-${name}`), said = store.get(name, SOLVED);
    if (text !== null) notebook.cells[at].source = text;
    if (said !== null) notebook.cells[report].outputs = [{output_type: "execute_result", data: {"text/plain": said}, metadata: {}, execution_count: null}];
  }
  const link = make("a", {href: URL.createObjectURL(new Blob([JSON.stringify(notebook, null, 1)], {type: "application/x-ipynb+json"})), download: file});
  link.click();
  URL.revokeObjectURL(link.href);
}
function offer() { // a button below each function that is an exercise, and all of them where the page speaks of exercises
  const section = document.getElementById("write-it-yourself"), heading = section?.matches("h2") ? section : section?.querySelector("h2");
  const box = heading && make("div", {className: "run-bar run-exercises"}), state = make("span", {className: "run-state"});
  const names = (script.dataset.exercises ?? "").split(" ").filter(Boolean);
  for (const name of names) {
    const cell = cells.find(c => c.box.dataset.exercise === name), mark = make("span", {className: "run-mark"});
    const opener = button("Write it yourself", `Write ${name} yourself`, () => write(name));
    opener.ariaExpanded = "false";
    const link = cell && button(name, `Write ${name} yourself`, () => write(name));
    exercises.set(name, {opener, mark, link, state: cell?.state ?? state, place: cell?.box ?? box});
    if (cell) cell.mark.before(opener, mark);
    if (box) box.append(link ?? Object.assign(opener, {textContent: name}), ...cell ? [] : [mark]);
  }
  if (names.length && box) {
    work = make("span", {className: "run-mark"});
    box.prepend(make("span", {textContent: "Write here, in the page:"}));
    box.append(work, button("Take along as a notebook", `Take the exercises of this page along as a notebook`, () => take().catch(() => { state.textContent = "The notebook comes from the site's server"; })), state);
    heading.after(box);
  }
  progress();
  const wanted = () => { const name = location.hash.startsWith("#write-") && location.hash.slice(7); if (exercises.has(name)) write(name); };
  addEventListener("hashchange", wanted);
  wanted();
}
document.addEventListener("DOMContentLoaded", () => {
  cells = [...document.querySelectorAll("[data-run]")].map((box, n) => adopt(box, `Cell ${n + 1}`));
  if (cells.length) document.body.append(live);
  offer();
});
addEventListener("storage", event => { // the same page in another tab
  const cell = cells.find(c => event.key === KEY + c.id);
  if (cell && !cell.why && cell.editor !== document.activeElement) setCode(cell, event.newValue ?? cell.original);
  progress();
});
})();
