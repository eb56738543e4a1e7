// Votes on their way. What was pressed stays here, through a refresh too, until the server says that it is on disk;
// it is sent again with the same request id, so it counts once however often it arrives.

const PATIENCE = 10_000; // ms for one answer
const PAUSES = [300, 600, 1200, 2500, 5000]; // ms between two tries

export class Refusal extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

// A shelf that lasts as long as the tab; where the browser has none, as long as the page.
export class Shelf {
  constructor(name) {
    this.name = name;
    this.kept = new Map();
  }
  get(key) {
    try {
      return JSON.parse(sessionStorage.getItem(`${this.name}_${key}`)) ?? this.kept.get(key) ?? null;
    } catch {
      return this.kept.get(key) ?? null;
    }
  }
  set(key, value) {
    this.kept.set(key, value);
    try {
      sessionStorage.setItem(`${this.name}_${key}`, JSON.stringify(value));
    } catch { /* full or forbidden: the page has it */ }
  }
  remove(key) {
    this.kept.delete(key);
    try {
      sessionStorage.removeItem(`${this.name}_${key}`);
    } catch { /* as above */ }
  }
}

export async function call(path, options = {}) {
  const answer = await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  const said = await answer.json().catch(() => ({}));
  throw new Refusal(answer.status, said.error ?? "the server does not understand this");
}

export const newId = () => {
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // randomUUID is for https only
  return [...bytes].map(byte => byte.toString(16).padStart(2, "0")).join("");
};

export class Outbox {
  // `waiting(tries, why)` is called after each try that failed.
  constructor(shelf, csrf, waiting) {
    this.shelf = shelf;
    this.csrf = csrf;
    this.waiting = waiting;
    addEventListener("beforeunload", event => this.entry && event.preventDefault());
  }

  get entry() {
    return this.shelf.get("outbox");
  }

  post(path, body) {
    const headers = { "Content-Type": "application/json", "X-CSRF-Token": this.csrf };
    return call(path, { method: "POST", headers, body: JSON.stringify(body) });
  }

  send(kind, body) {
    this.shelf.set("outbox", { kind, body: { request: newId(), ...body } });
    return this.resume();
  }

  // Sends what is there until it is answered. What the server refuses for good is given up, and thrown.
  async resume() {
    const { kind, body } = this.entry;
    for (let tries = 0; ; tries++) {
      try {
        const result = await this.post(`/api/${kind}`, body);
        this.shelf.remove("outbox");
        return { kind, body, result };
      } catch (error) {
        const status = error instanceof Refusal ? error.status : 0;
        if (status >= 400 && status < 500 && status !== 429) {
          if (status !== 401 && status !== 403) this.shelf.remove("outbox"); // signed in again, it is sent then
          throw error;
        }
        this.waiting(tries + 1, status ? error.message : "the server does not answer");
        await pause(PAUSES[Math.min(tries, PAUSES.length - 1)]);
      }
    }
  }
}

export const pause = ms => new Promise(done => {
  const end = () => { clearTimeout(timer); removeEventListener("online", end); done(); };
  const timer = setTimeout(end, ms);
  addEventListener("online", end);
});
