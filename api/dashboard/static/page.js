// What every page does: it writes moments in the reader's zone, and refreshes the parts that are live.

const clock = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
  fractionalSecondDigits: 3, hourCycle: "h23",
});

/** Write each moment in `root` in the reader's zone. Its title keeps it in UTC. */
export function localize(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    const parts = Object.fromEntries(clock.formatToParts(moment).map((part) => [part.type, part.value]));
    const day = `${parts.year}-${parts.month}-${parts.day}`;
    time.textContent = `${day} ${parts.hour}:${parts.minute}:${parts.second}.${parts.fractionalSecond}`;
  }
}

/** Let the keyboard reach what must be scrolled to be read. */
function reach(root) {
  for (const region of root.querySelectorAll(".table, pre")) {
    if (region.scrollWidth > region.clientWidth || region.scrollHeight > region.clientHeight) region.tabIndex = 0;
    else region.removeAttribute("tabindex");
  }
}

const LIVE = "[data-live]";
let lastText = "";

/** Ask for this page again, and put its live parts in the place of the old ones. Return whether to go on. */
async function refresh(note) {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
  if (answer.status === 401) {
    note.textContent = "Your session has ended. Load the page again to sign in.";
    return false;
  }
  if (!answer.ok) throw new Error(`${answer.status}`);
  const text = await answer.text();
  note.textContent = "Live";
  if (text === lastText) return true;
  lastText = text;
  const fresh = new DOMParser().parseFromString(text, "text/html");
  localize(fresh);
  let goesOn = false;
  for (const part of document.querySelectorAll(LIVE)) {
    const replacement = fresh.getElementById(part.id);
    if (!replacement) continue;
    goesOn ||= replacement.dataset.live !== "no";
    // What the reader has opened stays open, and what they are typing in stays as it is.
    if (part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea, summary, button, a")) continue;
    const before = new Map([...part.querySelectorAll("details")].map((details) => [details.id, details.open]));
    for (const details of replacement.querySelectorAll("details")) details.open = before.get(details.id) ?? details.open;
    part.replaceWith(document.adoptNode(replacement));
  }
  reach(document);
  return goesOn;
}

/** Refresh the live parts while the page is visible, as long as the page says that something may still happen. */
async function live() {
  const first = document.querySelector(LIVE);
  const note = document.getElementById("live");
  if (!first || !note || first.dataset.live === "no") return;
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const visible = () => new Promise((done) => {
    if (!document.hidden) return done();
    document.addEventListener("visibilitychange", done, { once: true });
  });
  for (let goesOn = true; goesOn; ) {
    await pause(700);
    await visible();
    try {
      goesOn = await refresh(note);
    } catch {
      note.textContent = "Connection lost. Trying again …";
      await pause(1500);
    }
  }
}

localize(document);
reach(document);
addEventListener("resize", () => reach(document));
addEventListener("toggle", () => reach(document), true);
live();
