// JSON held to a schema, which is checked while it is typed.

import { problemOf } from "./program.js";
import { counts, run, runner, tokenize } from "./tokens.js";

const element = (id) => document.getElementById(id);

const text = { type: "string", minLength: 1, maxLength: 120 };

const SCHEMA = {
  anyOf: [
    {
      type: "object",
      properties: { intent: { const: "PlayMusic" }, artist: text, genre: text, service: text },
      required: ["intent"],
      additionalProperties: false,
    },
    {
      type: "object",
      properties: { intent: { const: "GetWeather" }, city: text, timeRange: text },
      required: ["intent"],
      additionalProperties: false,
    },
  ],
};

export function startJson() {
  const schema = element("json-schema");
  const verdict = element("json-verdict");
  const problem = element("json-problem");
  let timer = null;
  let checking = null;

  const show = (text) => {
    verdict.textContent = text === null ? "✓ can be enforced" : "✗ cannot be enforced";
    verdict.className = `verdict ${text === null ? "good" : "bad"}`;
    problem.textContent = text ?? "";
    schema.setAttribute("aria-invalid", String(text !== null));
  };

  async function check() {
    checking?.abort();
    checking = new AbortController();
    try {
      JSON.parse(schema.value);
    } catch (error) {
      show(`not JSON: ${error.message}`);
      return;
    }
    try {
      show(await problemOf({ json_schema: schema.value }, checking.signal));
    } catch (error) {
      if (error.name !== "AbortError") show(error.message);
    }
  }

  schema.value = JSON.stringify(SCHEMA, null, 2);
  element("json-system").value = "Turn the utterance into JSON.";
  element("json-input").value = "play some jazz by Miles Davis";
  schema.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(check, 250);
  });
  document.getElementById("tab-json").addEventListener("click", check, { once: true });

  runner(element("json-form"), element("json-stop"), async (signal) => {
    const place = element("json-output");
    place.replaceChildren();
    element("json-value").textContent = "";
    const system = element("json-system").value;
    const messages = [{ role: "user", content: element("json-input").value }];
    if (system) messages.unshift({ role: "system", content: system });
    const prompt = await tokenize({ messages });
    const params = {
      temperature: Number(element("json-temperature").value), max_new_tokens: Number(element("json-max").value),
      json_schema: schema.value,
    };
    const last = await run(prompt.tokens, params, place, signal);
    try {
      element("json-value").textContent = JSON.stringify(JSON.parse(last.text), null, 2);
    } catch {
      element("json-value").textContent = "(cut before the end)";
    }
    return counts(last.meta_info);
  });
}
