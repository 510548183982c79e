// Small comforts; every page works without them.
"use strict";

// While somebody is choosing, the rows stand still: nothing is to move from under a finger.
document.addEventListener("htmx:beforeRequest", (event) => {
  const rows = document.getElementById("rows");
  if (rows && event.detail.elt === rows && (document.hidden || rows.querySelector(":checked"))) event.preventDefault();
});

// How many are chosen, beside the buttons that decide on them.
document.addEventListener("change", (event) => {
  if (!event.target.matches("input[name=hold]")) return;
  const said = document.getElementById("chosen");
  if (said) said.textContent = document.querySelectorAll("input[name=hold]:checked").length || "";
});

// Writing into a field of the freeze chooses what the field is for.
document.addEventListener("input", (event) => {
  const row = event.target.closest("fieldset p");
  const choice = row && row.querySelector("input[type=radio][name=selector]");
  if (choice && choice !== event.target) choice.checked = true;
});

// A decision is sent once, however often the button is pressed.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
});
addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent));
