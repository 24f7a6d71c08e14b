// Generation that shows every token for what it was: cached, computed, sampled or forced.

import { events, post } from "./api.js";

export async function tokenize(body) {
  return (await post("/tokenize", { ...body, return_token_strs: true })).json();
}

export function tokenSpan(text, kind, title) {
  const span = document.createElement("span");
  span.className = `token ${kind}`;
  if (/^<.*>$/.test(text)) span.classList.add("special");
  span.textContent = text;
  if (title) span.title = title;
  return span;
}

// Prompt tokens, of which the first `cached` need not have been computed.
export function showPrompt(place, pieces, cached) {
  place.replaceChildren(...pieces.map((piece, i) => tokenSpan(piece, i < cached ? "cached" : "computed")));
}

// Run a request on the ids of a prompt. Appends tokens to `place` as they come; gives back ids, text and counts.
export async function run(ids, params, place, signal, onStart = () => {}) {
  let shown = 0;
  let last = null;
  const body = {
    input_ids: ids, sampling_params: params, return_logprob: true, return_text_in_logprobs: true, logprob_start_len: -1,
  };
  for await (const event of events("/generate", body, signal)) {
    if (last === null) onStart(event.meta_info);
    last = event;
    const tokens = event.meta_info.output_token_logprobs ?? [];
    const forced = new Set(event.meta_info.forced_positions ?? []);
    for (; shown < tokens.length; shown++) {
      const [logprob, id, text] = tokens[shown];
      const kind = forced.has(shown) ? "forced" : "sampled";
      const chance = logprob === null ? "" : `, probability ${Math.exp(logprob).toFixed(3)}`;
      place.append(tokenSpan(text, kind, `${kind}, token ${id}${chance}`));
    }
    place.scrollTop = place.scrollHeight;
  }
  return last;
}

export function counts(meta) {
  const forced = meta.forced_tokens ?? 0;
  return `prompt ${meta.prompt_tokens} tokens, ${meta.cached_tokens} cached; output ${meta.completion_tokens}, `
    + `${forced} forced; ${(meta.e2e_latency ?? 0).toFixed(2)} s`;
}

// Buttons of a form while something runs: one run at a time, Stop ends it.
export function runner(form, stop, work) {
  let controller = null;
  const button = form.querySelector("button.primary");
  stop.addEventListener("click", () => controller?.abort());
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (controller) return;
    controller = new AbortController();
    button.disabled = true;
    stop.disabled = false;
    const count = document.getElementById("counts");
    count.textContent = "";
    try {
      count.textContent = (await work(controller.signal)) ?? "";
    } catch (error) {
      count.textContent = error.name === "AbortError" ? "stopped" : `error: ${error.message}`;
    } finally {
      controller = null;
      button.disabled = false;
      stop.disabled = true;
    }
  });
}
