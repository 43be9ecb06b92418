// Why a model has answered so: bars for columns, shaded words, a heat map over a photo.

const SHOWN_REASONS = 15;

/**
 * Fills `container` with the outputs of `explain` for one example, and tells them in one sentence: {sentence, problem}.
 * `kind` is that of a single input, "text" or "image", anything else for columns; `photo` its base64 content.
 */
export function showExplanation(container, { document: { outputs } }, kind, photo) {
  container.replaceChildren();
  const [error] = outputs.error;
  if (error) return { sentence: "", problem: `The model cannot use this input: ${error}` };
  const [label] = outputs.label;
  const [probability] = outputs.probability;
  const [base] = outputs.base;
  const [contributions] = outputs.contributions;
  const largest = Math.max(1e-9, ...contributions.flat().map(Math.abs));
  if (kind === "image") container.append(heatMap(contributions, largest, photo));
  else if (kind === "text") container.append(shadedWords(outputs.parts[0], contributions, largest));
  const note = made("p", "quiet");
  note.textContent = NOTES[kind] ?? NOTES.columns;
  container.append(note);
  // In words too: colours alone say nothing to those who cannot tell them apart.
  container.append(reasons(named(outputs.parts?.[0], contributions), largest));
  const sentence = `${label}: from ${points(base, false)} without any of it to ${points(probability, false)}.`;
  return { sentence, problem: "" };
}

const NOTES = {
  image: "Blue regions speak for the label, red ones against it.",
  text: "Blue words speak for the label, red ones against it.",
  columns: "What each column adds to the probability of the label, in percentage points.",
};

function named(parts, contributions) {
  if (parts) return contributions.map((value, place) => [parts[place], value]);
  return contributions.flatMap((line, row) => line.map((value, column) => [`row ${row + 1}, column ${column + 1}`, value]));
}

function reasons(pairs, largest) {
  const list = made("ol", "reasons");
  const shown = pairs.filter(([, value]) => value !== 0).sort(([, one], [, other]) => Math.abs(other) - Math.abs(one));
  for (const [part, value] of shown.slice(0, SHOWN_REASONS)) {
    const item = made("li");
    const name = made("span", "label");
    const share = made("span", "share");
    const bar = made("span", "bar");
    const filled = made("span", value < 0 ? "against" : "");
    name.textContent = part;
    share.textContent = points(value, true);
    filled.style.width = `${(100 * Math.abs(value)) / largest}%`;
    bar.append(filled);
    item.append(name, " ", share, bar);
    list.append(item);
  }
  return list;
}

function shadedWords(words, contributions, largest) {
  const text = made("p", "words");
  words.forEach((word, place) => {
    if (!word) return;
    const shown = made("span");
    shown.textContent = word;
    shown.style.backgroundColor = shade(contributions[place], largest, 45);
    shown.title = points(contributions[place], true);
    text.append(shown, " ");
  });
  return text;
}

function heatMap(contributions, largest, photo) {
  const frame = made("div", "heat");
  const picture = made("img");
  picture.alt = "The photo, its regions in the colours of what they add";
  picture.src = `data:image/png;base64,${photo}`;
  const grid = made("div", "grid-of-regions");
  grid.append(...contributions.flat().map((value) => {
    const cell = made("span");
    cell.style.backgroundColor = shade(value, largest, 75);
    return cell;
  }));
  frame.append(picture, grid);
  return frame;
}

const shade = (value, largest, most) =>
  `color-mix(in srgb, var(${value < 0 ? "--bad" : "--accent"}) ${(most * Math.abs(value)) / largest}%, transparent)`;

function points(share, signed) {
  const text = (100 * share).toFixed(1);
  return signed ? `${share < 0 ? "" : "+"}${text}` : `${text} %`;
}

function made(tag, className = "") {
  const element = document.createElement(tag);
  element.className = className;
  return element;
}
