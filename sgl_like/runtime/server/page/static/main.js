// Tabs, the server's state, and the views.

import { get } from "./api.js";
import { startChat } from "./chat.js";
import { startJson } from "./json.js";
import { startLive } from "./live.js";
import { startProgram } from "./program.js";

const tabs = [...document.querySelectorAll("[role=tab]")];

function show(tab) {
  for (const each of tabs) {
    const chosen = each === tab;
    each.setAttribute("aria-selected", String(chosen));
    each.tabIndex = chosen ? 0 : -1;
    document.getElementById(each.getAttribute("aria-controls")).hidden = !chosen;
  }
  document.getElementById("legend").hidden = tab.id === "tab-live";
  document.getElementById("counts").textContent = "";
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
}

tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => show(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? tabs.length - 1 : step ? (i + step + tabs.length) % tabs.length : null;
    if (to === null) return;
    event.preventDefault();
    tabs[to].focus();
    tabs[to].click();
  });
});

async function lookAtState() {
  const place = document.getElementById("state");
  try {
    const response = await fetch("/readyz");
    const state = (await response.json()).status;
    place.textContent = state;
    place.className = `state ${state === "ready" ? "ready" : "bad"}`;
    const name = document.getElementById("model");
    if (response.ok && name.textContent === "…") name.textContent = (await get("/v1/models")).data[0].id;
  } catch {
    place.textContent = "not reachable";
    place.className = "state bad";
  }
  setTimeout(lookAtState, 3000);
}

startChat();
startProgram();
startJson();
startLive();
lookAtState();
const wanted = tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash);
if (wanted) wanted.click();
