// Ask the three demo models from Go, with its standard library only:
//
//	go run docs/examples/predict.go http://127.0.0.1:8501 digit.png
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

type answer struct {
	Outputs []string `json:"outputs"` // one label per row
	Error   string   `json:"error"`
}

var client = &http.Client{Timeout: 30 * time.Second}

// predict returns the labels of one request.
func predict(server, model string, inputs any) ([]string, error) {
	body, err := json.Marshal(map[string]any{"inputs": inputs})
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		response, err := client.Post(server+"/v1/models/"+model+":predict", "application/json", bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		var received answer
		err = json.NewDecoder(response.Body).Decode(&received)
		response.Body.Close()
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %s: %w", model, response.Status, err)
		case response.StatusCode == http.StatusOK:
			return received.Outputs, nil
		// 503 is a server whose queue is full: the only refusal after which asking again helps.
		case response.StatusCode != http.StatusServiceUnavailable || attempt == 4:
			return nil, fmt.Errorf("%s: %s", model, received.Error)
		}
		time.Sleep(100 * time.Millisecond << attempt)
	}
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("expected the server's address and an image file")
	}
	image, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	requests := []struct {
		model  string
		inputs any
	}{
		// One column per input; as many values in each as there are rows.
		{"heart", map[string]any{
			"age": []int{63}, "sex": []int{1}, "cp": []int{1}, "trestbps": []int{145}, "chol": []int{233},
			"fbs": []int{1}, "restecg": []int{2}, "thalach": []int{150}, "exang": []int{0},
			"oldpeak": []float64{2.3}, "slope": []int{3}, "ca": []int{0}, "thal": []string{"fixed"},
		}},
		// A model with a single input takes its values as they are.
		{"reviews", []string{"A film that nobody will forget."}},
		// The file as base64; {"b64": …} instead of the bare text would send its bytes, which the model takes as well.
		{"digits", []string{base64.StdEncoding.EncodeToString(image)}},
	}
	for _, request := range requests {
		labels, err := predict(os.Args[1], request.model, request.inputs)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", request.model, labels[0])
	}
}
