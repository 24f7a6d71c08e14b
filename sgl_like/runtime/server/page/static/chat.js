// The chat: the conversation is kept as messages; each answer is shown token by token.

import { counts, run, runner, showPrompt, tokenize } from "./tokens.js";

const element = (id) => document.getElementById(id);

export function startChat() {
  const log = element("chat-log");
  element("chat-system").value = "Solve the puzzle.";
  element("chat-input").value = "Reach 17 with 3, 5, 2.";
  let messages = [];

  const turn = (who) => {
    const box = document.createElement("div");
    box.className = "turn";
    const name = document.createElement("div");
    name.className = "who";
    name.textContent = who;
    const text = document.createElement("div");
    text.className = "text";
    box.append(name, text);
    log.append(box);
    log.scrollTop = log.scrollHeight;
    return text;
  };

  element("chat-clear").addEventListener("click", () => {
    messages = [];
    log.replaceChildren();
    element("counts").textContent = "";
    element("chat-input").focus();
  });

  runner(element("chat-form"), element("chat-stop"), async (signal) => {
    const said = element("chat-input").value;
    const system = element("chat-system").value;
    const asked = [...messages, { role: "user", content: said }];
    const whole = system ? [{ role: "system", content: system }, ...asked] : asked;
    const prompt = await tokenize({ messages: whole });
    turn("you").textContent = said;
    const place = turn("model");
    element("chat-input").value = "";
    const params = {
      temperature: Number(element("chat-temperature").value), max_new_tokens: Number(element("chat-max").value),
    };
    const given = document.createElement("details");
    given.append(document.createElement("summary"), document.createElement("div"));
    given.lastChild.className = "text";
    place.before(given);
    const last = await run(prompt.tokens, params, place, signal, (info) => {
      given.firstChild.textContent = `prompt: ${info.cached_tokens} of ${info.prompt_tokens} tokens cached`;
      showPrompt(given.lastChild, prompt.token_strs, info.cached_tokens);
    });
    messages = [...asked, { role: "assistant", content: last.text }];
    const cut = last.meta_info.finish_reason?.type === "length" ? "; cut at the most tokens" : "";
    return counts(last.meta_info) + cut;
  });
}
