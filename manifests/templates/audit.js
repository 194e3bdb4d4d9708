// The page says all without this; it lets a reader choose filters and write verdicts down.
"use strict";
const span = (hours) => {
  const seconds = 3600 * hours;
  if (seconds < 60) return seconds.toFixed(1) + "\u00a0s";
  if (seconds < 3600) return (seconds / 60).toFixed(1) + "\u00a0min";
  return (hours < 100 ? hours.toFixed(2) : Math.round(hours).toLocaleString("en")) + "\u00a0h";
};
const choice = document.getElementById("choice");
if (choice) {
  const { sets, all_h } = JSON.parse(document.getElementById("sets").textContent);
  const boxes = [...choice.querySelectorAll("input")];
  const show = () => {
    const on = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const kept = sets.filter((row) => !row.failed.some((name) => on.has(name))).reduce((sum, row) => sum + row.clip_h, 0);
    document.getElementById("kept").textContent = span(kept) + (all_h ? ` (${(100 * kept / all_h).toFixed(1)} %)` : "");
  };
  boxes.forEach((box) => box.addEventListener("change", show));
  choice.hidden = false;
  show();
}
const clips = [...document.querySelectorAll(".clip")];
if (clips.length) {
  const told = document.getElementById("told");
  const chosen = () => clips.map((clip) => [clip.dataset.clip, clip.querySelector("input:checked")]).filter(([, box]) => box);
  const count = () => { told.textContent = `${chosen().length} of ${clips.length} heard`; };
  clips.forEach((clip) => {
    clip.querySelector(".verdict").hidden = false;
    clip.addEventListener("change", count);
  });
  document.getElementById("tools").hidden = false;
  document.getElementById("save").addEventListener("click", () => {
    const listener = document.getElementById("listener").value;
    const lines = chosen().map(([clip_id, box]) => JSON.stringify({ clip_id, verdict: box.value, listener }) + "\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
    link.download = "verdicts.jsonl";
    link.click();
  });
  count();
}
