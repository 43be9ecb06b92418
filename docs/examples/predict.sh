#!/bin/sh
# Ask the three demo models with curl:
#
#   docs/examples/predict.sh http://127.0.0.1:8501 digit.png
set -eu
server=$1
image=$2

predict() { # model, body
    # --fail-with-body: a refusal ends the script, and its reason is printed all the same.
    answer=$(printf '%s' "$2" | curl --silent --show-error --fail-with-body --max-time 30 --data-binary @- \
        "$server/v1/models/$1:predict") || { printf '%s: %s\n' "$1" "$answer" >&2; exit 1; }
    printf '%s: %s\n' "$1" "$(printf '%s' "$answer" | tr -d ' \n')"
}

# One column per input; as many values in each as there are rows.
predict heart '{"inputs": {"age": [63], "sex": [1], "cp": [1], "trestbps": [145], "chol": [233], "fbs": [1],
    "restecg": [2], "thalach": [150], "exang": [0], "oldpeak": [2.3], "slope": [3], "ca": [0], "thal": ["fixed"]}}'

# A model with a single input takes its values as they are.
predict reviews '{"inputs": ["A film that nobody will forget."]}'

# The file as base64. {"b64": "…"} instead of the bare text would send its bytes, which the model takes as well.
predict digits "{\"inputs\": [\"$(base64 <"$image" | tr -d '\n')\"]}"
