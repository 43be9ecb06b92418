import com.google.protobuf.ByteString;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import predictionservice.DataType;
import predictionservice.ModelSpec;
import predictionservice.PredictRequest;
import predictionservice.PredictionServiceGrpc;
import predictionservice.PredictionServiceGrpc.PredictionServiceBlockingStub;
import predictionservice.TensorProto;
import predictionservice.TensorShapeProto;

/**
 * Asks the three demo models from Java 17 or later over gRPC, in this folder.
 *
 * <pre>mvn --quiet compile exec:java -Dexec.args="127.0.0.1:8500 digit.png"</pre>
 */
public final class Predict {
    /** A server whose queue is full answers UNAVAILABLE: the only refusal after which asking again helps. */
    private static final Map<String, ?> RETRIES = Map.of("methodConfig", List.of(Map.of(
            "name", List.of(Map.of("service", PredictionServiceGrpc.SERVICE_NAME)),
            "retryPolicy", Map.of(
                    "maxAttempts", 4.0, "initialBackoff", "0.1s", "maxBackoff", "2s", "backoffMultiplier", 2.0,
                    "retryableStatusCodes", List.of("UNAVAILABLE")))));

    private final PredictionServiceBlockingStub service;

    private Predict(ManagedChannel channel) {
        service = PredictionServiceGrpc.newBlockingStub(channel);
    }

    /** The labels of one request, one per row. */
    private List<String> predict(String model, Map<String, TensorProto> inputs) {
        PredictRequest request = PredictRequest.newBuilder()
                .setModelSpec(ModelSpec.newBuilder().setName(model))
                .putAllInputs(inputs)
                .build();
        return service.withDeadlineAfter(30, TimeUnit.SECONDS).predict(request)
                .getOutputsOrThrow("output_0").getStringValList().stream().map(ByteString::toStringUtf8).toList();
    }

    /** A tensor of one value per row, which lies in the field of its dtype. */
    private static TensorProto.Builder tensor(DataType dtype, int rows) {
        TensorShapeProto.Dim size = TensorShapeProto.Dim.newBuilder().setSize(rows).build();
        return TensorProto.newBuilder().setDtype(dtype).setTensorShape(TensorShapeProto.newBuilder().addDim(size));
    }

    private static TensorProto integers(Long... values) {
        return tensor(DataType.DT_INT64, values.length).addAllInt64Val(Arrays.asList(values)).build();
    }

    private static TensorProto floats(Float... values) {
        return tensor(DataType.DT_FLOAT, values.length).addAllFloatVal(Arrays.asList(values)).build();
    }

    private static TensorProto texts(ByteString... values) {
        return tensor(DataType.DT_STRING, values.length).addAllStringVal(Arrays.asList(values)).build();
    }

    public static void main(String[] arguments) throws IOException, InterruptedException {
        ByteString image = ByteString.copyFrom(Files.readAllBytes(Path.of(arguments[1])));
        ManagedChannel channel = Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create())
                .defaultServiceConfig(RETRIES)
                .enableRetry()
                .build();
        try {
            Predict server = new Predict(channel);

            // One input per column; as many values in each as there are rows.
            Map<String, TensorProto> patients = new LinkedHashMap<>();
            patients.put("age", integers(63L));
            patients.put("sex", integers(1L));
            patients.put("cp", integers(1L));
            patients.put("trestbps", integers(145L));
            patients.put("chol", integers(233L));
            patients.put("fbs", integers(1L));
            patients.put("restecg", integers(2L));
            patients.put("thalach", integers(150L));
            patients.put("exang", integers(0L));
            patients.put("oldpeak", floats(2.3f));
            patients.put("slope", integers(3L));
            patients.put("ca", integers(0L));
            patients.put("thal", texts(ByteString.copyFromUtf8("fixed")));
            print("heart", server.predict("heart", patients));
            ByteString review = ByteString.copyFromUtf8("A film that nobody will forget.");
            print("reviews", server.predict("reviews", Map.of("text", texts(review))));
            print("digits", server.predict("digits", Map.of("image", texts(image))));
        } finally {
            channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
        }
    }

    private static void print(String model, List<String> labels) {
        System.out.println(model + ": " + labels.get(0));
    }
}
