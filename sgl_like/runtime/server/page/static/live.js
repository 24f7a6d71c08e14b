// The live view: what the engine does now, read once a second while it is shown.

import { get } from "./api.js";

const element = (id) => document.getElementById(id);
const LENGTH = 120;
const NUMBER = new Intl.NumberFormat("en");
const CHARTS = [
  ["tokens", "Tokens per second"], ["running", "Running requests"], ["waiting", "Waiting requests"], ["kv", "KV cache in use, %"],
];

const history = Object.fromEntries(CHARTS.map(([key]) => [key, []]));
let before = null;

function card(name, value) {
  const box = document.createElement("div");
  box.className = "card";
  const strong = document.createElement("b");
  strong.textContent = value;
  box.append(strong, name);
  return box;
}

function chart(title, values) {
  const top = Math.max(1, ...values);
  const points = values.map((value, i) => `${(LENGTH - values.length + i).toFixed(0)},${(40 - (38 * value) / top).toFixed(1)}`);
  const first = LENGTH - values.length;
  const box = document.createElement("div");
  box.className = "chart";
  const now = values.at(-1) ?? 0;
  box.innerHTML = `<span class="muted"></span><svg viewBox="0 0 ${LENGTH} 40" preserveAspectRatio="none" role="img">`
    + `<path class="area" d="M${first},40 L${points.join(" L")} L${LENGTH - 1},40 Z"/><path class="line" d="M${points.join(" L")}"/></svg>`;
  const most = NUMBER.format(Math.round(Math.max(0, ...values)));
  const label = `${title}: ${NUMBER.format(Math.round(now))} (most ${most})`;
  box.firstChild.textContent = label;
  box.querySelector("svg").setAttribute("aria-label", label);
  return box;
}

function keep(key, value) {
  history[key].push(value);
  if (history[key].length > LENGTH) history[key].shift();
}

function showStats(stats, seconds) {
  const produced = (each) => each.sampled_tokens + each.forced_tokens;
  const rate = before ? (stats.computed_tokens - before.computed_tokens) / seconds : 0;
  const used = stats.kv_slots - stats.kv_free;
  keep("tokens", Math.max(0, rate));
  keep("running", stats.running_requests);
  keep("waiting", stats.waiting_requests);
  keep("kv", (100 * used) / stats.kv_slots);
  element("live-cards").replaceChildren(
    card("tokens per second", NUMBER.format(Math.round(Math.max(0, rate)))),
    card("running / waiting", `${stats.running_requests} / ${stats.waiting_requests}`),
    card("requests finished", NUMBER.format(stats.finished_requests)),
    card("prompt tokens from the cache", `${stats.prompt_tokens ? Math.round((100 * stats.cached_tokens) / stats.prompt_tokens) : 0} %`),
    card("output tokens forced", `${produced(stats) ? Math.round((100 * stats.forced_tokens) / produced(stats)) : 0} %`),
    card("tokens evicted", NUMBER.format(stats.kv_evicted)),
  );
  element("live-charts").replaceChildren(...CHARTS.map(([key, title]) => chart(title, history[key])));
  showKv(stats);
  before = stats;
}

function showKv(stats) {
  const locked = stats.kv_locked ?? 0;
  const running = stats.kv_slots - stats.kv_free - stats.kv_evictable - locked;
  const parts = [["running", running, "running"], ["locked", locked, "shared by running"], ["reusable", stats.kv_evictable, "reusable"]];
  const bar = element("live-kv");
  bar.replaceChildren(...parts.filter(([, count]) => count > 0).map(([kind, count, name]) => {
    const part = document.createElement("span");
    part.className = kind;
    part.style.width = `${(100 * count) / stats.kv_slots}%`;
    part.textContent = `${name} ${NUMBER.format(count)}`;
    part.title = `${name}: ${NUMBER.format(count)} tokens`;
    return part;
  }));
  bar.setAttribute("aria-label", `${parts.map(([, count, name]) => `${name} ${count}`).join(", ")}, free ${stats.kv_free} of ${stats.kv_slots} tokens`);
}

function showTree(tree) {
  const lists = [element("tree")];
  lists[0].replaceChildren();
  const most = Math.max(1, ...tree.nodes.map((node) => node.hits));
  tree.nodes.forEach((node, i) => {
    const item = document.createElement("li");
    item.setAttribute("role", "treeitem");
    const box = document.createElement("div");
    box.className = "node";
    box.classList.toggle("locked", node.locks > 0);
    box.classList.toggle("hot", node.locks === 0 && node.hits > most / 4);
    const facts = document.createElement("span");
    facts.className = "facts";
    facts.textContent = ` ${node.tokens} ${node.tokens === 1 ? "token" : "tokens"}, used ${node.hits} times${node.locks ? `, held by ${node.locks}` : ""}${node.pinned ? ", pinned" : ""}`;
    box.append(JSON.stringify(node.text).slice(1, -1) || "·", facts);
    const below = document.createElement("ul");
    below.setAttribute("role", "group");
    item.append(box, below);
    lists[i + 1] = below;
    lists[node.parent + 1].append(item);
  });
  document.querySelectorAll("#tree ul:empty").forEach((list) => list.remove());
  element("tree-summary").textContent = `${NUMBER.format(tree.total_nodes)} nodes, ${NUMBER.format(tree.total_tokens)} tokens`
    + (tree.nodes.length < tree.total_nodes ? `; the ${tree.nodes.length} most used are shown` : "");
  element("evicted").replaceChildren(...tree.evicted.map((each) => {
    const item = document.createElement("li");
    item.textContent = `${JSON.stringify(each.text).slice(1, -1)} (${each.tokens} tokens, ${each.seconds_ago.toFixed(0)} s ago)`;
    return item;
  }));
}

export function startLive() {
  let last = 0;
  async function look() {
    if (!element("live").hidden && !document.hidden) {
      try {
        const view = await get("/debug/tree");
        const now = performance.now();
        showStats(view.stats, (now - last) / 1000);
        last = now;
        showTree(view.tree);
        element("live-problem").textContent = "";
      } catch (error) {
        element("live-problem").textContent = error.status === 401 || error.status === 403
          ? "This view needs the admin key." : error.message;
      }
    }
    setTimeout(look, 1000);
  }
  look();
}
