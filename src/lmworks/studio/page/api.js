// Requests to the server that the page came from.

// What the server refused. status: of HTTP, 0 where the server is not there; code: a word for programs; param: the
// field that it is about.
export class RequestError extends Error {
  constructor(message, status, code, param) {
    super(message);
    Object.assign(this, { name: "RequestError", status, code, param });
  }
}

// The JSON at a path, such as "/studio/api/runs".
export const get = (path) => answer(path, { method: "GET" });

// The JSON that answers a body: an object, or a File or Blob, which is sent as it is.
export const post = (path, body) => answer(path, request(body));

// Server-sent events of an answer; body null: a GET. onEvent(object) is called for each.
// Gives { done, stop }: done is a promise (of true when all came, false when stopped), stop() hangs up.
export function events(path, body, onEvent) {
  const control = new AbortController();
  const options = body === null ? { method: "GET" } : request(body);
  const done = stream(path, { ...options, signal: control.signal }, onEvent).catch((error) => {
    if (control.signal.aborted) return false;
    throw error;
  });
  return { done, stop: () => control.abort() };
}

function request(body) {
  if (body instanceof Blob) return { method: "POST", body, headers: { "Content-Type": "application/octet-stream" } };
  return { method: "POST", body: JSON.stringify(body ?? {}), headers: { "Content-Type": "application/json" } };
}

async function answer(path, options) {
  return (await checked(path, options)).json();
}

async function checked(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError("The server does not answer: is lmworks studio still running?", 0, "unreachable", null);
  }
  if (response.ok) return response;
  throw refusal(await response.json().catch(() => null), response.status);
}

function refusal(body, status) {
  const { message, code, param } = body?.error ?? {};
  return new RequestError(message ?? `The server answered with status ${status}.`, status, code ?? null, param ?? null);
}

async function stream(path, options, onEvent) {
  const response = await checked(path, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const blocks = (rest + (value ?? "")).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      const text = data.join("\n");
      if (text === "[DONE]") return true;
      if (!text) continue;
      const event = JSON.parse(text);
      if (event.error) throw refusal(event, response.status);
      onEvent(event);
    }
    if (done) throw new RequestError("The answer broke off.", 0, "cut", null);
  }
}
