// Small comforts; every page works without them.
"use strict";

// While somebody is choosing, the rows stand still: nothing is to move from under a finger.
document.addEventListener("htmx:beforeRequest", (event) => {
  const rows = document.getElementById("rows");
  if (rows && event.detail.elt === rows && (document.hidden || rows.querySelector(":checked"))) event.preventDefault();
});

// Where the menu is wider than a phone, the page that is shown is in view.
addEventListener("DOMContentLoaded", () => {
  const here = document.querySelector("nav [aria-current]"), nav = here && here.parentElement;
  if (nav) nav.scrollLeft = here.offsetLeft + here.offsetWidth - nav.offsetLeft - nav.clientWidth;
});

// How many are chosen, beside the buttons that decide on them; and all at once.
document.addEventListener("change", (event) => {
  const all = document.getElementById("pick-all"), picks = [...document.querySelectorAll("input[name=hold]")];
  if (event.target === all) for (const pick of picks) pick.checked = all.checked;
  else if (!event.target.matches("input[name=hold]")) return;
  const chosen = picks.filter((pick) => pick.checked).length, said = document.getElementById("chosen");
  if (all) { all.checked = chosen === picks.length; all.indeterminate = chosen > 0 && chosen < picks.length; }
  if (said) said.textContent = chosen || "";
});
const shows = () => document.querySelectorAll("p.all[hidden]").forEach((all) => { all.hidden = false; });
addEventListener("DOMContentLoaded", shows);
document.addEventListener("htmx:afterSwap", shows);

// Writing into a field of the freeze chooses what the field is for.
document.addEventListener("input", (event) => {
  const row = event.target.closest("fieldset p");
  const choice = row && row.querySelector("input[type=radio][name=selector]");
  if (choice && choice !== event.target) choice.checked = true;
});

// A decision is sent once, however often the button is pressed. A form that makes a file leaves the page as it is, for the next.
document.addEventListener("submit", (event) => {
  if (event.target.matches(".saves")) return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
});
// What was typed into a form is kept by this tab until it is known to have arrived: where the session had ended, it leads to the
// sign-in, and stands there again as soon as the form does, for the same person alone. Passwords and codes are never kept.
const KEPT = "smtpguard-typed ";
document.addEventListener("submit", (event) => {
  const form = event.target, who = document.body.dataset.person;
  if (!who || form.method !== "post") return;
  const fields = [...form.elements].filter((f) => f.name && !["hidden", "password", "file", "submit"].includes(f.type) && f.autocomplete !== "one-time-code");
  const typed = fields.map((f) => [f.name, f.value, f.checked === true]);
  if (typed.length) sessionStorage.setItem(KEPT + form.getAttribute("action"), JSON.stringify({ who, typed }));
});
addEventListener("DOMContentLoaded", () => {
  const who = document.body.dataset.person;
  for (const key of Object.keys(sessionStorage).filter((each) => each.startsWith(KEPT))) {
    const kept = JSON.parse(sessionStorage.getItem(key));
    if (!who) {  // at the sign-in, or not signed in: it is waited for
      sessionStorage.setItem(key, JSON.stringify({ ...kept, ended: true }));
      for (const note of document.querySelectorAll("[data-kept]")) note.textContent = note.dataset.kept;
    } else if (!kept.ended || kept.who !== who || stands(key.slice(KEPT.length), kept.typed)) sessionStorage.removeItem(key);
  }
});
// Fill in what was typed into a form; whether the page has that form.
const stands = (action, typed) => {
  const form = [...document.forms].find((each) => each.getAttribute("action") === action && typed.every(([name]) => each.elements[name]));
  if (!form) return false;
  for (const [name, value, checked] of typed) {
    for (const field of form.querySelectorAll(`[name="${CSS.escape(name)}"]`)) {
      if (["checkbox", "radio"].includes(field.type)) { if (field.value === value) field.checked = checked; }
      else if (field.type !== "hidden") field.value = value;
    }
  }
  for (const folded of document.querySelectorAll("details")) if (folded.contains(form)) folded.open = true;
  const note = document.createElement("p");
  note.className = "note";
  note.setAttribute("role", "status");
  note.textContent = document.body.dataset.again;
  form.prepend(note);
  form.scrollIntoView({ block: "center" });
  return true;
};
// Back and Reload show how it stands now: they neither send a form again nor repeat what was done before.
addEventListener("DOMContentLoaded", () => {
  const answers = "posted" in document.body.dataset, here = new URL((answers && document.referrer) || location.href);
  if (!answers && !here.searchParams.has("done")) return;
  here.searchParams.delete("done");
  history.replaceState(null, "", here);
});
// What came of it is read out, and Tab goes on from there: a page does not announce what it has from the beginning.
addEventListener("DOMContentLoaded", () => {
  const told = document.querySelector("main .note[role=status], main [role=alert]");
  if (!told || document.querySelector("[autofocus]")) return;
  told.tabIndex = -1;
  told.focus();
});
// A form can be sent again where the page is shown again, and where the reader stopped the browser from sending it.
const free = () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent);
addEventListener("pageshow", free);
window.navigation?.addEventListener("navigateerror", free);

// Seconds that are left, beside the time that says it; when they are over, a page about one message shows how it stands now.
const ends = new WeakMap();
const count = () => {
  for (const each of document.querySelectorAll("[data-seconds]")) {
    if (!ends.has(each)) ends.set(each, performance.now() + each.dataset.seconds * 1000);
    const left = Math.ceil((ends.get(each) - performance.now()) / 1000), shown = Math.max(left, 0);
    each.textContent = `${Math.floor(shown / 60)}:${String(shown % 60).padStart(2, "0")}`;
    const typing = [...document.querySelectorAll("textarea")].some((field) => field.value !== field.defaultValue);
    if (left < -1 && each.closest(".leaving") && !typing) location.replace(location.pathname);
  }
};
addEventListener("DOMContentLoaded", count);
document.addEventListener("htmx:afterSwap", count);
setInterval(count, 1000);
