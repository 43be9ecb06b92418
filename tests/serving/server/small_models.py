"""Small SavedModels for the tests of the server, its clients and their commands."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf


def save_all(root: Path) -> dict[str, str]:
    """Every model of this module under a root, and their base paths by name."""
    save_half_plus_two(root / "half_plus_two" / "123")
    save_greeting(root / "greeting" / "1")
    save_patients(root / "patients" / "1")
    save_types(root / "types" / "1")
    save_decoder(root / "decoder" / "1")
    save_photos(root / "photos" / "1")
    save_counter(root / "counter" / "1")
    save_examples(root / "examples" / "7")
    return {path.name: str(path) for path in sorted(root.iterdir())}


def save_half_plus_two(version_path: Path, addend: float = 2.0) -> None:
    """y = x / 2 + addend, as TensorFlow Serving's guides use it; with variables, as a real model has."""

    class HalfPlusTwo(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.addend = tf.Variable(addend, dtype=tf.float32)

        @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
        def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x / 2.0 + self.addend}

    save_model(HalfPlusTwo(), version_path, "predict")


def save_greeting(version_path: Path) -> None:
    """A string input and one string output, the label; and a `classify` signature with several outputs."""

    class Greeting(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def predict(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"output_0": tf.strings.join(["hello ", text])}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def classify(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
            count = tf.shape(text)[0]
            return {
                "labels": tf.tile([["good", "bad"]], [count, 1]),
                "probabilities": tf.tile([[0.75, 0.25]], [count, 1]),
                "raw_bytes": text,
            }

    greeting = Greeting()
    save_model(greeting, version_path, "predict", "classify")


def save_patients(version_path: Path) -> None:
    """Three columns of unknown rank, as a tabular model declares them: [-1] and [-1, 1] are both accepted."""

    class Patients(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec(None, tf.int64, name="age"),
                tf.TensorSpec(None, tf.float32, name="oldpeak"),
                tf.TensorSpec(None, tf.string, name="thal"),
            ]
        )
        def predict(self, age: tf.Tensor, oldpeak: tf.Tensor, thal: tf.Tensor) -> dict[str, tf.Tensor]:
            columns = [tf.as_string(age), tf.as_string(oldpeak, precision=1), thal]
            return {"output_0": tf.strings.join([tf.reshape(column, [-1]) for column in columns], separator="|")}

    save_model(Patients(), version_path, "predict")


def save_types(version_path: Path) -> None:
    """Each kind of number that JSON treats in its own way; `complex` and `half` have outputs that JSON cannot carry."""
    names = ["bool", "double", "int32", "int64", "uint8"]
    dtypes = [tf.bool, tf.float64, tf.int32, tf.int64, tf.uint8]

    class Types(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec(None, dtype, name=name) for name, dtype in zip(names, dtypes, strict=True)]
        )
        def predict(self, *values: tf.Tensor) -> dict[str, tf.Tensor]:
            return {f"{name}_out": tf.identity(value) for name, value in zip(names, values, strict=True)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def complex(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"z": tf.complex(x, x)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def half(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"z": tf.cast(x, tf.float16), "w": tf.cast(x, tf.bfloat16)}

    save_model(Types(), version_path, "predict", "complex", "half")


def save_decoder(version_path: Path) -> None:
    """The size of a JPEG; its graph fails on what is none."""

    class Decoder(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
        def predict(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            size = tf.map_fn(
                lambda image: tf.shape(tf.io.decode_jpeg(image)), image_bytes, fn_output_signature=tf.int32
            )
            return {"size": size}

    save_model(Decoder(), version_path, "predict")


def save_photos(version_path: Path) -> None:
    """Label "" for what is no PNG, and `classify` with the reason, as models of photos have them."""

    class Photos(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def predict(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"output_0": tf.where(self.is_png(image), "cat", "")}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def classify(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            good = self.is_png(image_bytes)
            return {
                "labels": tf.where(good[:, None], [["cat", "dog"]], ""),
                "probabilities": tf.where(good[:, None], [[0.75, 0.25]], 0.0),
                "error": tf.where(good, "", "not a PNG image"),
            }

        def is_png(self, images: tf.Tensor) -> tf.Tensor:
            return tf.equal(tf.strings.substr(images, 0, 4), b"\x89PNG")

    save_model(Photos(), version_path, "predict", "classify")


def save_counter(version_path: Path) -> None:
    """Counts to n one by one: as slow as the request wants it."""

    class Counter(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.int64, name="n")])
        def predict(self, n: tf.Tensor) -> dict[str, tf.Tensor]:
            count = tf.while_loop(
                lambda count: count < n, lambda count: [count + 1], [tf.constant(0, tf.int64)], parallel_iterations=1
            )
            return {"count": tf.reshape(count[0], [1])}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="n")])
        def rows(self, n: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"count": tf.minimum(n, self.predict(tf.reduce_max(n))["count"])}

    save_model(Counter(), version_path, "predict", "rows")


def save_examples(version_path: Path) -> None:
    """Classify and regress signatures on tf.Examples with the feature x, and x2 where it is there."""
    signature, constants = tf.compat.v1.saved_model, tf.compat.v1.saved_model.signature_constants
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        serialized = tf.compat.v1.placeholder(tf.string, [None])
        features = {"x": tf.io.FixedLenFeature([1], tf.float32), "x2": tf.io.FixedLenFeature([1], tf.float32, [0.0])}
        parsed = tf.io.parse_example(serialized, features)
        half_plus_two = tf.identity(parsed["x"] / 2.0 + 2.0)
        half_plus_three = tf.identity(parsed["x2"] / 2.0 + 3.0)
        scores = tf.concat([half_plus_two, half_plus_three], axis=1)
        classes = tf.where(scores > 0.0, tf.fill(tf.shape(scores), "above"), tf.fill(tf.shape(scores), "below"))
        flat = tf.fill(tf.shape(serialized), 1.0)

        def described(method: str, **tensors: tf.Tensor) -> object:
            infos = {name: signature.build_tensor_info(tensor) for name, tensor in tensors.items()}
            inputs = {"inputs": signature.build_tensor_info(serialized)}
            return signature.build_signature_def(inputs, infos, method)

        classify, regress = constants.CLASSIFY_METHOD_NAME, constants.REGRESS_METHOD_NAME
        builder = signature.Builder(str(version_path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": described(regress, outputs=half_plus_two),
                "regress_x_to_y": described(regress, outputs=half_plus_two),
                "regress_x2_to_y3": described(regress, outputs=half_plus_three),
                "regress_two": described(regress, outputs=scores),
                "classify_x_to_y": described(classify, scores=half_plus_two),
                "classify_both": described(classify, classes=classes, scores=scores),
                "classify_classes": described(classify, classes=classes),
                "classify_flat": described(classify, scores=flat),
                "predict": described(constants.PREDICT_METHOD_NAME, y=half_plus_two),
            },
        )
        builder.save()


def save_model(module: tf.Module, version_path: Path, default: str, *others: str) -> None:
    """A module's methods as signatures, the first as the default one."""
    signatures = {"serving_default": getattr(module, default)} | {name: getattr(module, name) for name in others}
    tf.saved_model.save(module, str(version_path), signatures=signatures)
