// A browser that obeys lines of JSON on stdin and answers each by one on stdout.
//
//   node browser.mjs MODULES CHROMIUM URL
//
// {"view": {"width", "height", "scheme"}}   opens the page again in a window of that size and colour scheme
// {"until": SENTENCE}                       waits until the headline contains SENTENCE; answers what the page says
// {"axe": true}                             the violations that axe-core finds
// {"keys": N}                               presses Tab N times; answers the ids of the elements with focus
// {"screenshot": FILE}                      writes a picture
// {"done": true}                            what the page loaded, and the errors it had
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [modules, executablePath, url] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { chromium } = require("playwright-core");
const { source: axe } = require("axe-core");

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
const loaded = new Set();
const errors = [];
let page;

const commands = {
  async view({ width, height, scheme }) {
    await page?.context().close();
    // The page's own policy forbids inline scripts, and so axe-core, which is brought in by the browser itself.
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
    page = await context.newPage();
    page.on("request", (request) => loaded.add(request.url()));
    page.on("console", (line) => line.type() === "error" && errors.push(line.text()));
    page.on("pageerror", (error) => errors.push(String(error)));
    await page.goto(url, { waitUntil: "load" });
    return true;
  },
  async until(sentence) {
    const said = (wanted) => document.getElementById("sentence").textContent.includes(wanted);
    await page.waitForFunction(said, sentence, { timeout: 20_000 });
    return page.evaluate(() => ({
      title: document.title,
      party: document.getElementById("summary").dataset.party,
      connection: document.getElementById("connection").textContent,
      text: document.body.innerText,
      timelines: [...document.querySelectorAll("#breakers svg")].map((svg) => ({
        label: svg.getAttribute("aria-label"),
        states: [...svg.querySelectorAll("rect")].map((rect) => rect.getAttribute("class")),
      })),
      overflow: document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth,
    }));
  },
  async axe() {
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
  },
  async keys(count) {
    const ids = [];
    for (let i = 0; i < count; i++) {
      await page.keyboard.press("Tab");
      ids.push(await page.evaluate(() => document.activeElement.id));
    }
    return ids;
  },
  async screenshot(path) {
    await page.screenshot({ path });
    return true;
  },
  async done() {
    return { loaded: [...loaded], errors };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [[name, argument]] = Object.entries(JSON.parse(line));
  let answer;
  try {
    answer = { answer: await commands[name](argument) };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
