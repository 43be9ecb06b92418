// A field for an image: chosen, dropped or pasted, shown, and read as base64.

import { fieldElement } from "./field_element.js";

/** {element, control, read, write, ready, close}; it reads null while there is no image. */
export function imageField(input, id, changed) {
  const control = document.createElement("input");
  control.id = id;
  control.type = "file";
  control.accept = "image/*";
  const element = fieldElement(input, control, "Choose an image, drop one here, or paste one.");
  element.classList.add("wide", "drop");
  const picture = document.createElement("img");
  picture.alt = "The image that is sent";
  picture.hidden = true;
  const note = document.createElement("p");
  note.className = "hint";
  note.setAttribute("role", "status");
  element.append(picture, note);

  let content = null;
  let reading = Promise.resolve();
  let turn = 0;

  async function show(blob, name) {
    const mine = ++turn;
    let base64 = null;
    let said = blob ? `${name}, ${blob.size.toLocaleString("en")} bytes` : "";
    let drawable = false;
    try {
      base64 = blob && (await base64Of(blob));
      drawable = Boolean(blob) && (await canBeDrawn(blob));
      if (blob && !drawable) said += "; this browser cannot show it, the model may still answer.";
    } catch (error) {
      said = `${name} cannot be read: ${error.message}`;
    }
    if (mine !== turn) return;  // another image came meanwhile
    content = base64 === null ? null : { b64: base64 };
    URL.revokeObjectURL(picture.src);
    picture.hidden = !drawable;
    if (drawable) picture.src = URL.createObjectURL(blob);
    note.textContent = said;
    changed();
  }

  function take(files) {
    const [file] = files ?? [];
    if (file) reading = show(file, file.name);
    return Boolean(file);
  }

  const listeners = new AbortController();
  const listen = (target, type, listener) => target.addEventListener(type, listener, { signal: listeners.signal });
  listen(control, "change", () => take(control.files));
  listen(document, "paste", (event) => {
    if (take(event.clipboardData?.files)) event.preventDefault();
  });
  // Anywhere: beside the field, the browser would open the file in place of this page.
  listen(document, "dragover", (event) => {
    event.preventDefault();
    element.classList.add("over");
  });
  listen(document, "dragleave", () => element.classList.remove("over"));
  listen(document, "drop", (event) => {
    event.preventDefault();
    element.classList.remove("over");
    take(event.dataTransfer?.files);
  });

  return {
    element,
    control,
    read: () => content,
    ready: () => reading,
    write: (field) => {
      control.value = "";
      reading = field.b64 === undefined ? show(null, "") : show(blobOf(field.b64), "Example");
    },
    close: () => {
      listeners.abort();
      URL.revokeObjectURL(picture.src);
    },
  };
}

function base64Of(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

function blobOf(base64) {
  return new Blob([Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))]);
}

async function canBeDrawn(blob) {
  try {
    (await createImageBitmap(blob)).close();
    return true;
  } catch {
    return false;
  }
}
