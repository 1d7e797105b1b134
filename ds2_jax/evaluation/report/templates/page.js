"use strict";

// Tables: a click on a column's title sorts by that column, a second click reverses the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const numeric = head.classList.contains("number");
      const first = numeric ? "descending" : "ascending";
      const second = numeric ? "ascending" : "descending";
      const direction = head.getAttribute("aria-sort") === first ? second : first;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", direction);
      const value = (row) => row.cells[column].dataset.value;
      const compare = numeric ? (a, b) => value(a) - value(b) : (a, b) => value(a).localeCompare(value(b), undefined, { numeric: true });
      const sign = direction === "ascending" ? 1 : -1;
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => sign * compare(a, b)));
    });
  });
}

// Utterances: a cursor follows the sound and the current word is framed. A click on a recognised word plays from there; a
// click on another place moves the cursor there. Texts without a recording have none of this.
for (const utterance of document.querySelectorAll(".utterance:has(audio)")) {
  const audio = utterance.querySelector("audio");
  const timeline = utterance.querySelector(".timeline");
  const scroller = timeline.parentElement;
  const cursor = timeline.querySelector(".cursor");
  const words = [...timeline.querySelectorAll("button")];
  const seconds = Number(timeline.dataset.seconds);

  const show = () => {
    const time = audio.currentTime;
    cursor.style.left = `${Math.min(time / seconds, 1) * 100}%`;
    for (const word of words) {
      word.classList.toggle("now", time > 0 && word.dataset.start <= time && time < word.dataset.end);
    }
    if (!audio.paused) {
      const place = cursor.offsetLeft - scroller.scrollLeft;
      if (place < 0 || place > scroller.clientWidth * 0.9) {
        scroller.scrollLeft = cursor.offsetLeft - scroller.clientWidth * 0.1;
      }
    }
  };
  const follow = () => {
    show();
    if (!audio.paused) requestAnimationFrame(follow);
  };
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    follow();
  });
  for (const event of ["pause", "seeked", "timeupdate"]) audio.addEventListener(event, show);
  timeline.addEventListener("click", (event) => {
    const word = event.target.closest("button");
    const box = timeline.getBoundingClientRect();
    audio.currentTime = word ? Number(word.dataset.start) : ((event.clientX - box.left) / box.width) * seconds;
    if (word) audio.play();
  });
}
