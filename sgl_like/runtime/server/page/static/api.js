// Calls to the server that this page came from. The browser itself asks for the API key, if there is one.

export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function failed(response) {
  let message = `${response.status} ${response.statusText}`;
  try {
    const body = await response.json();
    message = body.error?.message ?? message;
  } catch { /* not JSON: the status has to do */ }
  return new ServerError(response.status, message);
}

export async function get(path, signal) {
  const response = await fetch(path, { signal });
  if (!response.ok) throw await failed(response);
  return response.json();
}

export async function post(path, body, signal) {
  const response = await fetch(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
  });
  if (!response.ok) throw await failed(response);
  return response;
}

// The data of each server-sent event, parsed, until [DONE] or the end.
export async function* events(path, body, signal) {
  const response = await post(path, { ...body, stream: true }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const data = part.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
        if (data === "[DONE]") return;
        if (!data) continue; // a comment that keeps the connection open
        const event = JSON.parse(data);
        if (event.error) throw new ServerError(event.error.code ?? 500, event.error.message);
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
