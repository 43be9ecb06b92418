// Ask the three demo models from Node.js 18 or later, which needs no package for it:
//
//   node docs/examples/predict.mjs http://127.0.0.1:8501 digit.png
import { readFile } from "node:fs/promises";

const [server, image] = process.argv.slice(2);
const ATTEMPTS = 4;

/** The outputs of one request: one value per row, or an object of them where the signature has several outputs. */
async function predict(model, inputs) {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(`${server}/v1/models/${model}:predict`, {
      method: "POST",
      body: JSON.stringify({ inputs }),
      signal: AbortSignal.timeout(30_000),
    });
    const answer = await response.json();
    if (response.ok) return answer.outputs;
    // 503 is a server whose queue is full: the only refusal after which asking again helps.
    if (response.status !== 503 || attempt === ATTEMPTS) throw new Error(`${model}: ${answer.error}`);
    await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** attempt));
  }
}

// One column per input; as many values in each as there are rows.
const patients = {
  age: [63], sex: [1], cp: [1], trestbps: [145], chol: [233], fbs: [1], restecg: [2],
  thalach: [150], exang: [0], oldpeak: [2.3], slope: [3], ca: [0], thal: ["fixed"],
};
console.log("heart:", (await predict("heart", patients)).join());

// A model with a single input takes its values as they are.
console.log("reviews:", (await predict("reviews", ["A film that nobody will forget."])).join());

// The file as base64; { b64: … } instead of the bare text would send its bytes, which the model takes as well.
console.log("digits:", (await predict("digits", [(await readFile(image)).toString("base64")])).join());
