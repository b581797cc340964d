"use strict";
// Loads this page again and replaces the parts that have changed. The form keeps its values.
// A stop that was refused leaves the address of its form, which is no page.
if (location.pathname !== "/") history.replaceState(null, "", "/");
const live = () => document.querySelectorAll("[data-live], select");
const shown = new Map([...live()].map((part) => [part.id, part.innerHTML]));
const [lost, unsent, stale] = ["lost", "unsent", "stale"].map((each) => document.getElementById(each));
let isSending = false;

function put(part, fresh) {
  const focused = document.activeElement.id;
  const chosen = part.selectedOptions?.[0];
  const open = [...part.querySelectorAll("details[open]")].map((one) => one.id);
  shown.set(part.id, fresh.innerHTML);
  part.replaceChildren(...fresh.childNodes);
  // What was chosen stays, even if other agents are looked for now.
  if (chosen && !part.querySelector(`[value="${chosen.value}"]`)) part.append(chosen);
  if (chosen) part.value = chosen.value;
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

// Returns whether the Manager has answered with the page. One that hangs takes the request, but never answers it.
async function refresh() {
  const how = { headers: { Accept: "text/html", "X-Requested-With": "script" }, signal: AbortSignal.timeout(5000) };
  try {
    const asked = location.href;
    const answer = await fetch(asked, how);
    stale.hidden = answer.status !== 401;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    // Somebody types quickly, and answers overtake each other.
    if (asked !== location.href) return stale.hidden;
    document.getElementById("now").textContent = page.getElementById("now").textContent;
    document.title = page.title;
    for (const part of live()) {
      const fresh = page.getElementById(part.id);
      if (fresh && fresh.innerHTML !== shown.get(part.id)) put(part, fresh);
    }
    lost.hidden = unsent.hidden = true;
  } catch {
    lost.hidden = !stale.hidden;
  }
  return lost.hidden && stale.hidden;
}

async function keepFresh() {
  if (!document.hidden) await refresh();
  setTimeout(keepFresh, 1000);
}

// Sends a form once the Manager has answered: one that hangs would start the test when it wakes up.
async function send(event) {
  event.preventDefault();
  const form = event.target;
  if (form.method === "get") {
    history.replaceState(null, "", `?${new URLSearchParams(new FormData(form))}`);
    refresh();
  } else if (!isSending) {
    isSending = true;
    if (await refresh()) form.submit();
    else unsent.hidden = false;
    isSending = false;
  }
}

document.addEventListener("submit", send);
document.getElementById("find")?.addEventListener("input", (event) => event.target.form.requestSubmit());
setTimeout(keepFresh, 1000);
