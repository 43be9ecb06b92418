// What a signature's inputs are to a person.

const WHOLE = /^DT_U?INT\d+$/;
const IMAGE = /^image$|_bytes$/;

/**
 * The inputs by name, each {name, kind, dimensions}: kind is "image", "text", "string", "whole", "number" or "boolean",
 * dimensions are the sizes after the batch's, null where the batch has none.
 */
export function readInputs(signature) {
  const entries = Object.entries(signature.inputs).sort(([one], [other]) => (one < other ? -1 : 1));
  return entries.map(([name, info]) => {
    const { unknown_rank: unknown, dim = [] } = info.tensor_shape;
    const sizes = dim.map(({ size }) => Number(size));
    const dimensions = unknown ? [] : sizes.length ? sizes.slice(1) : null;
    return { name, kind: kindOf(name, info.dtype, dimensions, entries.length === 1), dimensions };
  });
}

/** Whether one example is a list of values, typed as JSON. */
export function isList({ dimensions }) {
  return dimensions !== null && dimensions.some((size) => size !== 1);
}

/** What may be typed, in words. */
export function hintOf(input) {
  const what = { whole: "whole number", number: "number", boolean: "true or false" }[input.kind] ?? "text";
  if (!isList(input)) return what;
  const sizes = input.dimensions.map((size) => (size < 0 ? "any number of" : size)).join(" × ");
  return `JSON list, ${sizes} values: ${what}`;
}

function kindOf(name, dtype, dimensions, alone) {
  if (dtype === "DT_BOOL") return "boolean";
  if (dtype !== "DT_STRING") return WHOLE.test(dtype) ? "whole" : "number";
  if (isList({ dimensions })) return "string";
  if (IMAGE.test(name)) return "image";
  return alone ? "text" : "string";
}
