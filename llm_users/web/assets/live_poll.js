// Polls the state: every second while a test runs, otherwise every two seconds, not at all while the page is hidden,
// and with increasing intervals while there is no answer. Only one request is in flight at a time.
"use strict";

window.LLMPoll = (() => {
  const RUNNING_MS = 1000;
  const IDLE_MS = 2000;
  const SLOWEST_MS = 30_000;
  const PATIENCE_MS = 15_000;

  // ask() returns the address. answered(state) or failed(sentence, seconds until the next try) receives the result.
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
        const idle = ["ready", "stopped", "finished"].includes(state.state);
        wait = idle ? IDLE_MS : Math.min(IDLE_MS, Math.max(RUNNING_MS, 1000 * (state.interval_s || 0)));
      } catch (error) {
        wait = Math.min(SLOWEST_MS, RUNNING_MS * 2 ** ++failures);
        if (on) failed(sentence(error), wait / 1000);
      }
      busy = false;
      schedule(wait);
      if (on && state) answered(state); // outside of the try block: an error in drawing is not a failure of the server
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
    // Locust's login redirects to its own page.
    if (response.redirected || response.status === 401) throw new Error("signed out");
    if (!response.ok) throw new Error(`status ${response.status}`);
    return response.json();
  }

  function sentence(error) {
    if (error.message === "signed out") return "You are signed out. Reload the page to sign in again.";
    if (/^status/.test(error.message)) return `Locust answered with ${error.message}.`;
    return "Locust does not answer; the page shows the last state that it received.";
  }

  return { poller };
})();
