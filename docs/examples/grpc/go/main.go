// Ask the three demo models from Go over gRPC, in this folder:
//
//	go run . 127.0.0.1:8500 digit.png
//
// The package predictionservice is generated; `go generate` makes it anew with protoc and its plugins for Go
// (google.golang.org/protobuf/cmd/protoc-gen-go, google.golang.org/grpc/cmd/protoc-gen-go-grpc).
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"ingraph.example/client/predictionservice"
)

//go:generate protoc -I.. --go_out=. --go_opt=module=ingraph.example/client --go-grpc_out=. --go-grpc_opt=module=ingraph.example/client ../prediction_service.proto

// A server whose queue is full answers UNAVAILABLE: the only refusal after which asking again helps.
const retries = `{"methodConfig": [{
	"name": [{"service": "tensorflow.serving.PredictionService"}],
	"retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// tensor is one of a value per row, which lies in the field of its dtype.
func tensor(dtype predictionservice.DataType, rows int) *predictionservice.TensorProto {
	shape := &predictionservice.TensorShapeProto{Dim: []*predictionservice.TensorShapeProto_Dim{{Size: int64(rows)}}}
	return &predictionservice.TensorProto{Dtype: dtype, TensorShape: shape}
}

func integers(values ...int64) *predictionservice.TensorProto {
	t := tensor(predictionservice.DataType_DT_INT64, len(values))
	t.Int64Val = values
	return t
}

func floats(values ...float32) *predictionservice.TensorProto {
	t := tensor(predictionservice.DataType_DT_FLOAT, len(values))
	t.FloatVal = values
	return t
}

func texts(values ...[]byte) *predictionservice.TensorProto {
	t := tensor(predictionservice.DataType_DT_STRING, len(values))
	t.StringVal = values
	return t
}

// predict returns the labels of one request, one per row.
func predict(
	client predictionservice.PredictionServiceClient, model string, inputs map[string]*predictionservice.TensorProto,
) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	answer, err := client.Predict(ctx, &predictionservice.PredictRequest{
		ModelSpec: &predictionservice.ModelSpec{Name: model},
		Inputs:    inputs,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", model, err)
	}
	var labels []string
	for _, label := range answer.Outputs["output_0"].GetStringVal() {
		labels = append(labels, string(label))
	}
	return labels, nil
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("expected the server's host:port and an image file")
	}
	image, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	connection, err := grpc.NewClient(
		os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(retries),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := predictionservice.NewPredictionServiceClient(connection)

	requests := []struct {
		model  string
		inputs map[string]*predictionservice.TensorProto
	}{
		// One input per column; as many values in each as there are rows.
		{"heart", map[string]*predictionservice.TensorProto{
			"age": integers(63), "sex": integers(1), "cp": integers(1), "trestbps": integers(145),
			"chol": integers(233), "fbs": integers(1), "restecg": integers(2), "thalach": integers(150),
			"exang": integers(0), "oldpeak": floats(2.3), "slope": integers(3), "ca": integers(0),
			"thal": texts([]byte("fixed")),
		}},
		{"reviews", map[string]*predictionservice.TensorProto{
			"text": texts([]byte("A film that nobody will forget.")),
		}},
		{"digits", map[string]*predictionservice.TensorProto{"image": texts(image)}},
	}
	for _, request := range requests {
		labels, err := predict(client, request.model, request.inputs)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", request.model, labels[0])
	}
}
