// A chat completion as a stream: server-sent events, and errors in plain words.

const PLAIN = {
  400: "The server rejected this request.",
  401: "The API key is not accepted.",
  403: "This API key may not use this model.",
  404: "This model is not served here.",
  413: "The conversation is too long to send.",
  422: "The server rejected this request.",
  429: "Too many requests at the moment.",
  500: "The model's server failed.",
  502: "The model's server failed while it processed the request.",
  503: "The model cannot be served at the moment.",
  504: "The model did not respond in time.",
};
const MAX_DETAIL = 500;

/** An error for people. `status`: of the response; 0 without one. */
export class ChatError extends Error {
  constructor(message, detail = "", status = 0) {
    super(message);
    this.detail = detail.length > MAX_DETAIL ? `${detail.slice(0, MAX_DETAIL)}…` : detail;
    this.status = status;
  }
}

/** Parse server-sent events as the HTML standard specifies, from pieces of any size. */
export class EventParser {
  constructor() {
    this.rest = "";
    this.data = [];
  }

  /** Yield {data} for each event, and {comment} for each comment. */
  *push(text) {
    this.rest += text;
    let start = 0;
    // A CR at the end may be the first half of CRLF.
    for (const match of this.rest.matchAll(/\r\n|\n|\r(?!$)/g)) {
      yield* this.line(this.rest.slice(start, match.index));
      start = match.index + match[0].length;
    }
    this.rest = this.rest.slice(start);
  }

  *line(line) {
    if (line === "") {
      if (this.data.length) yield { data: this.data.join("\n") };
      this.data = [];
    } else if (line.startsWith(":")) {
      yield { comment: line.slice(1).trim() };
    } else if (line === "data" || line.startsWith("data:")) {
      this.data.push(line.slice(line[5] === " " ? 6 : 5));
    }
  }
}

/**
 * Request a completion, and yield what arrives: {comment}, {reasoning}, {text}, {finish}, {usage}.
 * Throws ChatError, or an AbortError when `signal` is aborted.
 */
export async function* complete(model, messages, headers, signal) {
  const response = await request(model, messages, headers, signal);
  if (!response.ok) throw await errorOf(response);
  const type = response.headers.get("Content-Type") ?? "";
  if (!type.startsWith("text/event-stream")) {
    const tree = await response.json().catch(() => null);
    if (!tree?.choices) throw new ChatError("The response is not a chat completion.");
    yield* parts(tree);
    return;
  }
  const parser = new EventParser();
  let finished = false;
  for await (const text of decoded(response.body, signal)) {
    for (const event of parser.push(text)) {
      if ("comment" in event) {
        yield event;
      } else if (event.data === "[DONE]") {
        return;
      } else {
        for (const part of parts(parse(event.data))) {
          finished ||= "finish" in part;
          yield part;
        }
      }
    }
  }
  if (!finished) throw new ChatError("The response ended early.", "The connection was closed.");
}

async function request(model, messages, headers, signal) {
  const body = { model, messages, stream: true, stream_options: { include_usage: true } };
  try {
    return await fetch("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers },
      body: JSON.stringify(body),
      credentials: "omit",
      signal,
    });
  } catch (error) {
    throw signal.aborted ? error : new ChatError("The gateway cannot be reached.");
  }
}

async function* decoded(body, signal) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield decoder.decode(value, { stream: true });
    }
  } catch (error) {
    throw signal.aborted ? error : new ChatError("The connection was lost.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new ChatError("The response is not valid.", data);
  }
}

function* parts(tree) {
  if (tree.error) throw describe(tree.error, 0);
  if (tree.usage) yield { usage: tree.usage };
  const choice = tree.choices?.[0];
  const message = choice?.delta ?? choice?.message;
  const reasoning = message?.reasoning_content ?? message?.reasoning;
  if (typeof reasoning === "string" && reasoning) yield { reasoning };
  if (typeof message?.content === "string" && message.content) yield { text: message.content };
  if (choice?.finish_reason) yield { finish: choice.finish_reason };
}

async function errorOf(response) {
  const text = await response.text().catch(() => "");
  let error = null;
  try {
    error = JSON.parse(text).error;
  } catch {
    // A proxy's page, for example.
  }
  const described = describe(error ?? {}, response.status);
  const seconds = Number(response.headers.get("Retry-After"));
  if (seconds > 0) described.message += ` Try again in ${seconds} s.`;
  return described;
}

function describe(error, status) {
  const detail = typeof error === "string" ? error : (error.message ?? "");
  const code = status || (typeof error.code === "number" ? error.code : 0);
  return new ChatError(PLAIN[code] ?? "The model's server reported an error.", String(detail), status);
}
