// Programs: text with calls in it. A call goes on from the token ids before it, never from their text.

import { post } from "./api.js";
import { counts, run, runner, showPrompt, tokenSpan, tokenize } from "./tokens.js";

const element = (id) => document.getElementById(id);
const CALL = /\{\{\s*(gen|select)\s+([A-Za-z_]\w*)((?:\s+(?:\w+\s*=\s*)?(?:"(?:[^"\\]|\\.)*"|[^\s"{}]+))*)\s*\}\}/g;
const ARGUMENT = /(?:(\w+)\s*=\s*)?("(?:[^"\\]|\\.)*"|[^\s"{}]+)/g;
const NAMES = { max: "max_new_tokens", stop: "stop", regex: "regex", temperature: "temperature", top_p: "top_p", seed: "sampling_seed" };

export const EXAMPLE = `<|system|>Turn the utterance into JSON.<|end|><|user|>will it rain in Oslo tomorrow<|end|><|assistant|>{"intent":"{{select intent "PlayMusic" "GetWeather" "BookRestaurant"}}","city":"{{gen city max=12 regex="[A-Z][a-z]+"}}"}`;

// A program as a list of texts and calls. Throws an Error that says what is wrong.
export function parse(source) {
  const steps = [];
  let at = 0;
  for (const match of source.matchAll(CALL)) {
    if (match.index > at) steps.push({ text: source.slice(at, match.index) });
    steps.push(call(match[1], match[2], match[3]));
    at = match.index + match[0].length;
  }
  if (at < source.length) steps.push({ text: source.slice(at) });
  for (const { text } of steps) {
    if (text?.includes("{{")) throw new Error(`not a call: ${text.slice(text.indexOf("{{"), text.indexOf("{{") + 40)}`);
  }
  return steps;
}

function call(kind, name, source) {
  const plain = [];
  const params = { temperature: 0, max_new_tokens: 64 };
  for (const [, key, raw] of source.matchAll(ARGUMENT)) {
    const value = raw.startsWith('"') ? string(raw) : Number.isNaN(Number(raw)) ? raw : Number(raw);
    if (!key) plain.push(String(value));
    else if (NAMES[key]) params[NAMES[key]] = value;
    else throw new Error(`${kind} ${name}: unknown argument ${key}; known are ${Object.keys(NAMES).join(", ")}`);
  }
  if (kind === "select") {
    if (plain.length < 2) throw new Error(`select ${name}: at least two choices`);
    return { name, choices: plain };
  }
  if (plain.length) throw new Error(`gen ${name}: arguments have names, such as max=16`);
  return { name, params };
}

function string(raw) {
  try {
    return JSON.parse(raw);
  } catch {
    throw new Error(`${raw}: write a backslash as two, as in JSON`);
  }
}

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

export function startProgram() {
  element("program-text").value = EXAMPLE;
  const place = element("program-output");
  const table = element("program-values");
  runner(element("program-form"), element("program-stop"), async (signal) => {
    const steps = parse(element("program-text").value);
    place.replaceChildren();
    table.tBodies[0].replaceChildren();
    table.hidden = true;
    let ids = [];
    let pending = "";
    let meta = null;
    for (const step of steps) {
      if (step.text !== undefined) {
        pending += step.text;
        continue;
      }
      const pieces = pending ? await tokenize({ prompt: pending, add_special_tokens: ids.length === 0 }) : { tokens: [], token_strs: [] };
      pending = "";
      const before = ids.length;
      ids = [...ids, ...pieces.tokens];
      const added = document.createElement("span");
      place.append(added);
      const params = step.params ?? { temperature: 0, max_new_tokens: 64, regex: step.choices.map(escaped).join("|") };
      const last = await run(ids, params, place, signal, (info) => showPrompt(added, pieces.token_strs, info.cached_tokens - before));
      meta = last.meta_info;
      const ended = typeof meta.finish_reason?.matched === "number"; // by a token, which is no part of the value
      ids = [...ids, ...(ended ? last.output_ids.slice(0, -1) : last.output_ids)];
      addValue(table, step.name, last);
    }
    if (pending) place.append(tokenSpan(pending, "computed", "text after the last call"));
    return meta ? counts(meta) : "the program has no call";
  });
}

function addValue(table, name, last) {
  const meta = last.meta_info;
  const row = table.tBodies[0].insertRow();
  const texts = [name, last.text, `${meta.cached_tokens} / ${meta.prompt_tokens}`, `${meta.forced_tokens ?? 0} / ${meta.completion_tokens}`];
  for (const text of texts) row.insertCell().textContent = text;
  table.hidden = false;
}

// Whether the server can hold an output to a constraint: null, or what is wrong with it.
export async function problemOf(constraint, signal) {
  const answer = await (await post("/constraints/check", constraint, signal)).json();
  return answer.problem;
}
