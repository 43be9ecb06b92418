// The form's fields, one for each input of a signature.

import { fieldElement } from "./field_element.js";
import { imageField } from "./image_field.js";
import { hintOf, isList } from "./inputs.js";

const SUGGESTED_VALUES = 12;  // a column with more different values among the examples is no choice among a few

/**
 * Fills `container`, and answers {read, write, ready, unfilled, close}: the content of every field by input, a new content
 * for all of them, a promise that what was chosen is read, the first control that has to be filled before anything can be
 * sent, and the end. `changed` is called on every change.
 */
export function makeFields(container, inputs, examples, changed) {
  container.replaceChildren();
  const fields = new Map(
    inputs.map((input, position) => {
      const make = input.kind === "image" ? imageField : textField;
      const field = make(input, `input-${position}`, changed, choices(input, examples));
      container.append(field.element);
      return [input.name, field];
    }),
  );
  return {
    read: () => Object.fromEntries([...fields].map(([name, field]) => [name, field.read()])),
    write: (row) => fields.forEach((field, name) => field.write(row[name] ?? "")),
    ready: () => Promise.all([...fields.values()].map((field) => field.ready?.())),
    unfilled: () => [...fields.values()].find((field) => field.read() === null)?.control ?? null,
    close: () => fields.forEach((field) => field.close?.()),
  };
}

function textField(input, id, changed, choices) {
  const control = document.createElement(input.kind === "text" ? "textarea" : "input");
  control.id = id;
  control.spellcheck = false;
  if (!isList(input)) control.inputMode = { whole: "numeric", number: "decimal" }[input.kind] ?? "text";
  control.addEventListener("input", changed);
  const element = fieldElement(input, control, hintOf(input));
  if (input.kind === "text" || isList(input)) element.classList.add("wide");
  if (choices.length && input.kind !== "text") element.append(choiceList(control, choices));
  return { element, control, read: () => control.value, write: (value) => (control.value = value) };
}

function choiceList(control, choices) {
  const list = document.createElement("datalist");
  list.id = `${control.id}-choices`;
  list.append(...choices.map((choice) => new Option(choice)));
  control.setAttribute("list", list.id);
  return list;
}

function choices({ name }, examples) {
  const values = [...new Set(examples.map((row) => row[name]).filter((value) => typeof value === "string" && value !== ""))];
  return values.length <= SUGGESTED_VALUES ? values.sort() : [];
}
