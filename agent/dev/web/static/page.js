"use strict";
// Loads this page again and replaces the parts that have changed. The form keeps its values.
const live = () => document.querySelectorAll("[data-live], select");
const shown = new Map([...live()].map((part) => [part.id, part.innerHTML]));

function put(part, fresh) {
  const focused = document.activeElement.id;
  const chosen = part.value;
  const open = [...part.querySelectorAll("details[open]")].map((one) => one.id);
  shown.set(part.id, fresh.innerHTML);
  part.replaceChildren(...fresh.childNodes);
  if (chosen) part.value = chosen;
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of live()) {
    const fresh = page.getElementById(part.id);
    if (fresh && fresh.innerHTML !== shown.get(part.id)) put(part, fresh);
  }
  document.title = page.title;
  document.getElementById("now").replaceWith(page.getElementById("now"));
  document.querySelector("main").dataset.active = page.querySelector("main").dataset.active;
}

async function keepFresh() {
  const lost = document.getElementById("lost");
  if (!document.hidden) {
    try {
      await refresh();
      lost.hidden = true;
    } catch {
      document.getElementById("last").textContent = document.getElementById("now").textContent;
      lost.hidden = false;
    }
  }
  const active = document.querySelector("main").dataset.active === "yes";
  setTimeout(keepFresh, active ? 1000 : 3000);
}

setTimeout(keepFresh, 1000);
