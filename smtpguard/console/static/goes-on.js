// A form that the reader has nothing to say to goes on by itself; without scripts there is its button.
document.querySelector("form[data-goes-on]")?.requestSubmit();
