// Asks for the state again and again: every second while a test runs, every two seconds else, not at all while nobody
// looks, and ever more seldom while nobody answers. One question at a time.
"use strict";

window.LLMPoll = (() => {
  const RUNNING_MS = 1000;
  const IDLE_MS = 2000;
  const SLOWEST_MS = 30_000;
  const PATIENCE_MS = 15_000;

  // ask() -> the address; answered(state) and failed(sentence, seconds until the next try) are told what came of it.
  function poller({ ask, answered, failed }) {
    let timer = null;
    let busy = false;
    let on = false;
    let failures = 0;

    async function poll() {
      timer = null;
      if (busy || !on || document.hidden) return;
      busy = true;
      let wait = IDLE_MS;
      let state = null;
      try {
        state = await fetched(ask());
        failures = 0;
        const idle = state.state === "ready" || state.state === "stopped";
        wait = idle ? IDLE_MS : Math.min(IDLE_MS, Math.max(RUNNING_MS, 1000 * (state.interval_s || 0)));
      } catch (error) {
        wait = Math.min(SLOWEST_MS, RUNNING_MS * 2 ** ++failures);
        if (on) failed(sentence(error), wait / 1000);
      }
      busy = false;
      schedule(wait);
      if (on && state) answered(state); // outside: an error in drawing is no failure of the server
    }

    function schedule(wait) {
      clearTimeout(timer);
      timer = on && !document.hidden ? setTimeout(poll, wait) : null;
    }

    const now = () => schedule(0);

    return {
      start() {
        if (on) return;
        on = true;
        document.addEventListener("visibilitychange", now);
        window.addEventListener("online", now);
        now();
      },
      stop() {
        on = false;
        clearTimeout(timer);
        document.removeEventListener("visibilitychange", now);
        window.removeEventListener("online", now);
      },
    };
  }

  async function fetched(address) {
    const response = await fetch(address, {
      cache: "no-store",
      credentials: "same-origin",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    // Locust's login answers with its own page, by way of a redirection.
    if (response.redirected || response.status === 401) throw new Error("signed out");
    if (!response.ok) throw new Error(`status ${response.status}`);
    return response.json();
  }

  function sentence(error) {
    if (error.message === "signed out") return "You are signed out. Reload the page to sign in again.";
    if (/^status/.test(error.message)) return `Locust answered with ${error.message}.`;
    return "Locust does not answer; what is shown is what it last said.";
  }

  return { poller };
})();
