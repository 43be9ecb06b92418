// What the server is asked. Every failure is an Error with a message for people.

export async function listModels() {
  return (await ask("playground/models")).document.models;
}

export async function readSignatures(model, version) {
  const { document } = await ask(`v1/models/${encodeURIComponent(model)}/versions/${version}/metadata`);
  return document.metadata.signature_def.signature_def;
}

/** Rows of field contents to start from, and the JSON text that each empty field is sent as. */
export async function readExamples(model, version, signature) {
  return (await ask(`playground/examples?${new URLSearchParams({ model, version, signature })}`)).document;
}

/** The answer as {document, text, milliseconds}; the time is that from the first byte sent to the last one received. */
export async function predict(url, body) {
  return ask(url, { method: "POST", headers: { "Content-Type": "application/json" }, body });
}

async function ask(url, options) {
  const started = performance.now();
  let response, text;
  try {
    response = await fetch(url, options);
    text = await response.text();
  } catch {
    throw new Error(`The server does not answer at ${location.origin}. Is it still running?`);
  }
  const milliseconds = performance.now() - started;
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    throw new Error(`The server answered with status ${response.status} and what is no JSON: ${text.slice(0, 300)}`);
  }
  if (!response.ok) throw new Error(`The server refused the request (${response.status}): ${document.error ?? text}`);
  return { document, text, milliseconds };
}
