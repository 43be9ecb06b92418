import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Base64;

/**
 * Asks the three demo models from Java 17 or later, with its standard library only.
 *
 * <pre>java docs/examples/Predict.java http://127.0.0.1:8501 digit.png</pre>
 */
public final class Predict {
    private static final int ATTEMPTS = 4;

    private final HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build();
    private final String server;

    private Predict(String server) {
        this.server = server;
    }

    /** The JSON document of an answer: {"outputs": ["label of the first row", …]}. */
    private String predict(String model, String inputs) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(URI.create(server + "/v1/models/" + model + ":predict"))
                .timeout(Duration.ofSeconds(30))
                .POST(HttpRequest.BodyPublishers.ofString("{\"inputs\": " + inputs + "}"))
                .build();
        for (int attempt = 1;; attempt++) {
            HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
            if (response.statusCode() == 200) {
                return response.body();
            }
            // 503 is a server whose queue is full: the only refusal after which asking again helps.
            if (response.statusCode() != 503 || attempt == ATTEMPTS) {
                throw new IOException(model + ": " + response.body());
            }
            Thread.sleep(100L << attempt);
        }
    }

    public static void main(String[] arguments) throws IOException, InterruptedException {
        Predict server = new Predict(arguments[0]);
        String image = Base64.getEncoder().encodeToString(Files.readAllBytes(Path.of(arguments[1])));

        // One column per input; as many values in each as there are rows. A real program has a library for JSON.
        String patients = """
                {"age": [63], "sex": [1], "cp": [1], "trestbps": [145], "chol": [233], "fbs": [1], "restecg": [2],
                 "thalach": [150], "exang": [0], "oldpeak": [2.3], "slope": [3], "ca": [0], "thal": ["fixed"]}""";
        print("heart", server.predict("heart", patients));
        // A model with a single input takes its values as they are.
        print("reviews", server.predict("reviews", "[\"A film that nobody will forget.\"]"));
        // The file as base64; {"b64": …} instead of the bare text would send its bytes, which the model takes as well.
        print("digits", server.predict("digits", "[\"" + image + "\"]"));
    }

    private static void print(String model, String answer) {
        System.out.println(model + ": " + answer.replaceAll("\\s", ""));
    }
}
