// The page: what is chosen, what is in the form, what is asked and what comes back.

import { showAnswer } from "./answer.js";
import { showExplanation } from "./explanation.js";
import { makeFields } from "./fields.js";
import { readInputs } from "./inputs.js";
import { requestBody } from "./request_body.js";
import { listModels, predict, readExamples, readSignatures } from "./server.js";
import { SNIPPETS, shortened } from "./snippets.js";

const SIGNATURES = ["classify", "serving_default"];  // the first of these that a model has is asked

const byId = (id) => document.getElementById(id);
const tabs = [...document.querySelectorAll("[role=tab]")];

let models = [];
let asked = null;  // {signature, explains, inputs, fields, examples, missing} of the chosen version
let turn = 0;  // grows with every choice: what was asked for an earlier one is not shown any more
let position = 0;  // of the example that was put into the form last

start();

async function start() {
  byId("model").addEventListener("change", chooseModel);
  byId("version").addEventListener("change", chooseVersion);
  byId("form").addEventListener("submit", send);
  byId("explain").addEventListener("click", (event) => send(event, true));
  byId("form").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send(event);
  });
  byId("another").addEventListener("click", () => fill(position + 1));
  byId("clear").addEventListener("click", () => fill(null));
  byId("copy").addEventListener("click", copy);
  byId("save").addEventListener("click", save);
  tabs.forEach((tab) => tab.addEventListener("click", () => chooseTab(tab)));
  tabs[0].parentElement.addEventListener("keydown", moveAlongTabs);
  try {
    models = await listModels();
    byId("model").replaceChildren(...models.map(({ name }) => new Option(name)));
    await chooseModel();
  } catch (error) {
    tell("", error.message);
  }
}

async function chooseModel() {
  const { versions } = chosenModel();
  const options = versions.map(({ number }) => new Option(`Version ${number}`, `/versions/${number}`));
  const labels = versions.flatMap(({ number, labels }) =>
    labels.map((label) => new Option(`${label} (version ${number})`, `/labels/${escaped(label)}`)),
  );
  if (versions.length) options.unshift(new Option(`Newest (version ${versions[0].number})`, ""));
  byId("version").replaceChildren(...options, ...labels);
  await chooseVersion();
}

async function chooseVersion() {
  const mine = ++turn;
  asked?.fields.close();
  asked = null;
  byId("fields").replaceChildren();
  byId("answer").replaceChildren();
  byId("explain").hidden = true;
  tell("", "");
  try {
    const found = await readModel(chosenModel().name, chosenNumber());
    if (mine !== turn) return;
    asked = { ...found, fields: makeFields(byId("fields"), found.inputs, found.examples, changed) };
    byId("explain").hidden = !found.explains;
    byId("another").hidden = found.examples.length < 2;
    byId("empty-note").hidden = !found.inputs.some(({ kind, name }) => kind !== "image" && kind !== "text" && name in found.missing);
    fill(0);
  } catch (error) {
    if (mine === turn) tell("", error.message);
  }
  changed();
}

async function readModel(name, number) {
  if (number === null) throw new Error(`No version of ${name} is available: the server's log says why.`);
  const signatures = await readSignatures(name, number);
  const signature = SIGNATURES.find((candidate) => signatures[candidate]?.method_name.endsWith("/predict"));
  if (!signature) {
    const names = Object.keys(signatures).join(", ");
    throw new Error(`${name} has neither a signature classify nor serving_default that this page can ask; it has ${names}.`);
  }
  const inputs = readInputs(signatures[signature]);
  const explains = signatures.explain !== undefined && sameNames(readInputs(signatures.explain), inputs);
  return { signature, explains, inputs, ...(await readExamples(name, number, signature)) };
}

const sameNames = (one, other) => one.map(({ name }) => name).join() === other.map(({ name }) => name).join();

async function send(event, explain = false) {
  event.preventDefault();
  if (!asked || byId("send").ariaDisabled === "true") return;
  const mine = turn;
  byId("send").ariaDisabled = byId("explain").ariaDisabled = "true";
  byId("answer").replaceChildren();
  tell("Asking …", "");
  try {
    await asked.fields.ready();
    if (mine === turn) await sendFields(mine, explain);
  } catch (error) {
    if (mine === turn) tell("", error.message);
  } finally {
    byId("send").ariaDisabled = byId("explain").ariaDisabled = null;
  }
}

async function sendFields(mine, explain) {
  const unfilled = asked.fields.unfilled();
  if (unfilled) {
    unfilled.focus();
    throw new Error("Choose an image first.");
  }
  const fields = asked.fields.read();
  const request = explain ? requestBody("explain", asked.inputs, fields, asked.missing) : body();
  const answer = await predict(url(), request);
  if (mine !== turn) return;
  const [{ name, kind }] = asked.inputs;
  const { sentence, problem } = explain
    ? showExplanation(byId("answer"), answer, asked.inputs.length === 1 ? kind : "columns", fields[name]?.b64)
    : showAnswer(byId("answer"), answer);
  byId("answer").scrollIntoView({ block: "nearest" });
  tell(`${sentence} Answered in ${answer.milliseconds.toFixed(answer.milliseconds < 10 ? 1 : 0)} ms.`.trim(), problem);
}

/** Puts an example into the form; null empties it. */
function fill(index) {
  if (!asked) return;
  const { fields, examples } = asked;
  if (index !== null && examples.length) position = index % examples.length;
  fields.write((index !== null && examples[position]) || {});
  byId("answer").replaceChildren();
  tell("", "");
  changed();
}

function tell(sentence, problem) {
  byId("status").textContent = sentence;
  byId("problem").textContent = problem;
  byId("problem").hidden = !problem;
}

/** The code follows what is in the form. */
function changed() {
  byId("snippet").textContent = asked ? shortened(snippet()) : "";
  byId("copied").textContent = "";
}

function chooseTab(chosen) {
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", String(tab === chosen));
    tab.tabIndex = tab === chosen ? 0 : -1;
  }
  byId("snippet").setAttribute("aria-labelledby", chosen.id);
  changed();
}

function moveAlongTabs(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = tabs[(tabs.indexOf(chosenTab()) + step + tabs.length) % tabs.length];
  chooseTab(next);
  next.focus();
}

async function copy() {
  if (!asked) return;
  try {
    await navigator.clipboard.writeText(snippet());
    byId("copied").textContent = "Copied, whole.";
  } catch {
    byId("copied").textContent = "This browser does not let the page copy; save it as a file.";
  }
}

function save() {
  if (!asked) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([snippet()], { type: "text/plain" }));
  link.download = chosenSnippet().file;
  link.click();
  URL.revokeObjectURL(link.href);
}

const snippet = () => chosenSnippet().write(url(), body);
const chosenSnippet = () => SNIPPETS[chosenTab().id.replace("tab-", "")];
const chosenTab = () => tabs.find((tab) => tab.getAttribute("aria-selected") === "true");
const body = (translate) => requestBody(asked.signature, asked.inputs, asked.fields.read(), asked.missing, translate);
const chosenModel = () => models[byId("model").selectedIndex] ?? { name: "the model", versions: [] };
const url = () => new URL(`v1/models/${escaped(chosenModel().name)}${byId("version").value}:predict`, document.baseURI).href;
const escaped = (name) => encodeURIComponent(name).replaceAll("'", "%27");

/** The number of the version that is chosen, by itself, by a label or as the newest. */
function chosenNumber() {
  const { versions } = chosenModel();
  const value = byId("version").value;
  const chosen = versions.find(({ number, labels }) =>
    [`/versions/${number}`, ...labels.map((label) => `/labels/${escaped(label)}`)].includes(value),
  );
  return (chosen ?? versions[0])?.number ?? null;
}
