// What every field of the form is made of.

/** A label, the control and what may be typed into it. */
export function fieldElement(input, control, hintText) {
  const element = document.createElement("div");
  element.className = "field";
  const label = document.createElement("label");
  label.htmlFor = control.id;
  label.textContent = input.name;
  const hint = document.createElement("p");
  hint.className = "hint";
  hint.id = `${control.id}-hint`;
  hint.textContent = hintText;
  control.setAttribute("aria-describedby", hint.id);
  element.append(label, control, hint);
  return element;
}
