// Python for one page: Pyodide in a worker, so that the page stays alive and an endless loop can be ended.
// `_browser.py` of the package does the rest: it runs cells and fetches what they import.
const say = (kind, more) => postMessage({kind, ...more});
let engine, session, attempt, loaded = 0;

const url = name => new URL(name, engine.files[name].here ? engine.here : engine.base).href;
const wrong = name => new Error(`${name} is not the file that was pinned`);

async function get(name) { // the bytes of a pinned file, counted while they come
  const {sha256} = engine.files[name], subtle = self.crypto?.subtle; // a page from http:// has no digests: there the browser checks
  const answer = await fetch(url(name), subtle ? {} : {integrity: `sha256-${sha256}`});
  if (!answer.ok) throw new Error(`${url(name)} answered ${answer.status}`);
  const parts = [], reader = answer.body.getReader();
  for (let part; !(part = await reader.read()).done; parts.push(part.value)) say("progress", {bytes: loaded += part.value.length});
  const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
  if (subtle && btoa(String.fromCharCode(...new Uint8Array(await subtle.digest("SHA-256", bytes)))) !== sha256) throw wrong(name);
  return bytes;
}

function getNow(name) { // the same for Python, which waits for what it imports and checks it itself
  say("fetch", {name});
  const request = new XMLHttpRequest();
  request.open("GET", url(name), false);
  request.responseType = "arraybuffer";
  request.send();
  if (request.status !== 200) throw new Error(`${url(name)} answered ${request.status}`);
  say("progress", {bytes: loaded += request.response.byteLength});
  return new Uint8Array(request.response);
}

const module = bytes => import(URL.createObjectURL(new Blob([bytes], {type: "text/javascript"})));

async function start() {
  const first = Object.keys(engine.files).filter(name => engine.files[name].first);
  say("size", {bytes: first.reduce((sum, name) => sum + engine.files[name].bytes, 0)});
  const bytes = Object.fromEntries(await Promise.all(first.map(async name => [name, await get(name)])));
  say("fetched");
  const fetched = self.fetch;
  self.fetch = (where, ...options) => {
    const name = String(where.url ?? where).split("/").pop();
    return name in bytes ? Promise.resolve(new Response(bytes[name], {headers: {"Content-Type": "application/wasm"}})) : fetched(where, ...options);
  };
  const {loadPyodide} = await module(bytes["pyodide.mjs"]);
  const {default: createPyodideModule} = await module(bytes["pyodide.asm.mjs"]);
  const python = await loadPyodide({indexURL: engine.base, createPyodideModule, lockFileContents: {info: engine.info, packages: {}},
    stdout: () => {}, stderr: () => {}, env: {MPLBACKEND: "agg", CS231N_LIT_ISA: "numpy", HOME: "/home/pyodide"}});
  self.fetch = fetched;
  const site = python.runPython("import site; site.getsitepackages()[0]");
  for (const name of first.filter(name => /\.(whl|zip)$/.test(name) && name !== "python_stdlib.zip")) {
    python.unpackArchive(bytes[name], "zip", {extractDir: site});
    engine.files[name].unpacked = true;
  }
  python.registerJsModule("_page", {fetch: getNow, engine: JSON.stringify(engine), folder: site,
    emit: output => say("output", {output: JSON.parse(output)})});
  session = python.runPython("from cs231n_lit import _browser; _browser.start()");
  attempt = python.runPython("_browser.attempt");
}

onmessage = async ({data}) => {
  if (data.engine) {
    engine = data.engine;
    try { await start(); say("ready"); } catch (error) { say("failed", {why: error.message}); }
    return;
  }
  for (const {id, name, code, exercise, module} of data.cells) {
    say("begin", {id});
    const begun = performance.now();
    let ok;
    try { ok = exercise ? attempt(session, code, exercise, module) : session.run(code, name); } catch (error) { return say("died", {why: error.message}); } // no memory, no stack
    say("end", {id, ok, seconds: (performance.now() - begun) / 1000});
  }
  say("idle");
};
