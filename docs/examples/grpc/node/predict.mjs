// Ask the three demo models from Node.js 18 or later over gRPC, in this folder:
//
//   npm ci
//   node predict.mjs 127.0.0.1:8500 digit.png
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { credentials, loadPackageDefinition, status } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const [server, image] = process.argv.slice(2);

const definition = loadSync(fileURLToPath(new URL("../prediction_service.proto", import.meta.url)), {
  keepCase: true,
  longs: String,
  enums: String,
});
const { PredictionService } = loadPackageDefinition(definition).tensorflow.serving;
// A server whose queue is full answers UNAVAILABLE: the only refusal after which asking again helps.
const retries = {
  methodConfig: [
    {
      name: [{ service: "tensorflow.serving.PredictionService" }],
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: "0.1s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: [status.UNAVAILABLE],
      },
    },
  ],
};
const client = new PredictionService(server, credentials.createInsecure(), {
  "grpc.service_config": JSON.stringify(retries),
});

/** A tensor of one value per row. */
const tensor = (dtype, field, values) => ({ dtype, tensor_shape: { dim: [{ size: values.length }] }, [field]: values });
const integers = (...values) => tensor("DT_INT64", "int64_val", values);
const floats = (...values) => tensor("DT_FLOAT", "float_val", values);
const texts = (...values) => tensor("DT_STRING", "string_val", values.map((value) => Buffer.from(value)));

/** The labels of one request, one per row. */
function predict(model, inputs) {
  const request = { model_spec: { name: model }, inputs };
  return new Promise((resolve, reject) => {
    client.Predict(request, { deadline: Date.now() + 30_000 }, (error, answer) => {
      if (error) reject(new Error(`${model}: ${error.details}`));
      else resolve(answer.outputs.output_0.string_val.map((label) => label.toString()));
    });
  });
}

// One input per column; as many values in each as there are rows.
const patients = {
  age: integers(63), sex: integers(1), cp: integers(1), trestbps: integers(145), chol: integers(233),
  fbs: integers(1), restecg: integers(2), thalach: integers(150), exang: integers(0), oldpeak: floats(2.3),
  slope: integers(3), ca: integers(0), thal: texts("fixed"),
};
try {
  console.log("heart:", (await predict("heart", patients)).join());
  console.log("reviews:", (await predict("reviews", { text: texts("A film that nobody will forget.") })).join());
  console.log("digits:", (await predict("digits", { image: texts(await readFile(image)) })).join());
} finally {
  client.close();
}
