"""Devices that a training uses: the machine's GPUs side by side, those of several workers, and mixed precision."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import keras
import numpy as np
import tensorflow as tf

from trainers.errors import TrainingError
from trainers.options import DeviceChoice, MixedPrecision

Tensor = TypeVar("Tensor")


class _Options(Protocol):
    @property
    def devices(self) -> DeviceChoice: ...

    @property
    def mixed_precision(self) -> MixedPrecision: ...


@dataclass(frozen=True)
class Workers:
    """Processes that train one model, as the platforms tell each of them in TF_CONFIG.

    Attributes:
        count: how many; 1 where there is no TF_CONFIG.
        number: of this one; 0 is the chief, who writes what others read.

    Source: https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable
    """

    count: int = 1
    number: int = 0

    @classmethod
    def of(cls, tf_config: str) -> Workers:
        """Those of a TF_CONFIG, "" for none.

        Raises:
            TrainingError: it is none, or this process has another part in it than to train.
        """
        try:
            content = json.loads(tf_config or "{}")
            cluster, task = content.get("cluster", {}), content.get("task", {})
            # The chief is a worker like the others, the first one; without a chief, worker 0 is.
            addresses = [address for kind in ("chief", "worker") for address in cluster.get(kind, [])]
            if len(addresses) < 2:
                return cls()
            place, number = (str(task["type"]), int(task["index"]))
            known = place in ("chief", "worker") and number < len(cluster[place])
        except (ValueError, TypeError, KeyError, AttributeError):
            raise TrainingError(
                f"TF_CONFIG is {tf_config!r}; expected JSON with cluster and task, as Vertex AI and Kubeflow's "
                "training operator set it: unset it, or mend it"
            ) from None
        if not known or cluster.get("ps"):
            raise TrainingError(
                f"TF_CONFIG: the task is {place} {number} of {sorted(cluster)}; expected a chief and workers alone, "
                "all of which train: take parameter servers and evaluators out of the job"
            )
        return cls(len(addresses), number + (len(cluster.get("chief", [])) if place == "worker" else 0))


@dataclass(frozen=True)
class Devices:
    """Where a training runs. Without a strategy and a policy, each method gives back what it is given.

    A model is trained as a copy of it, whose variables every device has, and which computes as the policy says; the
    model gets the weights at the end, so that what is exported knows nothing of devices, and is float32.

    Attributes:
        strategy: what keeps the devices in step; None where TensorFlow's own choice of one device will do.
        policy: Keras's name of the copy's dtype policy; "" for that of the model.
        workers: among which the devices are.
    """

    strategy: tf.distribute.Strategy | None = None
    policy: str = ""
    workers: Workers = Workers()

    @property
    def count(self) -> int:
        """How many devices compute each step, those of other workers among them."""
        return 1 if self.strategy is None else int(self.strategy.num_replicas_in_sync)

    def scope(self) -> AbstractContextManager[Any]:
        """In which variables are made for all devices."""
        return nullcontext() if self.strategy is None else self.strategy.scope()

    def learner(self, model: keras.Model) -> keras.Model:
        """What is trained in the place of the model, with the same values of all variables."""
        if self.strategy is None and not self.policy:
            return model
        with self.scope():
            learner = keras.models.clone_model(model, clone_function=self._copied, recursive=True)
        for variable, value in zip(learner.variables, model.variables, strict=True):
            assign_to_devices(variable, np.asarray(value))
        return learner

    def _copied(self, layer: Any) -> Any:
        config = layer.get_config()
        if self.policy and isinstance(layer, keras.layers.Layer) and not _is_exact(layer):
            config["dtype"] = self.policy
        if self.count > 1 and isinstance(layer, keras.layers.BatchNormalization):
            # Means over the whole batch, as one device has them.
            config["synchronized"] = True
        return layer.__class__.from_config(config)

    def take_back(self, model: keras.Model, learner: keras.Model) -> None:
        """Give the model what its learner has learned, and its history."""
        if learner is not model:
            model.set_weights(learner.get_weights())
            model.history = getattr(learner, "history", None)

    def optimizer(self, make: Callable[[], keras.optimizers.Optimizer]) -> keras.optimizers.Optimizer:
        """The optimizer; where gradients would vanish in float16, one that scales the losses that it is given."""
        with self.scope():
            made = make()
            return keras.optimizers.LossScaleOptimizer(made) if self.policy == "mixed_float16" else made

    def compile(self, learner: keras.Model, make: Callable[[], keras.optimizers.Optimizer], **others: Any) -> None:
        """Compile a learner whose losses are means over the batch."""
        optimizer = self.optimizer(make)
        if self.strategy is not None:
            # Keras 3.15 cannot take several steps at once from batches that are shared out: its loop fails.
            others["steps_per_execution"] = 1
        with self.scope():
            learner.compile(optimizer=optimizer, jit_compile=False, **others)
            if self.strategy is not None:
                optimizer.build(learner.trainable_variables)
        if self.workers.count > 1:
            # All is built; to do so, Keras 3.15 would reduce a batch over the workers, which TensorFlow refuses. And it
            # takes the mean of each worker's metrics over an axis that they do not have; what it keeps is read later.
            learner._maybe_symbolic_build = lambda **_: None
            metrics = learner.compute_metrics
            learner.compute_metrics = lambda *given, **named: {
                name: tf.reshape(value, [1]) for name, value in metrics(*given, **named).items()
            }

    def batches(self, dataset: tf.data.Dataset) -> Any:
        """The batches of features, labels and, maybe, weights, each shared out among the devices in equal parts.

        A batch that cannot be is filled up with rows that weigh nothing, and the others weigh as much more as makes the
        loss, a mean over rows, that of the batch as it was.
        """
        strategy, count = self.strategy, self.count
        if strategy is None:
            return dataset

        def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            local = count // context.num_input_pipelines
            first = context.input_pipeline_id * local

            def parts(features: Any, labels: tf.Tensor, weights: tf.Tensor | None = None) -> tf.data.Dataset:
                size = tf.shape(labels)[0]
                each = -(-size // count)
                places = tf.range(count * each)
                factor = tf.cast(count * each, tf.float32) / tf.cast(size, tf.float32)
                weights = tf.ones([size]) if weights is None else weights
                rows = tf.reshape(places % size, [count, each])[first : first + local]
                weighed = tf.reshape(tf.where(places < size, factor, 0.0), [count, each])[first : first + local]
                taken = tf.nest.map_structure(lambda values: tf.gather(values, rows), (features, labels))
                return tf.data.Dataset.from_tensor_slices((*taken, tf.gather(weights, rows) * weighed))

            filled = dataset.filter(lambda _, labels, *__: tf.shape(labels)[0] > 0)
            return filled.flat_map(parts).prefetch(2 * local)

        return strategy.distribute_datasets_from_function(of_worker)

    def part(self, rows: tf.Tensor) -> tf.Tensor:
        """Of the rows of a step, those of the device that asks; all parts together are the rows."""
        if self.strategy is None:
            return rows
        replica = tf.distribute.get_replica_context()
        return rows[replica.replica_id_in_sync_group :: self.count]

    def shares(self, losses: list[tf.Tensor]) -> list[tf.Tensor]:
        """Of losses that each device has whole, such as penalties of weights, what it adds to the sum of them all."""
        return losses if self.strategy is None else [loss / self.count for loss in losses]

    def sum(self, compute: Callable[[], Tensor]) -> Tensor:
        """What all devices compute, in sum."""
        if self.strategy is None:
            return compute()
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, self.strategy.run(compute), axis=None)

    def update(self, variable: Any, assign: Callable[[Any, Any], object], other: Any) -> None:
        """Assign to a variable on each device, from what another one has there."""
        if self.strategy is None:
            assign(variable, other)
        else:
            self.strategy.extended.update(variable, assign, args=(other,))

    def wait_for_others(self) -> None:
        """Until all workers have come here."""
        if self.workers.count > 1 and self.strategy is not None:
            strategy = self.strategy
            together = tf.function(lambda: self.sum(lambda: tf.constant(1.0)))
            if float(together()) != strategy.num_replicas_in_sync:
                raise TrainingError("several workers: some are missing at the end; start all of them again")


# As TensorFlow chooses it.
ONE_DEVICE = Devices()


def _is_exact(layer: keras.layers.Layer) -> bool:
    """Whether it makes probabilities, whose logarithms are the loss, or standardises values of any size."""
    activation = getattr(layer, "activation", None)
    exact = (keras.layers.Softmax, keras.layers.Normalization, keras.layers.Rescaling)
    return isinstance(layer, exact) or activation is keras.activations.softmax


def assign_to_devices(variable: keras.Variable, value: np.ndarray) -> None:
    """Set a variable on all devices; the state of a dropout on each to one of its own, or all would drop the same."""
    value = np.asarray(value, variable.dtype)
    variable.assign(value)
    replicas = getattr(variable.value, "values", None)
    if replicas is None or not variable.path.endswith("seed_generator_state"):
        return
    first = _workers().number * len(replicas)
    for place, replica in enumerate(replicas, start=first):
        # The first number is the seed, the second one counts; device 0 draws what one device draws.
        replica.assign(value + np.array([place, 0], value.dtype))


def training_devices(options: _Options) -> Devices:
    """The devices that options and machine come to; to be asked before TensorFlow computes anything.

    Raises:
        TrainingError: there are not as many, or they do not have the precision.
    """
    return _devices(options.devices, options.mixed_precision)


def _workers() -> Workers:
    return Workers.of(os.environ.get("TF_CONFIG", ""))


@cache
def _devices(choice: DeviceChoice, precision: MixedPrecision) -> Devices:
    workers = _workers()
    gpus = tf.config.list_physical_devices("GPU")
    if choice == "cpu" and gpus:
        try:
            tf.config.set_visible_devices([], "GPU")
        except RuntimeError as error:
            raise TrainingError(
                "trainer.devices is cpu, and TensorFlow has a GPU in use already in this process; start the command "
                "with CUDA_VISIBLE_DEVICES=-1 in its environment"
            ) from error
    used = [] if choice == "cpu" else gpus
    policy = _policy(precision, used)
    if workers.count > 1:
        # Each takes all GPUs that it sees.
        try:
            return Devices(tf.distribute.MultiWorkerMirroredStrategy(), policy, workers)
        except RuntimeError as error:
            raise TrainingError(
                "TF_CONFIG names several workers, and TensorFlow has computed something in this process already; run "
                "the Trainer's step alone, as a compiled pipeline does, or unset TF_CONFIG"
            ) from error
    if choice in ("auto", "cpu"):
        several = [f"GPU:{number}" for number in range(len(used))] if len(used) > 1 else []
    else:
        kind = "GPU" if gpus else "CPU"
        known = len(gpus) or len(tf.config.list_logical_devices("CPU"))
        if int(choice) > known:
            raise TrainingError(
                f"trainer.devices is {choice}, and there are {len(gpus)} GPUs here; expected that many at most: say "
                "auto for all there are, and see `ingraph doctor` for those that are missing"
            )
        # One of several GPUs, too, has to be said; of one alone, TensorFlow makes use by itself.
        several = [f"{kind}:{number}" for number in range(int(choice))] if known > 1 else []
    return Devices(tf.distribute.MirroredStrategy(several) if several else None, policy)


# From Volta on, there are units for products in float16.
_CAPABILITY = (7, 0)


def _policy(precision: MixedPrecision, gpus: list[Any]) -> str:
    if precision is False:
        return ""
    if precision == "bfloat16":
        return "mixed_bfloat16"
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
    if capabilities and min(capabilities) >= _CAPABILITY:
        return "mixed_float16"
    if precision == "auto":
        return ""
    found = f"a GPU of {min(capabilities)[0]}.{min(capabilities)[1]}" if capabilities else "no GPU"
    raise TrainingError(
        f"trainer.mixed_precision is true, which takes GPUs of compute capability 7.0 or more, and training has "
        f"{found}; say auto for wherever it is of use, or bfloat16 for a processor that computes with it"
    )


@contextmanager
def worker_places(fn_args: Any, devices: Devices) -> Iterator[Any]:
    """Where a worker writes: the chief where the Trainer says, the others into temporary folders.

    All wait for the chief at the end, whose export is what the Trainer looks for. A training that was killed goes on
    from the states that the chief kept, of which the others take a copy before the first step.

    Args:
        fn_args: TFX's FnArgs, with `serving_model_dir` and `model_run_dir`.
        devices: of the training.
    """
    if devices.workers.count == 1:
        yield fn_args
    elif devices.workers.number == 0:
        yield fn_args
        devices.wait_for_others()
    else:
        with tempfile.TemporaryDirectory(prefix="ingraph-worker-") as temporary:
            own = copy.copy(fn_args)
            own.serving_model_dir = str(Path(temporary) / "Format-Serving")
            own.model_run_dir = str(Path(temporary) / "Trainer" / "model_run" / "worker")
            if "://" not in fn_args.model_run_dir:
                kept = Path(fn_args.model_run_dir).parents[1] / "unfinished"
                if kept.exists():
                    ignored = shutil.ignore_patterns("*.unfinished")
                    shutil.copytree(kept, Path(own.model_run_dir).parents[1] / "unfinished", ignore=ignored)
            yield own
            devices.wait_for_others()
