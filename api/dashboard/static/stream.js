// The stream of live figures: one connection while the page is visible, and none while it is hidden.

// Milliseconds without an event after which the connection counts as lost.
const SILENCE_MS = 3000;
const RETRY_MS = 1500;

/** Connect to `url`, and call `on` with each event. `state` hears live, lost, hidden or ended. */
export function watch(url, { on, state }) {
  let source = null, heardAt = performance.now(), retry = 0;

  const close = () => { source?.close(); source = null; };

  const open = () => {
    close();
    clearTimeout(retry);
    if (document.hidden) return;
    heardAt = performance.now();
    source = new EventSource(url);
    for (const name of ["before", "figures", "unknown"]) {
      source.addEventListener(name, (event) => {
        heardAt = performance.now();
        state(name === "unknown" ? "unknown" : "live");
        on(name, JSON.parse(event.data));
      });
    }
    // The server ends each stream after some minutes, and at once when the session has ended.
    source.addEventListener("again", open);
    source.addEventListener("ended", () => { close(); state("ended"); });
    source.addEventListener("error", async () => {
      if (source?.readyState !== EventSource.CLOSED) return;
      close();
      if (await hasEnded()) return state("ended");
      retry = setTimeout(open, RETRY_MS);
    });
  };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { close(); state("hidden"); } else open();
  });
  addEventListener("pagehide", close);
  setInterval(() => {
    if (source && performance.now() - heardAt > SILENCE_MS) state("lost");
  }, 500);
  open();
}

async function hasEnded() {
  try {
    return (await fetch(location.href, { method: "HEAD", cache: "no-store" })).status === 401;
  } catch {
    return false;
  }
}
