// Opens pages in a headless Chromium and prints as JSON what a test wants to know of them.
// node drive.mjs CHROMIUM PROFILE-DIRECTORY URL-OF-THE-LIST URL-OF-A-RUN
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [program, profile, list, run] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = spawn(
  program,
  ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
    `--user-data-dir=${profile}`, "about:blank"],
  { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] },
);
process.on("exit", () => browser.kill("SIGKILL"));
browser.on("error", (error) => { console.error(String(error)); process.exit(1); });

// The protocol of the developer tools over two pipes: JSON, with a zero byte after each.
let last = 0;
let rest = Buffer.alloc(0);
const answers = new Map();
const errors = [];
let loaded = () => {};
browser.stdio[4].on("data", (bytes) => {
  rest = Buffer.concat([rest, bytes]);
  for (let end; (end = rest.indexOf(0)) >= 0; rest = rest.subarray(end + 1)) {
    take(JSON.parse(rest.subarray(0, end).toString()));
  }
});

function take({ id, error, result, method, params }) {
  if (id !== undefined) {
    const { resolve, reject } = answers.get(id);
    answers.delete(id);
    if (error) reject(new Error(error.message)); else resolve(result);
  }
  if (method === "Page.loadEventFired") loaded();
  if (method === "Runtime.exceptionThrown") errors.push(JSON.stringify(params.exceptionDetails));
  if (method === "Runtime.consoleAPICalled") errors.push(JSON.stringify(params.args));
  if (method === "Log.entryAdded") errors.push(params.entry.text);
}

let sessionId;
function call(method, params = {}) {
  const id = ++last;
  browser.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
  return new Promise((resolve, reject) => answers.set(id, { resolve, reject }));
}

async function evaluate(expression) {
  const { result, exceptionDetails } =
    await call("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
  if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
  return result.value;
}

async function open(url, scheme, width) {
  await call("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  await call("Emulation.setDeviceMetricsOverride",
    { width, height: 800, deviceScaleFactor: 1, mobile: width < 500 });
  const ready = new Promise((resolve) => { loaded = resolve; });
  await call("Page.navigate", { url });
  await ready;
}

// What axe-core finds serious.
async function found() {
  await evaluate(axe);
  return evaluate(`axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, nodes }) => id + ": " + nodes.map(({ html }) => html).join(" ").slice(0, 500)))`);
}

// The rows of a table that are shown, by their first cell.
const rows = (table) => evaluate(
  `[...document.querySelector("#${table}").tBodies[0].rows].filter((row) => row.getClientRects().length)
    .map((row) => row.cells[0].firstChild.textContent)`);

const told = { violations: [], wider: [] };
const { targetId } = await call("Target.createTarget", { url: "about:blank" });
({ sessionId } = await call("Target.attachToTarget", { targetId, flatten: true }));
for (const domain of ["Page", "Runtime", "Log"]) await call(`${domain}.enable`);

for (const [url, scheme, width] of [[list, "light", 1200], [list, "dark", 390], [run, "dark", 390], [run, "light", 1200]]) {
  await open(url, scheme, width);
  told.violations.push(...await found());
  const over = await evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
  if (over > 0) told.wider.push(`${url} at ${width}: ${over}`);
}
// The style was let in.
told.tabular = await evaluate(`getComputedStyle(document.querySelector("td.n")).textAlign`);
told.heat = await evaluate(`[...document.querySelector("#heat").tBodies[0].rows].map((row) =>
  [...row.cells].map((cell) => cell.textContent + (cell.className.startsWith("c ") ? " " + cell.className : "")).join("|"))`);
told.bars = await evaluate(`document.querySelectorAll(".timeline rect").length`);
// With the keyboard: the button of a column has the focus, and Enter presses it.
await evaluate(`document.querySelector("#jobs thead button").focus()`);
const enter = { key: "Enter", code: "Enter", windowsVirtualKeyCode: 13, text: "\r" };
const press = async () => {
  await call("Input.dispatchKeyEvent", { type: "keyDown", ...enter });
  await call("Input.dispatchKeyEvent", { type: "keyUp", ...enter });
};
await press();
told.descending = await rows("jobs");
await press();
told.ascending = await rows("jobs");
await evaluate(`[...document.querySelectorAll("#heat thead button")][1].click()`);
told.costly = await rows("heat");
await evaluate(`{ const input = document.querySelector("#filter-heat"); input.value = "CRATE-3";
  input.dispatchEvent(new Event("input")); }`);
told.filtered = await rows("heat");
told.count = await evaluate(`document.querySelector("output[for=filter-heat]").textContent`);
told.errors = errors;
console.log(JSON.stringify(told));
process.exit(0);
