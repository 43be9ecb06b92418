// The body of a request, as text: numbers go out as they were typed, however many digits they have.

import { isList } from "./inputs.js";

/**
 * The request as JSON, or as another language's literal where `translate` makes that language's of JSON's values.
 * `fields` are what the form holds, by input; `missing` is the JSON text of an empty field, by input.
 */
export function requestBody(signature, inputs, fields, missing, translate = (json) => json) {
  const lines = inputs.map((input) => {
    const value = batchOfOne(input, translate(valueOf(input, fields[input.name], missing[input.name])));
    return `    ${JSON.stringify(input.name)}: ${value}`;
  });
  const name = signature === "serving_default" ? "" : `  "signature_name": ${JSON.stringify(signature)},\n`;
  return `{\n${name}  "inputs": {\n${lines.join(",\n")}\n  }\n}`;
}

function valueOf(input, field, missing) {
  if (typeof field !== "string") return `{"b64": "${field?.b64 ?? ""}"}`;
  const typed = field.trim();
  if (typed === "" && missing !== undefined) return missing;
  const quoted = (input.kind === "text" || input.kind === "string") && !isList(input);
  return quoted || !isJson(typed) ? JSON.stringify(field) : typed;  // what is no number, the server is to refuse
}

function batchOfOne({ dimensions }, value) {
  if (dimensions === null) return value;
  const depth = dimensions.some((size) => size !== 1) ? 1 : 1 + dimensions.length;
  return "[".repeat(depth) + value + "]".repeat(depth);
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
