// What a model has answered, for people.

const SHOWN_LABELS = 10;

/**
 * Fills `container` with the answer to a request with one example, and tells it in one sentence: {sentence, problem},
 * of which one is "". The outputs of `classify` become bars, one label a line, anything else the JSON that came.
 */
export function showAnswer(container, { document: answer, text }) {
  const { outputs } = answer;
  container.replaceChildren();
  const [error] = outputs?.error ?? [];
  if (error) return { sentence: "", problem: `The model cannot use this input: ${error}` };
  const [labels] = outputs?.labels ?? [];
  const [probabilities] = outputs?.probabilities ?? [];
  if (Array.isArray(labels) && Array.isArray(probabilities)) {
    container.append(bars(labels, probabilities));
    const [served] = outputs.answer ?? [];
    if (typeof served === "string" && served !== labels[0]) {
      return { sentence: `${served}; most probable is ${labels[0]}, ${percent(probabilities[0])}.`, problem: "" };
    }
    return { sentence: `${labels[0]}, ${percent(probabilities[0])}.`, problem: "" };
  }
  if (Array.isArray(outputs) && outputs.length === 1 && typeof outputs[0] === "string") {
    const [label] = outputs;
    return label ? { sentence: `${label}.`, problem: "" } : { sentence: "", problem: "The model gives this input no label." };
  }
  const raw = document.createElement("pre");
  raw.tabIndex = 0;
  raw.textContent = text;
  container.append(raw);
  return { sentence: "The outputs are below.", problem: "" };
}

function bars(labels, probabilities) {
  const list = document.createElement("ol");
  list.className = "bars";
  list.append(...labels.slice(0, SHOWN_LABELS).map((label, rank) => line(label, probabilities[rank])));
  if (labels.length > SHOWN_LABELS) {
    const more = document.createElement("li");
    more.className = "quiet";
    more.textContent = `and ${labels.length - SHOWN_LABELS} less probable ones`;
    list.append(more);
  }
  return list;
}

function line(label, probability) {
  const item = document.createElement("li");
  const [name, share, bar, filled] = ["label", "share", "bar", ""].map((className) => {
    const span = document.createElement("span");
    span.className = className;
    return span;
  });
  name.textContent = label;
  share.textContent = percent(probability);
  filled.style.width = `${100 * probability}%`;
  bar.append(filled);
  item.append(name, " ", share, bar);
  return item;
}

/** One digit behind the point; neither nothing nor certainty where there is none. */
function percent(probability) {
  if (probability > 0 && probability < 0.0005) return "under 0.1 %";
  if (probability < 1 && probability >= 0.9995) return "over 99.9 %";
  return `${(100 * probability).toFixed(1)} %`;
}
