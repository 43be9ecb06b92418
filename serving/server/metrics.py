"""Metrics in Prometheus' text format: TensorFlow Serving's names, and what an operator asks besides."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from serving.client.errors import CanonicalCode
from serving.server.batching import BatchRecord, BatchScheduler
from serving.server.models import ServedModel
from serving.server.options import descriptor_limit, open_descriptors
from serving.server.request_log import RequestRecord

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Of a model's answers so many different labels and errors are told apart: whatever a model says, series are finite.
MAXIMUM_ANSWERS = 1000
OTHER = "(other)"

_INFERENCE = ("Predict", "Classify", "Regress", "MultiInference")
_MICROSECONDS = 1e6
# Exponential(10, 1.8, 33) there, written with six digits: up to about 20 minutes.
_LATENCY_BUCKETS = [float(f"{10 * 1.8**power:.6g}") for power in range(33)]
_SIZE_BUCKETS = [2**power for power in range(15)]


class ServerMetrics:
    """Counts what is asked and answered; for the event loop's own thread only.

    Args:
        models: whose states, labels and names are shown.
        batching: whose batches and queues are shown, None where requests are not merged.

    Attributes:
        connections: how many are open on the REST port.
        memory: bytes that requests hold of the budget.
    """

    def __init__(self, models: Mapping[str, ServedModel], batching: BatchScheduler | None) -> None:
        self._models = models
        self._registry = CollectorRegistry()
        self._registry.register(_GaugeCollector(models, batching))
        model = ["model_name", "version", "signature"]
        self._requests = self._counter(
            ":tensorflow:serving:request_count", "Requests by the code they ended with.", ["model_name", "status"]
        )
        self._latency = self._histogram(
            ":tensorflow:serving:request_latency",
            "Microseconds from a request to its answer.",
            ["model_name", "API", "entrypoint"],
            _LATENCY_BUCKETS,
        )
        self._runtime = self._histogram(
            ":tensorflow:serving:runtime_latency",
            "Microseconds in TensorFlow, waiting to be merged into a batch included.",
            ["model_name", "API", "runtime"],
            _LATENCY_BUCKETS,
        )
        self._queuing = self._histogram(
            ":tensorflow:serving:batching_session:queuing_latency",
            "Microseconds that a request waited to be merged into a batch.",
            ["thread_pool_name"],
            _LATENCY_BUCKETS,
        )
        self._batches = self._counter(
            ":tensorflow:serving:batching_session:wrapped_run_count", "Batches that were run.", []
        )
        self._batch_rows = self._histogram(
            "ingraph_batch_rows", "Rows of each batch that was run.", model, _SIZE_BUCKETS
        )
        self._request_rows = self._histogram("ingraph_request_rows", "Rows of each answer.", model, _SIZE_BUCKETS)
        self._labels = self._counter(
            "ingraph_predicted_labels", "Rows by the label they were answered with.", [*model, "label"]
        )
        self._input_errors = self._counter(
            "ingraph_input_errors", "Rows that a model could not use, by what was wrong with them.", [*model, "error"]
        )
        self._logged = self._counter(
            ":tensorflow:serving:request_log_count",
            "Requests that were to be logged, by what became of it.",
            ["model_name", "status_code"],
        )
        self._closed = self._counter(
            "ingraph_connections_closed", "Connections that the REST port has closed, by the reason.", ["reason"]
        )
        self.connections: Callable[[], int] = lambda: 0
        self.memory: Callable[[], int] = lambda: 0
        self._registry.register(_ProcessCollector(self))
        self._answers_seen: dict[tuple[str, str], set[str]] = {}
        if batching is not None:
            batching.observe = self._observe_batch

    def observe_request(self, record: RequestRecord) -> None:
        """Count and time an answered request, where it was one for inference."""
        if record.method not in _INFERENCE:
            return
        # Names come from clients: those that were never served share one series.
        name = record.model if record.model in self._models else ""
        self._requests.labels(name, record.code.name).inc()
        self._latency.labels(name, record.method, record.entrypoint).observe(record.seconds * _MICROSECONDS)

    def observe_outputs(
        self, name: str, version: int, signature: str, outputs: Mapping[str, np.ndarray], seconds: float
    ) -> None:
        """Note the time in TensorFlow, and what the model has answered where its outputs are those of a classifier."""
        self._runtime.labels(name, "Predict", "TF1").observe(seconds * _MICROSECONDS)
        model = (name, str(version), signature)
        first = next(iter(outputs.values()), None)
        if first is not None and first.ndim:
            self._request_rows.labels(*model).observe(len(first))
        best = outputs.get("labels", first if list(outputs) == ["output_0"] else None)
        for counter, kind, answers in (
            (self._labels, "label", best),
            (self._input_errors, "error", outputs.get("error")),
        ):
            if answers is None or answers.dtype.kind != "O" or not answers.size:
                continue
            for answer, count in Tally(answers.reshape(len(answers), -1)[:, 0].tolist()).items():
                if answer:
                    counter.labels(*model, self._finite(name, kind, answer)).inc(count)

    def observe_request_log(self, model: str, code: CanonicalCode) -> None:
        """Count a request that was to be logged: OK, or why it is lost. In any thread."""
        self._logged.labels(model, code.name).inc()

    def observe_closed(self, reason: str) -> None:
        """Count a connection that kept the server waiting, or was one too many."""
        self._closed.labels(reason).inc()

    def _observe_batch(self, batch: BatchRecord) -> None:
        """Note a batch that starts."""
        self._batches.inc()
        self._batch_rows.labels(batch.name, str(batch.version), batch.signature).observe(batch.rows)
        for seconds in batch.waited:
            self._queuing.labels("model_server_batch_threads").observe(seconds * _MICROSECONDS)

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return "".join(line for metric in self._registry.collect() for line in _lines(metric)).encode()

    def _finite(self, name: str, kind: str, answer: bytes) -> str:
        seen = self._answers_seen.setdefault((name, kind), set())
        text = answer.decode("utf-8", "replace")
        if len(seen) < MAXIMUM_ANSWERS:
            seen.add(text)
        return text if text in seen else OTHER

    def _counter(self, name: str, documentation: str, labels: Sequence[str]) -> Counter:
        return Counter(name, documentation, labels, registry=self._registry)

    def _histogram(self, name: str, documentation: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
        return Histogram(name, documentation, labels, buckets=buckets, registry=self._registry)


class _GaugeCollector(Collector):
    def __init__(self, models: Mapping[str, ServedModel], batching: BatchScheduler | None) -> None:
        self._models = models
        self._batching = batching

    def collect(self) -> Iterator[Metric]:
        flight = GaugeMetricFamily(
            "ingraph_requests_in_flight", "Requests being answered.", labels=["model_name", "version"]
        )
        state = GaugeMetricFamily(
            "ingraph_version_state", "1 for the state that a version is in.", labels=["model_name", "version", "state"]
        )
        labelled = GaugeMetricFamily(
            "ingraph_label_version", "The version that a label points to.", labels=["model_name", "label"]
        )
        for name, model in self._models.items():
            for version in model.versions:
                flight.add_metric([name, str(version.number)], version.requests)
                state.add_metric([name, str(version.number), version.state.name], 1)
            for label, number in model.labels.items():
                labelled.add_metric([name, label], number)
        yield from (flight, state, labelled)
        depths = self._batching.depths() if self._batching is not None else {}
        depth = GaugeMetricFamily(
            "ingraph_queue_depth", "Requests waiting to be merged.", labels=["model_name", "version", "signature"]
        )
        for (name, number, signature), count in depths.items():
            depth.add_metric([name, str(number), signature], count)
        yield depth


class _ProcessCollector(Collector):
    def __init__(self, metrics: ServerMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for name, documentation, value in (
            ("ingraph_rest_connections", "Connections that are open on the REST port.", self._metrics.connections()),
            ("ingraph_request_memory_bytes", "What requests hold of the memory budget.", self._metrics.memory()),
            ("ingraph_open_files", "File descriptors in use, of connections and files.", open_descriptors()),
            ("ingraph_open_files_limit", "File descriptors that there may be.", descriptor_limit()),
        ):
            yield GaugeMetricFamily(name, documentation, value)


def _lines(metric: Metric) -> Iterator[str]:
    # Not by prometheus_client.generate_latest, which adds _total to the names of counters: TensorFlow Serving has none.
    foreign = metric.name.startswith(":") and metric.type == "counter"
    name = f"{metric.name}_total" if metric.type == "counter" and not foreign else metric.name
    yield f"# HELP {name} {metric.documentation}\n# TYPE {name} {metric.type}\n"
    for sample in metric.samples:
        if not sample.name.endswith("_created"):
            yield _line(sample.name.removesuffix("_total") if foreign else sample.name, sample)


def _line(name: str, sample: Sample) -> str:
    labels = ",".join(
        f'{label}="{value.removesuffix(".0") if label == "le" else _escaped(value)}"'
        for label, value in sample.labels.items()
    )
    return f"{name}{{{labels}}} {floatToGoString(sample.value).removesuffix('.0')}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
